//! Hosts of dynamic-EID ranges: what is seen of them goes to the control plane, what it decides goes to the host's routing.
use crate::config::{HostConfig, Intake, RouterConfig};
use crate::control::{Detection, HostChange, HostSeen};
use crate::host::lan::{Change, Gateways, Lan, LanConfig, Range, Seen, Sign, gateway_mac};
use crate::host::underlay::Netlink;
use std::io;
use std::net::IpAddr;

/// Makes the gateways. From now on they are site interfaces of `config`.
pub(super) async fn gateways(netlink: &Netlink, config: &mut RouterConfig) -> io::Result<Gateways> {
    gateway_mac::check(&netlink.handle(), &config.host.gateways).await?;
    let gateways = Gateways::install(netlink.handle(), &config.host.gateways).await?;
    include(&gateways, config);
    Ok(gateways)
}

/// What comes in by the gateways comes from the site.
pub(super) fn include(gateways: &Gateways, config: &mut RouterConfig) {
    let names = || gateways.links().iter().map(|link| link.name.clone());
    config.host.site_interfaces.extend(names());
    if let Intake::Ring(ring) = &mut config.data.intake {
        ring.interfaces.extend(names());
    }
}

/// Starts to watch the links, if there is anything to watch for.
pub(super) async fn start(
    netlink: &Netlink,
    config: &RouterConfig,
    gateways: &Gateways,
    tun: u32,
) -> io::Result<Option<Lan>> {
    if config.host.ranges.is_empty() {
        return Ok(None);
    }
    let ranges =
        config.host.ranges.iter().zip(at_home(&config.host)).map(|(range, at_home)| Range {
            prefix: range.range.prefix(),
            interfaces: range.interfaces.clone(),
            extended: range.extended_subnet,
            at_home,
        });
    let lan = LanConfig { ranges: ranges.collect(), leases: config.host.leases.clone() };
    Lan::start(netlink.handle(), &lan, gateways, tun).await.map(Some)
}

/// Of each range, whether it is part of an own EID-prefix.
pub(super) fn at_home(config: &HostConfig) -> impl Iterator<Item = bool> {
    let own = &config.site_prefixes;
    let ranges = config.ranges.iter().map(|range| range.range.prefix());
    ranges.map(|range| own.iter().any(|own| own.contains(&range)))
}

/// The next host seen; pending for ever without links to watch. Cancel-safe.
pub(super) async fn next(lan: &mut Option<Lan>) -> HostSeen {
    let Some(lan) = lan else { return std::future::pending().await };
    let Seen { interface, address, sign } = lan.next().await;
    let how = match (sign, address) {
        (Sign::Lease, _) => Detection::Lease,
        (Sign::Neighbour, IpAddr::V4(_)) => Detection::Arp,
        (Sign::Neighbour, IpAddr::V6(_)) => Detection::Nd,
    };
    HostSeen { interface, address, how }
}

/// What the host's routing is to do.
pub(super) fn change(change: HostChange) -> Change {
    match change {
        HostChange::Here { eid, interfaces } => Change::Here(eid.address, interfaces),
        HostChange::Away { eid, .. } => Change::Away(eid.address),
        HostChange::Forget { eid } => Change::Forget(eid.address),
        HostChange::Probe { eid, interfaces } => Change::Probe(eid.address, interfaces),
    }
}
