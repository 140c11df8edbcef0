//! `show traffic`: what was sent to every locator, and what arrived on every own one.

use ::xtr::view::{ArrivedView, SentView, TrafficView};

use super::super::columns::Align::{Left, Right};
use super::super::columns::table;
use super::in_instance;

/// Both directions.
pub(super) fn traffic(view: &TrafficView) -> String {
    let mut text = String::new();
    if !view.arrived.is_empty() {
        let rows: Vec<_> = view.arrived.iter().map(arrived).collect();
        let header = [
            ("Arrived for EID-prefix", Left),
            ("Own RLOC", Left),
            ("State", Left),
            ("Pri/Wgt", Right),
            ("MPri/MWgt", Right),
            ("Packets", Right),
            ("Octets", Right),
        ];
        text += &table(0, &header, &rows);
    }
    if !view.sent.is_empty() {
        if !text.is_empty() {
            text.push('\n');
        }
        let rows: Vec<_> = view.sent.iter().map(sent).collect();
        let header = [
            ("Sent for EID-prefix", Left),
            ("Locator", Left),
            ("Packets", Right),
            ("Octets", Right),
        ];
        text += &table(0, &header, &rows);
    }
    if text.is_empty() { "No traffic.\n".to_owned() } else { text }
}

fn arrived(one: &ArrivedView) -> Vec<String> {
    let (state, unicast, multicast) = match &one.locator {
        Some(locator) => (
            if locator.reachable { "up" } else { "down" },
            format!("{}/{}", locator.priority, locator.weight),
            format!("{}/{}", locator.multicast_priority, locator.multicast_weight),
        ),
        None => ("not in the set", "-".to_owned(), "-".to_owned()),
    };
    vec![
        in_instance(one.instance_id, one.prefix),
        one.rloc.to_string(),
        state.to_owned(),
        unicast,
        multicast,
        one.packets.to_string(),
        one.octets.to_string(),
    ]
}

fn sent(one: &SentView) -> Vec<String> {
    let rloc = one.rloc.map_or_else(|| "former ones".to_owned(), |rloc| rloc.to_string());
    vec![
        in_instance(one.instance_id, one.prefix),
        rloc,
        one.packets.to_string(),
        one.octets.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn op_01_traffic_is_shown_by_eid_prefix_and_rloc() {
        let view = serde_json::from_value(json!({
            "arrived": [
                {"prefix": "2001:db8:e007:1::/64", "instance_id": 0, "rloc": "198.51.100.21", "packets": 7000, "octets": 700_000,
                 "locator": {"priority": 1, "weight": 70, "multicast_priority": 255, "multicast_weight": 0, "reachable": true}},
                {"prefix": "2001:db8:e007:1::/64", "instance_id": 0, "rloc": "198.51.100.22", "locator": null, "packets": 0, "octets": 0},
            ],
            "sent": [
                {"prefix": "2001:db8:e001::/48", "instance_id": 0, "rloc": "198.51.100.11", "packets": 12, "octets": 1200},
                {"prefix": "2001:db8:e001::/48", "instance_id": 0, "rloc": null, "packets": 3, "octets": 300},
            ],
        }))
        .unwrap();
        let expected = "\
Arrived for EID-prefix  Own RLOC       State           Pri/Wgt  MPri/MWgt  Packets  Octets
2001:db8:e007:1::/64    198.51.100.21  up                 1/70      255/0     7000  700000
2001:db8:e007:1::/64    198.51.100.22  not in the set        -          -        0       0

Sent for EID-prefix  Locator        Packets  Octets
2001:db8:e001::/48   198.51.100.11       12    1200
2001:db8:e001::/48   former ones          3     300
";
        assert_eq!(traffic(&view), expected);
        assert_eq!(traffic(&TrafficView::default()), "No traffic.\n");
    }
}
