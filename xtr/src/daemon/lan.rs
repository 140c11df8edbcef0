//! Hosts of dynamic-EID ranges: what is seen of them goes to the control plane, what it decides goes to the host's routing.
use crate::config::{HostConfig, Intake, RouterConfig};
use crate::control::{Detection, HostChange, HostSeen};
use crate::host::lan::{self, Change, Gateways, Lan, LanConfig, Range, Seen, Sign, gateway_mac};
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

/// What comes in by the gateways of a configuration comes from the site.
pub(super) fn include(gateways: &Gateways, config: &mut RouterConfig) {
    let wanted = &config.host.gateways;
    let links = gateways.links().iter();
    let names: Vec<String> = links
        .filter(|link| wanted.iter().any(|wanted| wanted.interface == link.config.interface))
        .map(|link| link.name.clone())
        .collect();
    config.host.site_interfaces.extend_from_slice(&names);
    if let Intake::Ring(ring) = &mut config.data.intake {
        ring.interfaces.extend(names);
    }
}

/// What another configuration needs of the links.
pub(super) enum Prepared {
    /// What there is, or nothing as before.
    Same,
    /// They are watched for the first time.
    First(Lan),
    /// Others, or otherwise.
    Other(lan::Prepared),
    /// They are watched no longer.
    Last,
}

/// Opens what `config` needs in the place of `before`.
pub(super) async fn prepare(
    lan: Option<&Lan>,
    (netlink, gateways, tun): (&Netlink, &Gateways, u32),
    (before, config): (&RouterConfig, &RouterConfig),
) -> io::Result<Prepared> {
    let wanted = lan_config(&config.host);
    let Some(lan) = lan else {
        let first = start(netlink, config, gateways, tun).await?;
        return Ok(first.map_or(Prepared::Same, Prepared::First));
    };
    if wanted.ranges.is_empty() {
        Ok(Prepared::Last)
    } else if wanted == lan_config(&before.host) {
        Ok(Prepared::Same)
    } else {
        lan.prepare(&wanted, gateways).await.map(Prepared::Other)
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
    let lan = lan_config(&config.host);
    Lan::start(netlink.handle(), &lan, gateways, tun).await.map(Some)
}

/// What is watched.
pub(super) fn lan_config(config: &HostConfig) -> LanConfig {
    let ranges = config.ranges.iter().zip(at_home(config)).map(|(range, at_home)| Range {
        prefix: range.range.prefix(),
        interfaces: range.interfaces.clone(),
        extended: range.extended_subnet,
        at_home,
    });
    LanConfig {
        ranges: ranges.collect(),
        leases: config.leases.clone(),
        gateways: config.gateways.clone(),
    }
}

/// Of each range, whether it is part of an own EID-prefix.
fn at_home(config: &HostConfig) -> impl Iterator<Item = bool> {
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
