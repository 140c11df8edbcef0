//! `show interfaces`: which interfaces of the host serve for what, and what the kernel counted there.
use super::Daemon;
use crate::config::{Intake, RouterConfig};
use crate::host::underlay::{self, LinkFacts};
use crate::view::InterfaceView;
use mapping::admin::{Part, Request};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

impl Daemon {
    /// Asks the kernel, and answers when it has; the loop goes on meanwhile.
    pub(super) fn answer_interfaces(&self, request: Request) {
        let handle = self.netlink.handle();
        let uses = uses_of(&self.config, self.engine.tun_name());
        let rlocs: BTreeSet<IpAddr> =
            self.config.control.rlocs.iter().map(|rloc| rloc.address).collect();
        tokio::spawn(async move {
            let answer = async {
                let links = underlay::link_facts(&handle).await?;
                let addresses = underlay::own_addresses(&handle).await?;
                std::io::Result::Ok(views(uses, &links, &addresses, &rlocs))
            };
            let views = answer.await.map_err(|error| error.to_string());
            let answer = views
                .and_then(|views| serde_json::to_value(views).map_err(|error| error.to_string()));
            // Whoever asked may be gone by now.
            let _ = request.reply.send(answer.map(Part::from));
        });
    }
}

/// What the configuration uses interfaces for, by name; those of RLOCs are not in here.
fn uses_of(config: &RouterConfig, tun: &str) -> BTreeMap<String, Vec<String>> {
    let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |name: &str, what: String| uses.entry(name.to_owned()).or_default().push(what);
    add(tun, "tun".to_owned());
    let host = &config.host;
    for name in &host.site_interfaces {
        add(name, "site".to_owned());
    }
    for name in &host.native_interfaces {
        add(name, "native".to_owned());
    }
    for gateway in &host.gateways {
        add(&gateway.interface, format!("gateway {}", gateway.mac));
    }
    if let Intake::Ring(ring) = &config.data.intake {
        for name in &ring.interfaces {
            add(name, "ring".to_owned());
        }
    }
    uses
}

/// The interfaces that are used, sorted by name; one that is used and not there is shown as such.
fn views(
    mut uses: BTreeMap<String, Vec<String>>,
    links: &HashMap<u32, LinkFacts>,
    addresses: &HashMap<IpAddr, u32>,
    rlocs: &BTreeSet<IpAddr>,
) -> Vec<InterfaceView> {
    for rloc in rlocs {
        let name = addresses.get(rloc).and_then(|index| links.get(index)).map(|link| &link.name);
        let name = name.map_or("-", String::as_str);
        uses.entry(name.to_owned()).or_default().push(format!("rloc {rloc}"));
    }
    let view = |(name, uses): (String, Vec<String>)| {
        let found = links.iter().find(|(_, link)| link.name == name);
        let mut view = InterfaceView { name, uses, ..InterfaceView::default() };
        if let Some((index, link)) = found {
            let mut own: Vec<IpAddr> = addresses
                .iter()
                .filter(|(_, holder)| *holder == index)
                .map(|(address, _)| *address)
                .collect();
            own.sort_unstable();
            view.index = Some(*index);
            view.state = link.state().to_owned();
            view.mtu = Some(link.mtu);
            view.mac.clone_from(&link.mac);
            view.addresses = own;
            view.received = link.received;
            view.sent = link.sent;
        } else {
            view.state = "missing".to_owned();
        }
        view
    };
    uses.into_iter().map(view).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_gone_is_shown_with_what_it_was_for() {
        let link = |name: &str, up, running| LinkFacts {
            name: name.to_owned(),
            mtu: 1500,
            up,
            running,
            ..LinkFacts::default()
        };
        let links = HashMap::from([
            (1, link("lo", true, true)),
            (7, link("isthmus0", true, true)),
            (9, link("eth1", true, false)),
        ]);
        let (here, gone): (IpAddr, IpAddr) =
            ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let uses = BTreeMap::from([
            ("isthmus0".to_owned(), vec!["tun".to_owned()]),
            ("lan0".to_owned(), vec!["site".to_owned()]),
        ]);
        let addresses = HashMap::from([(here, 9)]);
        let views = views(uses, &links, &addresses, &BTreeSet::from([here, gone]));
        let seen: Vec<_> = views.iter().map(|v| (&*v.name, &*v.state, v.uses.join(", "))).collect();
        assert_eq!(
            seen,
            [
                ("-", "missing", "rloc 192.0.2.2".to_owned()),
                ("eth1", "no-carrier", "rloc 192.0.2.1".to_owned()),
                ("isthmus0", "up", "tun".to_owned()),
                ("lan0", "missing", "site".to_owned()),
            ]
        );
        assert_eq!((views[1].index, &views[1].addresses), (Some(9), &vec![here]));
    }
}
