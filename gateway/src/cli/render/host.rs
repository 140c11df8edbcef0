//! What a daemon is made of: its interfaces, its configuration.

use std::fmt::Write;

use serde_json::Value;
use xtr::view::{InterfaceView, LinkTraffic};

use super::super::columns::Align::{Left, Right};
use super::super::columns::{clock, table};

/// `show interfaces`.
pub(super) fn interfaces(interfaces: &[InterfaceView]) -> String {
    let header = [
        ("Interface", Left),
        ("State", Left),
        ("MTU", Right),
        ("Received", Right),
        ("Octets", Right),
        ("Dropped", Right),
        ("Sent", Right),
        ("Octets", Right),
        ("Dropped", Right),
        ("Use", Left),
    ];
    let row = |interface: &InterfaceView| {
        let lost = |traffic: LinkTraffic| (traffic.dropped + traffic.errors).to_string();
        let (received, sent) = (interface.received, interface.sent);
        vec![
            interface.name.clone(),
            interface.state.clone(),
            interface.mtu.map_or_else(|| "-".to_owned(), |mtu| mtu.to_string()),
            received.packets.to_string(),
            received.octets.to_string(),
            lost(received),
            sent.packets.to_string(),
            sent.octets.to_string(),
            lost(sent),
            interface.uses.join(", "),
        ]
    };
    let mut text = table(0, &header, &interfaces.iter().map(row).collect::<Vec<_>>());
    for interface in interfaces.iter().filter(|interface| !interface.addresses.is_empty()) {
        let addresses: Vec<String> = interface.addresses.iter().map(ToString::to_string).collect();
        let mac = interface.mac.as_ref().map_or_else(String::new, |mac| format!(" {mac}"));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{}{mac}\n  {}", interface.name, addresses.join("\n  "));
    }
    text
}

/// `show config`: as TOML that could be read again, with what is known of it as comments.
pub(super) fn config(view: &Value) -> String {
    let word = |key: &str| view[key].as_str().unwrap_or_default();
    let mut text = format!(
        "# from {}, for {}\n",
        word("file"),
        clock(view["since_seconds"].as_u64().unwrap_or_default()),
    );
    if let Some(seconds) = view["unconfirmed_seconds"].as_u64() {
        let _ = writeln!(text, "# on trial: without `isthmus confirm` it goes in {seconds} s");
    }
    if word("on_disk") != "the same" {
        let _ = writeln!(
            text,
            "# {}, which a restart reads, is {}",
            word("read_at_restart"),
            word("on_disk")
        );
    }
    text.push('\n');
    text + word("text")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_configuration_says_where_it_comes_from() {
        let text = "[xtr]\nname = \"a\"\n";
        let mut view = json!({
            "file": "/etc/isthmus/xtr.toml", "read_at_restart": "/etc/isthmus/xtr.toml",
            "on_disk": "the same", "since_seconds": 61, "unconfirmed_seconds": null, "text": text,
        });
        assert_eq!(config(&view), format!("# from /etc/isthmus/xtr.toml, for 00:01:01\n\n{text}"));
        view["file"] = json!("/tmp/x.toml");
        view["on_disk"] = json!("different");
        view["unconfirmed_seconds"] = json!(7);
        let told = config(&view);
        assert!(told.contains("# on trial: without `isthmus confirm` it goes in 7 s\n"), "{told}");
        assert!(told.contains("# /etc/isthmus/xtr.toml, which a restart reads, is different\n"));
    }

    #[test]
    fn interfaces_are_a_table_and_their_addresses() {
        let tun = InterfaceView {
            name: "isthmus0".to_owned(),
            uses: vec!["tun".to_owned()],
            state: "up".to_owned(),
            mtu: Some(65_535),
            ..InterfaceView::default()
        };
        let eth = InterfaceView {
            name: "eth1".to_owned(),
            uses: vec!["rloc 192.0.2.1".to_owned()],
            state: "no-carrier".to_owned(),
            mac: Some("02:00:00:00:00:01".to_owned()),
            addresses: vec!["192.0.2.1".parse().unwrap()],
            ..InterfaceView::default()
        };
        let text = interfaces(&[eth, tun]);
        assert!(text.starts_with("Interface  State         MTU  Received"), "{text}");
        assert!(text.ends_with("\neth1 02:00:00:00:00:01\n  192.0.2.1\n"), "{text}");
    }
}
