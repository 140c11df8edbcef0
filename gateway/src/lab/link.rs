//! Links, addresses, routes and kernel settings of a namespace: netlink and /proc/sys, no external command.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;

use futures_util::TryStreamExt;
use ipnet::IpNet;
use nix::net::if_::if_nametoindex;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags};
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute};
use rtnetlink::{IpVersion, LinkBridge, LinkUnspec, LinkVeth, RouteMessageBuilder};

use super::namespace::Namespace;

/// Joins two namespaces by a veth pair; both ends are still down.
pub fn connect(
    mtu: u32,
    (near, near_name): (&Namespace, &'static str),
    (far, far_name): (&Namespace, &'static str),
) -> io::Result<()> {
    let far_file = far.file().as_raw_fd();
    near.netlink(move |netlink| async move {
        let pair = LinkVeth::new(near_name, far_name).mtu(mtu).build();
        netlink.link().add(pair).execute().await?;
        let moved = LinkUnspec::new_with_name(far_name).setns_by_fd(far_file).build();
        netlink.link().set(moved).execute().await
    })?;
    // The far end is born with the default MTU.
    far.netlink(move |netlink| async move {
        let sized = LinkUnspec::new_with_name(far_name).mtu(mtu).build();
        netlink.link().set(sized).execute().await
    })
}

/// Makes a link hand over one wire-sized packet at a time, as a physical link would: no GSO super-packets.
pub fn wire_sized(namespace: &Namespace, name: &'static str) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        let change = LinkUnspec::new_with_name(name)
            .append_extra_attribute(LinkAttribute::GsoMaxSegs(1))
            .build();
        netlink.link().set(change).execute().await
    })
}

/// Changes a link's MTU.
pub(crate) fn mtu(namespace: &Namespace, name: &'static str, mtu: u32) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        netlink.link().set(LinkUnspec::new_with_name(name).mtu(mtu).build()).execute().await
    })
}

/// Keeps a namespace from sending anything of its own to `destination`, what it forwards goes on; or takes that back.
pub(crate) fn silence(namespace: &Namespace, destination: IpAddr, silent: bool) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        let request = netlink.rule().add().input_interface("lo".to_owned());
        let request = request.action(RuleAction::Blackhole).priority(1);
        let mut request = match destination {
            IpAddr::V4(address) => {
                let mut request = request.v4().destination_prefix(address, 32);
                request.message_mut().clone()
            }
            IpAddr::V6(address) => {
                let mut request = request.v6().destination_prefix(address, 128);
                request.message_mut().clone()
            }
        };
        request.header.table = 0;
        if silent {
            let mut add = netlink.rule().add();
            *add.message_mut() = request;
            add.execute().await
        } else {
            netlink.rule().del(request).execute().await
        }
    })
}

/// Lets a router answer what it is to forward to `destination` with ICMP Network Unreachable, or takes that back.
pub(crate) fn refuse(namespace: &Namespace, destination: IpAddr, refused: bool) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        let request = netlink.rule().add().action(RuleAction::Unreachable).priority(1);
        let mut rule = match destination {
            IpAddr::V4(address) => {
                request.v4().destination_prefix(address, 32).message_mut().clone()
            }
            IpAddr::V6(address) => {
                request.v6().destination_prefix(address, 128).message_mut().clone()
            }
        };
        rule.header.table = 0;
        if refused {
            let mut add = netlink.rule().add();
            *add.message_mut() = rule;
            add.execute().await
        } else {
            netlink.rule().del(rule).execute().await
        }
    })
}

/// Sets a link up.
pub fn up(namespace: &Namespace, name: &'static str) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        netlink.link().set(LinkUnspec::new_with_name(name).up().build()).execute().await
    })
}

/// Sets a link down: its peer loses the carrier.
pub(crate) fn down(namespace: &Namespace, name: &'static str) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        netlink.link().set(LinkUnspec::new_with_name(name).down().build()).execute().await
    })
}

/// Makes an Ethernet bridge, which is up.
pub fn bridge(namespace: &Namespace, name: &'static str) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        netlink.link().add(LinkBridge::new(name).up().build()).execute().await
    })
}

/// Plugs a link into a bridge of its namespace and sets it up.
pub fn plug(namespace: &Namespace, name: &'static str, bridge: &'static str) -> io::Result<()> {
    let index = index(namespace, bridge)?;
    namespace.netlink(move |netlink| async move {
        let plugged = LinkUnspec::new_with_name(name).controller(index).up().build();
        netlink.link().set(plugged).execute().await
    })
}

/// Takes a link out of its bridge; it stays up, and its peer keeps the carrier.
pub(crate) fn unplug(namespace: &Namespace, name: &'static str) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        let unplugged = LinkUnspec::new_with_name(name).nocontroller().build();
        netlink.link().set(unplugged).execute().await
    })
}

/// Gives a link an address; IPv6 addresses are usable at once (no duplicate address detection).
pub fn address(namespace: &Namespace, name: &'static str, address: IpNet) -> io::Result<()> {
    let index = index(namespace, name)?;
    namespace.netlink(move |netlink| async move {
        let mut request = netlink.address().add(index, address.addr(), address.prefix_len());
        if address.addr().is_ipv6() {
            let flags = AddressAttribute::Flags(AddressFlags::Nodad);
            request.message_mut().attributes.push(flags);
        }
        request.execute().await
    })
}

/// A route: straight onto a link, or through a gateway that is taken to be on that link.
pub fn route(
    namespace: &Namespace,
    destination: IpNet,
    gateway: Option<IpAddr>,
    link: &'static str,
) -> io::Result<()> {
    let message = route_message(index(namespace, link)?, destination, gateway);
    namespace.netlink(move |netlink| async move { netlink.route().add(message).execute().await })
}

/// A default route through `gateway`, with a metric, in the main table or in another one.
pub(crate) fn default_route(
    namespace: &Namespace,
    gateway: IpAddr,
    link: &'static str,
    (metric, table): (u32, Option<u32>),
) -> io::Result<()> {
    let everywhere = match gateway {
        IpAddr::V4(_) => IpNet::V4(Default::default()),
        IpAddr::V6(_) => IpNet::V6(Default::default()),
    };
    let mut message = route_message(index(namespace, link)?, everywhere, Some(gateway));
    message.attributes.push(RouteAttribute::Priority(metric));
    if let Some(table) = table {
        message.header.table = RouteHeader::RT_TABLE_UNSPEC;
        message.attributes.push(RouteAttribute::Table(table));
    }
    namespace.netlink(move |netlink| async move { netlink.route().add(message).execute().await })
}

/// Lets packets from `source` look into `table` first.
pub(crate) fn rule_from(namespace: &Namespace, source: IpAddr, table: u32) -> io::Result<()> {
    namespace.netlink(move |netlink| async move {
        let rule = netlink.rule().add().action(RuleAction::ToTable).table_id(table);
        match source {
            IpAddr::V4(source) => rule.v4().source_prefix(source, 32).execute().await,
            IpAddr::V6(source) => rule.v6().source_prefix(source, 128).execute().await,
        }
    })
}

/// Takes back what [`route`] installed.
pub(crate) fn unroute(
    namespace: &Namespace,
    destination: IpNet,
    gateway: Option<IpAddr>,
    link: &'static str,
) -> io::Result<()> {
    let message = route_message(index(namespace, link)?, destination, gateway);
    namespace.netlink(move |netlink| async move { netlink.route().del(message).execute().await })
}

fn route_message(index: u32, destination: IpNet, gateway: Option<IpAddr>) -> RouteMessage {
    let scope = if gateway.is_some() { RouteScope::Universe } else { RouteScope::Link };
    match (destination, gateway) {
        (IpNet::V4(destination), gateway) => {
            let mut route = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(destination.addr(), destination.prefix_len())
                .output_interface(index)
                .scope(scope);
            if let Some(IpAddr::V4(gateway)) = gateway {
                route = route.gateway(gateway).onlink();
            }
            route.build()
        }
        (IpNet::V6(destination), gateway) => {
            let mut route = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(destination.addr(), destination.prefix_len())
                .output_interface(index);
            if let Some(IpAddr::V6(gateway)) = gateway {
                route = route.gateway(gateway).onlink();
            }
            route.build()
        }
    }
}

/// Silently discards what goes to an IPv4 address, or takes that back with the link the address is behind.
pub(crate) fn blackhole(
    namespace: &Namespace,
    address: Ipv4Addr,
    behind: Option<&'static str>,
) -> io::Result<()> {
    let route = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32);
    let route = match behind {
        Some(link) => route.output_interface(index(namespace, link)?).scope(RouteScope::Link),
        None => route.kind(RouteType::BlackHole),
    };
    let message = route.build();
    namespace.netlink(move |netlink| async move {
        netlink.route().add(message).replace().execute().await
    })
}

/// Destinations of the routes with routing protocol number `protocol` in the namespace's main table.
pub fn routes_of_protocol(namespace: &Namespace, protocol: u8) -> io::Result<Vec<IpNet>> {
    namespace.netlink(move |netlink| async move {
        let mut found = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for request in [v4, v6] {
            let mut routes = netlink.route().get(request).execute();
            while let Some(route) = routes.try_next().await? {
                let is_in_main = route.header.table == RouteHeader::RT_TABLE_MAIN;
                if is_in_main && route.header.protocol == RouteProtocol::from(protocol) {
                    let length = route.header.destination_prefix_length;
                    let destination =
                        route.attributes.iter().find_map(|attribute| match attribute {
                            RouteAttribute::Destination(RouteAddress::Inet(v4)) => {
                                Some(IpAddr::V4(*v4))
                            }
                            RouteAttribute::Destination(RouteAddress::Inet6(v6)) => {
                                Some(IpAddr::V6(*v6))
                            }
                            _ => None,
                        });
                    found.extend(destination.and_then(|a| IpNet::new(a, length).ok()));
                }
            }
        }
        Ok(found)
    })
}

/// The station that the namespace's kernel knows to have `address`; `None` if it knows none.
pub(crate) fn station_of(namespace: &Namespace, address: IpAddr) -> io::Result<Option<Vec<u8>>> {
    namespace.netlink(move |netlink| async move {
        let mut entries = netlink.neighbours().get().execute();
        let mut found = None;
        while let Some(entry) = entries.try_next().await? {
            let mut station = None;
            let mut is_it = false;
            for attribute in entry.attributes {
                match attribute {
                    NeighbourAttribute::Destination(NeighbourAddress::Inet(v4)) => {
                        is_it = address == IpAddr::V4(v4);
                    }
                    NeighbourAttribute::Destination(NeighbourAddress::Inet6(v6)) => {
                        is_it = address == IpAddr::V6(v6);
                    }
                    NeighbourAttribute::LinkLayerAddress(octets) => station = Some(octets),
                    _ => {}
                }
            }
            if is_it {
                found = station;
            }
        }
        Ok(found)
    })
}

/// How many policy rules have routing protocol number `protocol`, both families together.
pub fn rules_of_protocol(namespace: &Namespace, protocol: u8) -> io::Result<usize> {
    namespace.netlink(move |netlink| async move {
        let mut found = 0;
        for version in [IpVersion::V4, IpVersion::V6] {
            let mut rules = netlink.rule().get(version).execute();
            while let Some(rule) = rules.try_next().await? {
                let own = RuleAttribute::Protocol(RouteProtocol::from(protocol));
                found += usize::from(rule.attributes.contains(&own));
            }
        }
        Ok(found)
    })
}

/// Writes kernel settings below /proc/sys/net; a link that the setting names must exist.
pub fn settings(
    namespace: &Namespace,
    settings: &'static [(&'static str, &'static str)],
) -> io::Result<()> {
    let name = namespace.name();
    namespace.run(move || {
        for (key, value) in settings {
            fs::write(format!("/proc/sys/net/{key}"), value).map_err(|error| {
                io::Error::other(format!("{name}: cannot set net/{key} to {value}: {error}"))
            })?;
        }
        Ok(())
    })?
}

/// The interface index of a link.
pub fn index(namespace: &Namespace, name: &'static str) -> io::Result<u32> {
    Ok(namespace.run(move || if_nametoindex(name))??)
}
