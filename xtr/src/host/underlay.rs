//! The underlay as the kernel knows it: own addresses, and the path to a remote RLOC.
use super::netlink_error;
use crate::config::DEFAULT_MTU;
use crate::view::LinkTraffic;
use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::AddressAttribute;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric,
};
use rtnetlink::{Handle, RouteMessageBuilder};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A netlink connection and the task that drives it; dropping it ends both.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    connection: JoinHandle<()>,
}

impl Netlink {
    /// Opens a netlink connection in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// For requests.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }
}

impl Drop for Netlink {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

/// Every address of the host, with the index of its interface.
///
/// # Errors
/// What the kernel said.
pub async fn own_addresses(handle: &Handle) -> io::Result<HashMap<IpAddr, u32>> {
    Ok(assigned_addresses(handle).await?.into_iter().collect())
}

/// The interfaces that hold an address of `rlocs`, without loopback: nothing arrives on it from the core.
///
/// # Errors
/// What the kernel said.
pub async fn interfaces_of(handle: &Handle, rlocs: &[IpAddr]) -> io::Result<BTreeSet<String>> {
    let interfaces = interfaces(handle).await?;
    let holders = assigned_addresses(handle).await?;
    let holders = holders.iter().filter(|(address, _)| rlocs.contains(address));
    let names = holders.filter_map(|(_, index)| interfaces.get(index));
    Ok(names.filter(|one| !one.loopback).map(|one| one.name.clone()).collect())
}

/// Every assignment of an address to an interface (index); an address may be assigned to several.
pub(super) async fn assigned_addresses(handle: &Handle) -> io::Result<Vec<(IpAddr, u32)>> {
    let mut addresses = Vec::new();
    let mut answers = handle.address().get().execute();
    while let Some(message) =
        answers.try_next().await.map_err(|error| netlink_error("list addresses", &error))?
    {
        // On a point-to-point link `Address` is the peer's and `Local` ours.
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(address) => Some(*address),
            _ => None,
        });
        let address = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        });
        if let Some(address) = local.or(address) {
            addresses.push((address, message.header.index));
        }
    }
    Ok(addresses)
}

/// The interfaces, by index.
///
/// # Errors
/// What the kernel said.
pub async fn interfaces(handle: &Handle) -> io::Result<HashMap<u32, Interface>> {
    let mut interfaces = HashMap::new();
    let mut answers = handle.link().get().execute();
    while let Some(message) =
        answers.try_next().await.map_err(|error| netlink_error("list interfaces", &error))?
    {
        let running = message.header.flags.contains(LinkFlags::Running);
        let loopback = message.header.flags.contains(LinkFlags::Loopback);
        let mut interface = Interface { name: String::new(), mtu: 1500, running, loopback };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => interface.name = name,
                LinkAttribute::Mtu(mtu) => interface.mtu = mtu,
                _ => {}
            }
        }
        interfaces.insert(message.header.index, interface);
    }
    Ok(interfaces)
}

/// What the kernel tells of the interfaces, by index.
///
/// # Errors
/// What the kernel said.
pub async fn link_facts(handle: &Handle) -> io::Result<HashMap<u32, LinkFacts>> {
    let mut links = HashMap::new();
    let mut answers = handle.link().get().execute();
    while let Some(message) =
        answers.try_next().await.map_err(|error| netlink_error("list interfaces", &error))?
    {
        let flags = message.header.flags;
        let mut link = LinkFacts {
            up: flags.contains(LinkFlags::Up),
            running: flags.contains(LinkFlags::Running),
            ..LinkFacts::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(octets) if !octets.is_empty() => {
                    let octets: Vec<String> = octets.iter().map(|o| format!("{o:02x}")).collect();
                    link.mac = Some(octets.join(":"));
                }
                LinkAttribute::Stats64(stats) => {
                    link.received = LinkTraffic {
                        packets: stats.rx_packets,
                        octets: stats.rx_bytes,
                        dropped: stats.rx_dropped,
                        errors: stats.rx_errors,
                    };
                    link.sent = LinkTraffic {
                        packets: stats.tx_packets,
                        octets: stats.tx_bytes,
                        dropped: stats.tx_dropped,
                        errors: stats.tx_errors,
                    };
                }
                _ => {}
            }
        }
        links.insert(message.header.index, link);
    }
    Ok(links)
}

/// One interface with what the kernel counted there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFacts {
    /// Its name.
    pub name: String,
    /// Its MTU, octets.
    pub mtu: u32,
    /// Switched on.
    pub up: bool,
    /// With a carrier.
    pub running: bool,
    /// Its link-layer address.
    pub mac: Option<String>,
    /// What came in.
    pub received: LinkTraffic,
    /// What went out.
    pub sent: LinkTraffic,
}

impl LinkFacts {
    /// `up`, `no-carrier` or `down`.
    pub const fn state(&self) -> &'static str {
        match (self.up, self.running) {
            (true, true) => "up",
            (true, false) => "no-carrier",
            (false, _) => "down",
        }
    }
}

/// One interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MTU, octets.
    pub mtu: u32,
    /// Up, with a carrier.
    pub running: bool,
    /// The host's own loopback.
    pub loopback: bool,
}

/// A path that is asked for: to a remote RLOC, from the own RLOC that is the source of what goes there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathQuestion {
    /// The remote RLOC.
    pub rloc: IpAddr,
    /// The own one; routing may go by it.
    pub source: Option<IpAddr>,
}

/// What is known of the path to a remote RLOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathAnswer {
    /// The remote RLOC.
    pub rloc: IpAddr,
    /// `None` without a route, or without a link to go by.
    pub path: Option<Path>,
}

/// A path to a remote RLOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The largest outer packet, octets.
    pub mtu: u16,
    /// The index of the interface that packets leave by.
    pub interface: u32,
}

/// Looks up paths until `questions` closes. A path through the TUN itself is none: LISP packets must not be encapsulated again.
pub async fn answer_paths(
    handle: Handle,
    tun: u32,
    mut questions: mpsc::Receiver<Vec<PathQuestion>>,
    answers: mpsc::Sender<PathAnswer>,
) {
    while let Some(questions) = questions.recv().await {
        let interfaces = match interfaces(&handle).await {
            Ok(interfaces) => interfaces,
            Err(error) => {
                tracing::warn!(%error, "cannot read the interfaces");
                continue;
            }
        };
        for question in questions {
            let path = find_path(&handle, question, tun, &interfaces).await;
            if answers.send(PathAnswer { rloc: question.rloc, path }).await.is_err() {
                return;
            }
        }
    }
}

/// The path the kernel would take; its MTU is the route's or else the interface's.
pub(super) async fn find_path(
    handle: &Handle,
    PathQuestion { rloc, source }: PathQuestion,
    tun: u32,
    interfaces: &HashMap<u32, Interface>,
) -> Option<Path> {
    let width = if rloc.is_ipv4() { 32 } else { 128 };
    let builder = RouteMessageBuilder::<IpAddr>::new().destination_prefix(rloc, width).ok()?;
    let mut question = builder.build();
    if let Some(source) = source.filter(|source| source.is_ipv4() == rloc.is_ipv4()) {
        question.header.source_prefix_length = width;
        question.attributes.push(RouteAttribute::Source(source.into()));
    }
    let answer = handle.route().get(question.clone()).execute().try_next().await.ok()??;
    let interface = output_interface(&answer)?;
    let known = interfaces.get(&interface);
    if interface == tun || known.is_some_and(|known| !known.running) {
        return None;
    }
    let mut mtu = route_mtu(&answer);
    if mtu.is_some() && is_temporary(&answer) {
        // What a router said of the path, to whomever, and may not be so any more: the route itself is asked for. That our packets were
        // too large the engine hears by itself.
        question.header.flags |= RouteFlags::FibMatch;
        let route = handle.route().get(question).execute().try_next().await.ok()??;
        mtu = route_mtu(&route);
    }
    let mtu = mtu.or_else(|| Some(known?.mtu)).unwrap_or(DEFAULT_MTU.into());
    Some(Path { mtu: u16::try_from(mtu).unwrap_or(u16::MAX), interface })
}

fn output_interface(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })
}

/// Whether the kernel will forget the answer: a path MTU that it learned from ICMP, or a route that a router advertised.
fn is_temporary(route: &RouteMessage) -> bool {
    route.attributes.iter().any(|attribute| match attribute {
        RouteAttribute::CacheInfo(info) => info.expires != 0,
        _ => false,
    })
}

fn route_mtu(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => Some(*mtu),
            _ => None,
        }),
        _ => None,
    })
}

/// The IP address in a route attribute.
pub(super) fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}
