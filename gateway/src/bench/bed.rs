//! One contender's network: two hosts, two gateways and a core, joined by veth pairs.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::LinkAddr;

use super::crowd;
use super::family::Version;
use crate::lab::addresses::{SITE_A, SITE_B, SITE_C, SITE_D, Site, host, net};
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::offload;

/// The network of every contender as a drawing.
pub(crate) const DRAWING: &str = r"
  host1 -------- gw1 --------- core --------- gw2 -------- host2
     eth0    lan0   core    gw1 |  gw2    core   lan0    eth0
                                ms (mapping system, for Isthmus)
";

/// MTU between hosts and gateways.
const EDGE_MTU: u32 = 1500;
/// MTU of the core: whatever a host sends passes through any of the tunnels whole.
const CORE_MTU: u32 = 1600;

/// Link names.
pub(crate) const HOST_LINK: &str = "eth0";
/// A gateway's link to its host.
pub(crate) const EDGE_LINK: &str = "lan0";
/// A gateway's link to the core.
pub(crate) const CORE_LINK: &str = "core";
/// The core's links.
pub(crate) const CORE_TO: [&str; 2] = ["gw1", "gw2"];

/// The core router; gateways send to it whatever is not at hand.
const CORE4: IpAddr = rloc4(254);
const CORE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// A next hop in the core that nobody is: frames for it arrive, are counted and go no further.
const NOBODY4: IpAddr = rloc4(253);
const NOBODY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xdead));
const NOBODY: [u8; 6] = [0x02, 0, 0, 0, 0xde, 0xad];

/// Where host 1 is.
pub(crate) const NEAR: &Site = SITE_A;
/// Where host 2 is.
pub(crate) const FAR: &Site = SITE_B;
/// EIDs behind gateway 2 whose packets end as soon as they leave the gateway under test.
pub(crate) const SINK: &Site = SITE_C;

/// How many EID-prefixes behind gateway 2 nobody sends to before the first packet is measured.
const STRANGERS: u16 = 48;

/// These EID-prefixes, of both families. Host 2 answers to the first address of each.
pub(crate) fn strangers() -> impl Iterator<Item = IpNet> {
    (1..=STRANGERS).flat_map(|n| {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0xe004, n, 0, 0, 0, 0);
        let v4 = Ipv4Addr::new(203, 0, 113, 192 + n as u8);
        [net(v6.into(), 64), host(v4.into())]
    })
}

/// What all of them are in.
pub(crate) fn strangers_aggregates() -> [IpNet; 2] {
    [SITE_D.prefix6(), SITE_D.prefix4()]
}

const ROUTER: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];

/// The namespaces of one contender, up and routed as far as locators go: nobody knows a way to the EIDs yet.
pub(crate) struct Bed {
    /// Sends.
    pub(crate) host1: Namespace,
    /// Encapsulates.
    pub(crate) gw1: Namespace,
    /// Knows locators only.
    pub(crate) core: Namespace,
    /// Decapsulates.
    pub(crate) gw2: Namespace,
    /// Receives.
    pub(crate) host2: Namespace,
    /// The mapping system, in the core.
    pub(crate) ms: Namespace,
}

/// A gateway's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Gateway 1.
    Near,
    /// Gateway 2.
    Far,
    /// Gateway 2 once more, by a locator whose packets go no further than the core.
    Sink,
    /// The mapping system.
    MappingSystem,
    /// Beside the mapping system, a Map-Resolver that knows a crowd of EID-prefixes.
    Resolver,
}

/// The locator of a place.
pub(crate) fn rloc(place: Place, version: Version) -> IpAddr {
    let last = match place {
        Place::Near => 11,
        Place::Far => 12,
        Place::Sink => 13,
        Place::MappingSystem => 2,
        Place::Resolver => 3,
    };
    match version {
        Version::V4 => rloc4(last),
        Version::V6 => IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, u16::from(last))),
    }
}

const fn rloc4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
}

impl Bed {
    /// Makes namespaces, links, addresses and the routes between locators.
    pub(crate) fn bring_up(contender: &str) -> io::Result<Self> {
        // A namespace's name is also the name of the files of the daemon in it; a run has a handful of them.
        let create = |name: &str| Namespace::create(format!("{contender}-{name}").leak());
        let bed = Self {
            host1: create("host1")?,
            gw1: create("gw1")?,
            core: create("core")?,
            gw2: create("gw2")?,
            host2: create("host2")?,
            ms: create("ms")?,
        };
        for namespace in [&bed.host1, &bed.gw1, &bed.core, &bed.gw2, &bed.host2, &bed.ms] {
            link::settings(namespace, EVERYWHERE)?;
            link::up(namespace, "lo")?;
        }
        for router in bed.gateways().into_iter().chain([&bed.core]) {
            link::settings(router, ROUTER)?;
        }
        link::address(&bed.core, "lo", host(CORE4))?;
        bed.join_core(&bed.gw1, CORE_TO[0], &[Place::Near])?;
        bed.join_core(&bed.gw2, CORE_TO[1], &[Place::Far, Place::Sink])?;
        bed.join_core(&bed.ms, "ms", &[Place::MappingSystem, Place::Resolver])?;
        attach(&bed.host1, &bed.gw1, NEAR)?;
        attach(&bed.host2, &bed.gw2, FAR)?;
        bed.dig_sinks()?;
        Ok(bed)
    }

    /// Both gateways.
    pub(crate) fn gateways(&self) -> [&Namespace; 2] {
        [&self.gw1, &self.gw2]
    }

    /// Every link that carries load, with the namespace it is in.
    pub(crate) fn links(&self) -> [(&Namespace, &'static str); 8] {
        [
            (&self.host1, HOST_LINK),
            (&self.gw1, EDGE_LINK),
            (&self.gw2, EDGE_LINK),
            (&self.host2, HOST_LINK),
            (&self.gw1, CORE_LINK),
            (&self.core, CORE_TO[0]),
            (&self.core, CORE_TO[1]),
            (&self.gw2, CORE_LINK),
        ]
    }

    /// Lets the core carry the EIDs themselves, as without any tunnel.
    pub(crate) fn route_natively(&self) -> io::Result<()> {
        for (site, to, place) in [(NEAR, CORE_TO[0], Place::Near), (FAR, CORE_TO[1], Place::Far)] {
            link::route(&self.core, site.prefix6(), Some(rloc(place, Version::V6)), to)?;
            link::route(&self.core, site.prefix4(), Some(rloc(place, Version::V4)), to)?;
        }
        let sinks = crowd::aggregates().into_iter().chain([SINK.prefix6(), SINK.prefix4()]);
        for prefix in sinks {
            let nobody = if prefix.addr().is_ipv4() { NOBODY4 } else { NOBODY6 };
            link::route(&self.gw1, prefix, Some(nobody), CORE_LINK)?;
        }
        Ok(())
    }

    /// Lets host 2 answer to the strangers' addresses too.
    pub(crate) fn welcome_strangers(&self) -> io::Result<()> {
        for (aggregate, via) in strangers_aggregates().into_iter().zip([FAR.host6(0), FAR.host4(0)])
        {
            link::route(&self.gw2, aggregate, Some(via), EDGE_LINK)?;
        }
        for prefix in strangers() {
            link::address(&self.host2, "lo", host(prefix.addr()))?;
        }
        Ok(())
    }

    fn join_core(&self, member: &Namespace, to: &'static str, places: &[Place]) -> io::Result<()> {
        link::connect(CORE_MTU, (&self.core, to), (member, CORE_LINK))?;
        link::up(&self.core, to)?;
        link::up(member, CORE_LINK)?;
        link::address(&self.core, to, net(CORE6, 64))?;
        for &place in places {
            for version in [Version::V4, Version::V6] {
                link::address(member, CORE_LINK, host(rloc(place, version)))?;
                link::route(&self.core, host(rloc(place, version)), None, to)?;
            }
        }
        link::route(member, net(Ipv4Addr::UNSPECIFIED.into(), 0), Some(CORE4), CORE_LINK)?;
        link::route(member, net(Ipv6Addr::UNSPECIFIED.into(), 0), Some(CORE6), CORE_LINK)
    }

    /// Where floods end: a frame to a station that is not there is dropped before anybody looks at its packet.
    fn dig_sinks(&self) -> io::Result<()> {
        for (version, nobody) in [(Version::V4, NOBODY4), (Version::V6, NOBODY6)] {
            neighbour(&self.gw1, CORE_LINK, nobody, NOBODY)?;
            let sink = host(rloc(Place::Sink, version));
            link::route(&self.gw1, sink, Some(nobody), CORE_LINK)?;
        }
        for address in [SINK.host6(0), SINK.host4(0)] {
            neighbour(&self.gw2, EDGE_LINK, address, NOBODY)?;
        }
        link::route(&self.gw2, SINK.prefix6(), None, EDGE_LINK)?;
        link::route(&self.gw2, SINK.prefix4(), None, EDGE_LINK)
    }
}

/// A host and the gateway that is its default router.
fn attach(machine: &Namespace, gateway: &Namespace, site: &Site) -> io::Result<()> {
    link::connect(EDGE_MTU, (gateway, EDGE_LINK), (machine, HOST_LINK))?;
    link::up(gateway, EDGE_LINK)?;
    link::up(machine, HOST_LINK)?;
    for (router, address, length) in
        [(site.gateway6(), site.host6(0), 64), (site.gateway4(), site.host4(0), 26)]
    {
        link::address(gateway, EDGE_LINK, net(router, length))?;
        link::address(machine, HOST_LINK, net(address, length))?;
        let everywhere = IpNet::new_assert(address, 0).trunc();
        link::route(machine, everywhere, Some(router), HOST_LINK)?;
    }
    Ok(())
}

/// A neighbour that is never asked for its link-layer address.
pub(crate) fn neighbour(
    namespace: &Namespace,
    link: &'static str,
    address: IpAddr,
    station: [u8; 6],
) -> io::Result<()> {
    let index = link::index(namespace, link)?;
    namespace.netlink(move |netlink| async move {
        let request = netlink.neighbours().add(index, address).link_layer_address(&station);
        request.execute().await
    })
}

/// The link-layer view of a link: its index to bind to, and its station address.
pub(crate) fn station(namespace: &Namespace, link: &'static str) -> io::Result<LinkAddr> {
    namespace.run(move || {
        let found = getifaddrs()?
            .filter(|interface| interface.interface_name == link)
            .find_map(|interface| interface.address?.as_link_addr().copied());
        found.ok_or_else(|| io::Error::other(format!("no link {link} is here")))
    })?
}

/// How the links offload segmentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Offload {
    /// As veth pairs are born: super-packets everywhere, no GRO.
    Full,
    /// Packets of wire size between hosts and gateways, super-packets through the core.
    EdgeOff,
    /// Packets of wire size on every link; receivers merge them again (GRO).
    Wire,
}

/// Everything that lets a packet longer than the MTU onto a link.
const SEGMENTATION: &[&str] = &[
    "tx-tcp-segmentation",
    "tx-tcp6-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-udp-segmentation",
    "tx-udp_tnl-segmentation",
    "tx-udp_tnl-csum-segmentation",
    "tx-generic-segmentation",
];

impl Offload {
    /// Sets every link of a bed; measurements may come in any order.
    pub(crate) fn apply(self, bed: &Bed) -> io::Result<()> {
        for (namespace, name) in bed.links() {
            let at_the_edge = [HOST_LINK, EDGE_LINK].contains(&name);
            let segmentation = match self {
                Self::Full => true,
                Self::EdgeOff => !at_the_edge,
                Self::Wire => false,
            };
            let mut features: Vec<_> =
                SEGMENTATION.iter().map(|&feature| (feature, segmentation)).collect();
            features.push(("rx-gro", self == Self::Wire));
            offload::set_features(namespace, name, &features)?;
        }
        Ok(())
    }
}
