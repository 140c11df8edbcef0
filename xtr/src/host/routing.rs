//! Routes and rules that are ours while we run. Each carries protocol 204, so that a restart recognises what a crash left behind.
//!
//! A proxy routes its EID aggregates into the TUN, in a table that routing daemons learn from. What comes from its underlay goes through
//! a table of its own, where the aggregates are unreachable: a rule per interface with an RLOC (PI-07). While it drains, its aggregates
//! are announced no longer, but lead into the TUN by a third table. An xTR sends what comes from its
//! site through that table: a rule per site interface, and one per EID-prefix for packets of this host.
use super::netlink_error;
use crate::config::HostConfig;
use futures_util::TryStreamExt;
use ipnet::IpNet;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

mod upkeep;

/// The routing protocol number of everything we own (`isthmus` in rt_protos.d).
pub const PROTOCOL: u8 = 204;
/// The routing table of an xTR's site traffic.
pub const SITE_TABLE: u32 = 4341;
/// The routing table of what a proxy does not take from its underlay; another one, so that both roles can share a host.
pub const UNDERLAY_TABLE: u32 = 4342;
/// The routing table that a proxy's aggregates stay in when it has withdrawn them to end.
pub const DRAIN_TABLE: u32 = 4343;
/// Where the rules stand: before `main` (32766).
const RULE_PRIORITY: u32 = 4341;
/// Behind those that refuse the underlay.
const DRAIN_PRIORITY: u32 = RULE_PRIORITY + 1;

/// The routes and rules in the kernel; [`Routing::remove`] takes them out again.
#[derive(Debug)]
pub struct Routing {
    handle: Handle,
    announced: Vec<RouteMessage>,
    table: Vec<RouteMessage>,
    rules: Vec<RuleMessage>,
    /// How far [`Self::mend`] is.
    turn: usize,
}

impl Routing {
    /// Nothing installed yet.
    pub fn new(handle: Handle) -> Self {
        Self { handle, announced: Vec::new(), table: Vec::new(), rules: Vec::new(), turn: 0 }
    }

    /// Removes what an earlier run with this configuration left in the kernel and this one does not want, then installs everything: what is
    /// there stays there, so that a restart that keeps the TUN changes nothing for routing daemons. `tun` is the TUN's interface
    /// index; `refused` are the interfaces from which native packets for the announced prefixes are not taken.
    ///
    /// # Errors
    /// What the kernel refused; what was installed until then is removed by [`Self::remove`].
    pub async fn install(
        &mut self,
        config: &HostConfig,
        tun: u32,
        refused: &BTreeSet<String>,
    ) -> io::Result<()> {
        let wanted = Wanted {
            routes: announced_routes(config, tun)
                .chain(table_routes(config, tun, refused))
                .collect(),
            rules: planned_rules(config, refused),
        };
        self.remove_leftovers(config, &wanted).await?;
        self.extend_to(config, tun, refused).await?;
        // Last in and first out: as long as they are there, the underlay is refused.
        self.announce(config, tun).await
    }

    /// Installs what this configuration wants and is not there yet, but for the announced routes.
    ///
    /// # Errors
    /// What the kernel refused; what was installed until then stays.
    pub async fn extend_to(
        &mut self,
        config: &HostConfig,
        tun: u32,
        refused: &BTreeSet<String>,
    ) -> io::Result<()> {
        for route in table_routes(config, tun, refused) {
            if !self.table.contains(&route) {
                self.add_route(&route).await?;
                self.table.push(route);
            }
        }
        for rule in planned_rules(config, refused) {
            self.add_rule(rule).await?;
        }
        Ok(())
    }

    /// Takes the announced routes out for good, but has what still comes for them go into the TUN as before.
    ///
    /// # Errors
    /// What the kernel refused; the announced routes are out all the same.
    pub async fn drain(&mut self, config: &HostConfig, tun: u32) -> io::Result<()> {
        let kept = self.keep_for_drain(config, tun).await;
        self.withdraw().await;
        kept
    }

    async fn keep_for_drain(&mut self, config: &HostConfig, tun: u32) -> io::Result<()> {
        for prefix in &config.announce {
            let route = route(*prefix, DRAIN_TABLE, RouteType::Unicast).output_interface(tun);
            let route = route.build();
            self.add_route(&route).await?;
            self.table.push(route);
        }
        for ipv4 in families(&config.announce) {
            self.add_rule(rule(ipv4, DRAIN_TABLE, RuleAttribute::Priority(DRAIN_PRIORITY))).await?;
        }
        Ok(())
    }

    /// Takes the announced routes out, until [`Self::announce`].
    pub async fn withdraw(&mut self) {
        remove_routes(&self.handle, &mut self.announced).await;
    }

    /// Puts the announced routes back.
    ///
    /// # Errors
    /// What the kernel refused; what was put back until then stays.
    pub async fn announce(&mut self, config: &HostConfig, tun: u32) -> io::Result<()> {
        for route in announced_routes(config, tun) {
            if !self.announced.contains(&route) {
                self.add_route(&route).await?;
                self.announced.push(route);
            }
        }
        Ok(())
    }

    /// Takes out what this configuration does not want; what is gone already is no error.
    pub async fn shrink_to(&mut self, config: &HostConfig, tun: u32, refused: &BTreeSet<String>) {
        let wanted: Vec<RouteMessage> = announced_routes(config, tun).collect();
        let mut gone = unwanted(&mut self.announced, &wanted);
        remove_routes(&self.handle, &mut gone).await;
        let mut gone = unwanted(&mut self.rules, &planned_rules(config, refused));
        remove_rules(&self.handle, &mut gone).await;
        let mut gone = unwanted(&mut self.table, &table_routes(config, tun, refused));
        remove_routes(&self.handle, &mut gone).await;
    }

    async fn add_rule(&mut self, rule: RuleMessage) -> io::Result<()> {
        if !self.rules.contains(&rule) {
            let mut request = self.handle.rule().add();
            *request.message_mut() = rule.clone();
            let added = unless_there(request.execute().await);
            added.map_err(|e| netlink_error("install policy rule", &e))?;
            self.rules.push(rule);
        }
        Ok(())
    }

    async fn add_route(&self, route: &RouteMessage) -> io::Result<()> {
        let request = self.handle.route().add(route.clone()).replace();
        let installed = request.execute().await;
        installed.map_err(|e| netlink_error(&format!("install route {}", describe(route)), &e))
    }

    /// Takes out everything installed; what is gone already is no error.
    pub async fn remove(&mut self) {
        remove_routes(&self.handle, &mut self.announced).await;
        remove_rules(&self.handle, &mut self.rules).await;
        remove_routes(&self.handle, &mut self.table).await;
    }

    /// Ours are: rules to our table, routes in it, and the configured aggregates in the announced table; all of protocol 204.
    async fn remove_leftovers(&self, config: &HostConfig, wanted: &Wanted) -> io::Result<()> {
        for version in [IpVersion::V4, IpVersion::V6] {
            self.remove_leftover_rules(config, version.clone(), wanted).await?;
            self.remove_leftover_routes(config, version, wanted).await?;
        }
        Ok(())
    }

    async fn remove_leftover_rules(
        &self,
        config: &HostConfig,
        version: IpVersion,
        wanted: &Wanted,
    ) -> io::Result<()> {
        let rules: Vec<RuleMessage> = self
            .handle
            .rule()
            .get(version)
            .execute()
            .try_collect()
            .await
            .map_err(|error| netlink_error("list policy rules", &error))?;
        for rule in rules {
            if !is_own_rule(config, &rule)
                || wanted.rules.iter().any(|one| is_same_rule(one, &rule))
            {
                continue;
            }
            tracing::info!("removing a policy rule of an earlier run");
            let removal = self.handle.rule().del(rule).execute().await;
            unless_gone(removal).map_err(|error| netlink_error("remove a policy rule", &error))?;
        }
        Ok(())
    }

    async fn remove_leftover_routes(
        &self,
        config: &HostConfig,
        version: IpVersion,
        wanted: &Wanted,
    ) -> io::Result<()> {
        let mut query = RouteMessage::default();
        query.header.address_family = match version {
            IpVersion::V4 => AddressFamily::Inet,
            IpVersion::V6 => AddressFamily::Inet6,
        };
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(|error| netlink_error("list routes", &error))?;
        for route in routes {
            if !is_own_route(config, &route)
                || wanted.routes.iter().any(|one| is_same_route(one, &route))
            {
                continue;
            }
            tracing::info!(route = describe(&route), "removing a route of an earlier run");
            let removal = self.handle.route().del(route).execute().await;
            unless_gone(removal).map_err(|error| netlink_error("remove a route", &error))?;
        }
        Ok(())
    }
}

/// What there is to be.
struct Wanted {
    routes: Vec<RouteMessage>,
    rules: Vec<RuleMessage>,
}

/// Whether what is in the kernel is what is wanted, whatever the kernel adds to it.
fn is_same_route(wanted: &RouteMessage, found: &RouteMessage) -> bool {
    let named = |attribute: &&RouteAttribute| {
        matches!(attribute, RouteAttribute::Oif(_) | RouteAttribute::Priority(_))
    };
    wanted.header.kind == found.header.kind
        && wanted.header.address_family == found.header.address_family
        && table_of(wanted) == table_of(found)
        && destination_of(wanted) == destination_of(found)
        && wanted.attributes.iter().filter(named).all(|one| found.attributes.contains(one))
}

fn is_same_rule(wanted: &RuleMessage, found: &RuleMessage) -> bool {
    wanted.header.family == found.header.family
        && wanted.header.src_len == found.header.src_len
        && wanted.attributes.iter().all(|one| found.attributes.contains(one))
}

/// One that is there already is as good.
fn unless_there(added: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match added {
        Err(rtnetlink::Error::NetlinkError(message)) if message.raw_code() == -libc::EEXIST => {
            Ok(())
        }
        other => other,
    }
}

/// Takes those out of `installed` that are not `wanted`.
fn unwanted<T: PartialEq>(installed: &mut Vec<T>, wanted: &[T]) -> Vec<T> {
    installed.extract_if(.., |one| !wanted.contains(one)).collect()
}

async fn remove_rules(handle: &Handle, rules: &mut Vec<RuleMessage>) {
    for rule in rules.drain(..) {
        if let Err(error) = handle.rule().del(rule).execute().await {
            tracing::debug!(%error, "policy rule was gone");
        }
    }
}

async fn remove_routes(handle: &Handle, routes: &mut Vec<RouteMessage>) {
    for route in routes.drain(..) {
        if let Err(error) = handle.route().del(route).execute().await {
            tracing::debug!(%error, "route was gone");
        }
    }
}

/// A predecessor that is still dying takes its TUN, and the routes into it, along.
pub(super) fn unless_gone(removal: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match removal {
        Err(rtnetlink::Error::NetlinkError(message))
            if [-libc::ESRCH, -libc::ENOENT].contains(&message.raw_code()) =>
        {
            Ok(())
        }
        other => other,
    }
}

fn has_site(config: &HostConfig) -> bool {
    !config.site_interfaces.is_empty() || !config.site_prefixes.is_empty()
}

/// Our tables with this configuration, or those of an earlier run: which interfaces hold RLOCs may have changed.
fn own_tables(config: &HostConfig) -> &'static [u32] {
    if has_site(config) {
        &[SITE_TABLE]
    } else if config.announce.is_empty() {
        &[]
    } else {
        &[UNDERLAY_TABLE, DRAIN_TABLE]
    }
}

fn announced_routes(config: &HostConfig, tun: u32) -> impl Iterator<Item = RouteMessage> {
    config.announce.iter().map(move |prefix| {
        route(*prefix, config.announce_table, RouteType::Unicast)
            .priority(config.announce_metric)
            .output_interface(tun)
            .build()
    })
}

/// xTR: own EID-prefixes stay in the site (`throw` goes on to `main`), everything else of their family goes into the TUN. Proxy: the
/// aggregates are unreachable, everything else goes on to `main`.
fn table_routes(config: &HostConfig, tun: u32, refused: &BTreeSet<String>) -> Vec<RouteMessage> {
    let mut routes = Vec::new();
    if !refused.is_empty() {
        for prefix in &config.announce {
            routes.push(route(*prefix, UNDERLAY_TABLE, RouteType::Unreachable).build());
        }
    }
    if has_site(config) {
        for prefix in &config.site_prefixes {
            routes.push(route(*prefix, SITE_TABLE, RouteType::Throw).build());
        }
        for everything in site_families(config).into_iter().map(default_of) {
            let into_tun = route(everything, SITE_TABLE, RouteType::Unicast);
            routes.push(into_tun.output_interface(tun).build());
        }
    }
    routes
}

fn planned_rules(config: &HostConfig, refused: &BTreeSet<String>) -> Vec<RuleMessage> {
    let mut rules = Vec::new();
    for ipv4 in families(&config.announce) {
        for interface in refused {
            rules.push(rule(ipv4, UNDERLAY_TABLE, RuleAttribute::Iifname(interface.clone())));
        }
    }
    for ipv4 in site_families(config) {
        for interface in &config.site_interfaces {
            rules.push(rule(ipv4, SITE_TABLE, RuleAttribute::Iifname(interface.clone())));
        }
    }
    for prefix in &config.site_prefixes {
        let mut from =
            rule(prefix.addr().is_ipv4(), SITE_TABLE, RuleAttribute::Iifname("lo".to_owned()));
        from.header.src_len = prefix.prefix_len();
        from.attributes.push(RuleAttribute::Source(prefix.network()));
        rules.push(from);
    }
    rules
}

/// The families of `prefixes`: `true` = IPv4.
fn families(prefixes: &[IpNet]) -> BTreeSet<bool> {
    prefixes.iter().map(|prefix| prefix.addr().is_ipv4()).collect()
}

/// The families that the site has EIDs of, or may have.
fn site_families(config: &HostConfig) -> BTreeSet<bool> {
    let mut families = families(&config.site_prefixes);
    families.extend(config.ranges.iter().map(|range| range.range.prefix().addr().is_ipv4()));
    families
}

fn default_of(ipv4: bool) -> IpNet {
    let unspecified =
        if ipv4 { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    IpNet::new_assert(unspecified, 0)
}

pub(super) fn route(prefix: IpNet, table: u32, kind: RouteType) -> RouteMessageBuilder<IpAddr> {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .table_id(table)
        .protocol(RouteProtocol::Other(PROTOCOL))
        .kind(kind)
        .scope(if prefix.addr().is_ipv4() && kind == RouteType::Unicast {
            RouteScope::Link
        } else {
            RouteScope::Universe
        });
    let message = builder.get_mut();
    message.header.address_family = family(prefix.addr().is_ipv4());
    message.header.destination_prefix_length = prefix.prefix_len();
    if prefix.prefix_len() > 0 {
        message.attributes.push(RouteAttribute::Destination(prefix.network().into()));
    }
    builder
}

fn rule(ipv4: bool, table: u32, selector: RuleAttribute) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family(ipv4);
    rule.header.action = RuleAction::ToTable;
    rule.attributes =
        vec![RuleAttribute::Table(table), RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL))];
    if !matches!(selector, RuleAttribute::Priority(_)) {
        rule.attributes.push(RuleAttribute::Priority(RULE_PRIORITY));
    }
    rule.attributes.push(selector);
    rule
}

const fn family(ipv4: bool) -> AddressFamily {
    if ipv4 { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn is_own_rule(config: &HostConfig, rule: &RuleMessage) -> bool {
    let is_ours = |attribute: &RuleAttribute| match attribute {
        RuleAttribute::Table(table) => own_tables(config).contains(table),
        _ => false,
    };
    rule.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)))
        && rule.attributes.iter().any(is_ours)
}

fn is_own_route(config: &HostConfig, route: &RouteMessage) -> bool {
    let table = table_of(route);
    let in_own_table = own_tables(config).contains(&table);
    let announced = table == config.announce_table
        && destination_of(route).is_some_and(|prefix| config.announce.contains(&prefix));
    route.header.protocol == RouteProtocol::Other(PROTOCOL) && (in_own_table || announced)
}

pub(super) fn table_of(route: &RouteMessage) -> u32 {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        })
        .unwrap_or(u32::from(route.header.table))
}

pub(super) fn destination_of(route: &RouteMessage) -> Option<IpNet> {
    let length = route.header.destination_prefix_length;
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => super::underlay::ip_of(address),
        _ => None,
    });
    match address {
        Some(address) => IpNet::new(address, length).ok(),
        None => Some(default_of(route.header.address_family == AddressFamily::Inet)),
    }
}

fn describe(route: &RouteMessage) -> String {
    let prefix = destination_of(route).map_or_else(String::new, |prefix| prefix.to_string());
    format!("{prefix} table {}", table_of(route))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rtnetlink::packet_core::ErrorMessage;
    use std::num::NonZeroI32;

    #[test]
    fn what_is_gone_already_needs_no_removal() {
        for (code, is_gone) in [(libc::ESRCH, true), (libc::ENOENT, true), (libc::EPERM, false)] {
            let mut message = ErrorMessage::default();
            message.code = NonZeroI32::new(-code);
            let removal = unless_gone(Err(rtnetlink::Error::NetlinkError(message)));
            assert_eq!(removal.is_ok(), is_gone, "{code}");
        }
        assert!(unless_gone(Ok(())).is_ok());
    }
}
