//! The lab's network: two routed cores, four LISP sites, a proxy gateway, a Map-Server and a piece of Internet.

use std::io;
use std::net::IpAddr;

use super::addresses::{
    self as at, CORE4, CORE6, CORE6_LINK_LOCAL, HOST_ADDRESSES, HOST_DEAD, HOST_N4, HOST_N6,
    INTERNET4, INTERNET6, M_POLICIES, N_GATEWAY4, N_GATEWAY6, Organisation, PXTR_NATIVE4,
    PXTR_NATIVE6, SITES, Site, host, net,
};
use super::link;
use super::namespace::Namespace;
use super::offload;

/// The lab as a drawing.
pub(crate) const DRAWING: &str = r"
  host-a 2001:db8:e001::10      ms (Map-Server, Map-Resolver)       host-c 2001:db8:e003::10
     |   203.0.113.10           198.51.100.2    2001:db8:c0::2         |   203.0.113.138
  xtr-a  198.51.100.11                |             |               xtr-c  2001:db8:c0::13
     |                                |             |                  |
  ===+====== core4, IPv4 only ========+===       ===+=== core6, IPv6 only +=====
     |                                |             |                  |
  xtr-b  198.51.100.12                |             |               xtr-d  2001:db8:c0::14
     |                          198.51.100.1    2001:db8:c0::1         |
  host-b 2001:db8:e002::10      pxtr (PITR, PETR, RTR)              host-d 2001:db8:e004::10
         203.0.113.74           192.0.2.1, 2001:db8:f::1                   203.0.113.202
                                          |
                                internet (router) --- host-n 192.0.2.80, 2001:db8:ffff::80
                                                             (knows nothing of LISP)
  also on core4: xtr-m 198.51.100.21 to .30 --- host-m 2001:db8:e007:1::10 to :4::10
";

/// Name of a member's link to the IPv4 core.
pub(crate) const TO_CORE4: &str = "core4";
/// Name of a member's link to the IPv6 core.
pub(crate) const TO_CORE6: &str = "core6";
/// Name of an xTR's link to its site.
pub(crate) const SITE_LINK: &str = "lan0";
/// MTU of the cores and of the native side.
pub(crate) const CORE_MTU: u32 = 1500;
/// MTU of the sites' links: jumbo frames, so that hosts send more than the core can carry.
pub(crate) const SITE_MTU: u32 = 9000;
/// Name of a host's link.
pub(crate) const HOST_LINK: &str = "eth0";
/// Name of the gateway's native link.
const NATIVE_LINK: &str = "native0";
/// Name of the Internet router's link towards host N.
const N_LINK: &str = "lan0";

/// Kernel settings of every namespace of the lab.
pub(crate) const EVERYWHERE: &[(&str, &str)] = &[
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
/// Those of its routers.
pub(crate) const ROUTER: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];
/// Those of what must not speak IPv6.
pub(crate) const NO_IPV6: &[(&str, &str)] =
    &[("ipv6/conf/all/disable_ipv6", "1"), ("ipv6/conf/default/disable_ipv6", "1")];
const NO_IPV6_TOWARDS_CORE4: &[(&str, &str)] = &[("ipv6/conf/core4/disable_ipv6", "1")];

/// A site's namespaces.
pub(crate) struct SiteNamespaces {
    /// The tunnel router.
    pub(crate) xtr: Namespace,
    /// The host.
    pub(crate) host: Namespace,
}

/// All namespaces, up and routed.
pub(crate) struct Topology {
    /// IPv4 only.
    pub(crate) core4: Namespace,
    /// IPv6 only.
    pub(crate) core6: Namespace,
    /// A, B, C6, D6, in the order of [`SITES`].
    pub(crate) sites: Vec<SiteNamespaces>,
    /// M, which has several locators.
    pub(crate) site_m: SiteNamespaces,
    /// The proxy gateway.
    pub(crate) pxtr: Namespace,
    /// Map-Server and Map-Resolver.
    pub(crate) ms: Namespace,
    /// The router I.
    pub(crate) internet: Namespace,
    /// Host N.
    pub(crate) host_n: Namespace,
}

/// Namespaces of the sites A, B, C6 and D6.
const SITE_NAMES: [(&str, &str); 4] =
    [("xtr-a", "host-a"), ("xtr-b", "host-b"), ("xtr-c", "host-c"), ("xtr-d", "host-d")];

impl Topology {
    /// Makes everything: namespaces, links, addresses, routes.
    pub(crate) fn bring_up() -> io::Result<Self> {
        let sites = SITE_NAMES.iter().map(|(xtr, host)| {
            Ok(SiteNamespaces { xtr: Namespace::create(xtr)?, host: Namespace::create(host)? })
        });
        let lab = Self {
            core4: Namespace::create("core4")?,
            core6: Namespace::create("core6")?,
            sites: sites.collect::<io::Result<_>>()?,
            site_m: SiteNamespaces {
                xtr: Namespace::create("xtr-m")?,
                host: Namespace::create("host-m")?,
            },
            pxtr: Namespace::create("pxtr")?,
            ms: Namespace::create("ms")?,
            internet: Namespace::create("internet")?,
            host_n: Namespace::create("host-n")?,
        };
        lab.configure_namespaces()?;
        for (site, namespaces) in SITES.iter().zip(&lab.sites) {
            if site.rloc.is_ipv4() {
                join_core4(&lab.core4, &namespaces.xtr, site.rloc, true)?;
            } else {
                join_core6(&lab.core6, &namespaces.xtr, site.rloc, true)?;
            }
            attach_host(site, namespaces)?;
        }
        lab.attach_site_m()?;
        join_core4(&lab.core4, &lab.ms, at::MS4, true)?;
        join_core6(&lab.core6, &lab.ms, at::MS6, true)?;
        join_core4(&lab.core4, &lab.pxtr, at::PXTR4, false)?;
        join_core6(&lab.core6, &lab.pxtr, at::PXTR6, false)?;
        lab.attach_internet()?;
        Ok(lab)
    }

    /// Every namespace.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let sites = self.sites.iter().chain([&self.site_m]);
        let sites = sites.flat_map(|site| [&site.xtr, &site.host]);
        [&self.core4, &self.core6, &self.pxtr, &self.ms, &self.internet, &self.host_n]
            .into_iter()
            .chain(sites)
    }

    fn configure_namespaces(&self) -> io::Result<()> {
        for namespace in self.namespaces() {
            link::settings(namespace, EVERYWHERE)?;
            link::up(namespace, "lo")?;
        }
        link::settings(&self.core4, NO_IPV6)?;
        let xtrs = self.sites.iter().chain([&self.site_m]).map(|site| &site.xtr);
        for router in [&self.core4, &self.core6, &self.pxtr, &self.internet].into_iter().chain(xtrs)
        {
            link::settings(router, ROUTER)?;
        }
        link::address(&self.core4, "lo", host(CORE4))?;
        link::address(&self.core6, "lo", host(CORE6))
    }

    /// Site M: one link to the core with all its locators, one to its host with all its EID-prefixes.
    fn attach_site_m(&self) -> io::Result<()> {
        let SiteNamespaces { xtr, host: machine } = &self.site_m;
        let mut rlocs = (0..M_POLICIES.len()).flat_map(at::m_rlocs);
        if let Some(first) = rlocs.next() {
            join_core4(&self.core4, xtr, first, true)?;
        }
        for rloc in rlocs {
            link::address(xtr, TO_CORE4, host(rloc))?;
            link::route(&self.core4, host(rloc), None, xtr.name())?;
        }
        link::connect(SITE_MTU, (xtr, SITE_LINK), (machine, HOST_LINK))?;
        link::up(xtr, SITE_LINK)?;
        link::up(machine, HOST_LINK)?;
        for policy in 0..M_POLICIES.len() {
            link::address(xtr, SITE_LINK, net(at::m_gateway(policy), 64))?;
            link::address(machine, HOST_LINK, net(at::m_host(policy), 64))?;
        }
        let gateway = at::m_gateway(0);
        link::route(machine, default_of(gateway), Some(gateway), HOST_LINK)
    }

    /// The native side of the gateway. The router I has the routes it would have learned by BGP.
    fn attach_internet(&self) -> io::Result<()> {
        link::connect(CORE_MTU, (&self.pxtr, NATIVE_LINK), (&self.internet, "pxtr"))?;
        link::connect(CORE_MTU, (&self.internet, N_LINK), (&self.host_n, HOST_LINK))?;
        for (namespace, name, addresses) in [
            (&self.pxtr, NATIVE_LINK, vec![net(PXTR_NATIVE6, 64), net(PXTR_NATIVE4, 26)]),
            (&self.internet, "pxtr", vec![net(INTERNET6, 64), net(INTERNET4, 26)]),
            (&self.internet, N_LINK, vec![net(N_GATEWAY6, 64), net(N_GATEWAY4, 26)]),
            (&self.host_n, HOST_LINK, vec![net(HOST_N6, 64), net(HOST_N4, 26), host(HOST_DEAD)]),
        ] {
            link::up(namespace, name)?;
            for address in addresses {
                link::address(namespace, name, address)?;
            }
        }
        for (namespace, name, gateways) in [
            (&self.pxtr, NATIVE_LINK, [INTERNET6, INTERNET4]),
            (&self.host_n, HOST_LINK, [N_GATEWAY6, N_GATEWAY4]),
        ] {
            for gateway in gateways {
                link::route(namespace, default_of(gateway), Some(gateway), name)?;
            }
        }
        for (aggregate, gateway) in at::EID_AGGREGATES.iter().zip([PXTR_NATIVE6, PXTR_NATIVE4]) {
            link::route(&self.internet, prefix(aggregate)?, Some(gateway), "pxtr")?;
        }
        link::route(&self.internet, host(HOST_DEAD), Some(HOST_N6), N_LINK)
    }
}

/// Another locator for a member of the IPv4 core.
pub(crate) fn add_locator4(core: &Namespace, member: &Namespace, rloc: IpAddr) -> io::Result<()> {
    link::address(member, TO_CORE4, host(rloc))?;
    link::route(core, host(rloc), None, member.name())
}

/// A server that a scenario adds to the IPv4 core for itself; it goes with the namespace.
pub(crate) fn guest(core: &Namespace, name: &'static str, rloc: IpAddr) -> io::Result<Namespace> {
    let namespace = Namespace::create(name)?;
    link::settings(&namespace, EVERYWHERE)?;
    link::up(&namespace, "lo")?;
    join_core4(core, &namespace, rloc, true)?;
    Ok(namespace)
}

/// As [`guest`], the site of an organisation: its xTR and its host.
pub(crate) fn guest_site(
    core: &Namespace,
    (xtr, machine): (&'static str, &'static str),
    organisation: &Organisation,
) -> io::Result<SiteNamespaces> {
    let site = SiteNamespaces {
        xtr: guest(core, xtr, organisation.rloc)?,
        host: Namespace::create(machine)?,
    };
    let SiteNamespaces { xtr, host: machine } = &site;
    link::settings(xtr, ROUTER)?;
    link::settings(machine, EVERYWHERE)?;
    link::up(machine, "lo")?;
    link::connect(SITE_MTU, (xtr, SITE_LINK), (machine, HOST_LINK))?;
    link::up(xtr, SITE_LINK)?;
    link::up(machine, HOST_LINK)?;
    link::address(xtr, SITE_LINK, net(organisation.gateway(), 64))?;
    link::address(machine, HOST_LINK, net(organisation.host(), 64))?;
    let gateway = organisation.gateway();
    link::route(machine, default_of(gateway), Some(gateway), HOST_LINK)?;
    Ok(site)
}

/// A member of the IPv4 core: a host route each way, as on a routed access link.
fn join_core4(
    core: &Namespace,
    member: &Namespace,
    rloc: IpAddr,
    has_default: bool,
) -> io::Result<()> {
    link::connect(CORE_MTU, (core, member.name()), (member, TO_CORE4))?;
    link::settings(member, NO_IPV6_TOWARDS_CORE4)?;
    both_up(core, member, TO_CORE4)?;
    link::address(member, TO_CORE4, host(rloc))?;
    link::route(core, host(rloc), None, member.name())?;
    let beyond = if has_default { default_of(CORE4) } else { prefix(at::RLOC_RANGES[0])? };
    link::route(member, beyond, Some(CORE4), TO_CORE4)
}

/// A member of the IPv6 core.
fn join_core6(
    core: &Namespace,
    member: &Namespace,
    rloc: IpAddr,
    has_default: bool,
) -> io::Result<()> {
    link::connect(CORE_MTU, (core, member.name()), (member, TO_CORE6))?;
    both_up(core, member, TO_CORE6)?;
    link::address(core, member.name(), net(CORE6_LINK_LOCAL, 64))?;
    link::address(member, TO_CORE6, host(rloc))?;
    link::route(core, host(rloc), None, member.name())?;
    let beyond = if has_default { default_of(CORE6) } else { prefix(at::RLOC_RANGES[1])? };
    link::route(member, beyond, Some(CORE6_LINK_LOCAL), TO_CORE6)
}

fn both_up(core: &Namespace, member: &Namespace, member_link: &'static str) -> io::Result<()> {
    for (namespace, name) in [(core, member.name()), (member, member_link)] {
        link::wire_sized(namespace, name)?;
        if offload::can_compute_checksums() {
            offload::compute_checksums(namespace, name)?;
        }
        link::up(namespace, name)?;
    }
    Ok(())
}

/// The link between a site's xTR and its host.
fn attach_host(site: &Site, namespaces: &SiteNamespaces) -> io::Result<()> {
    let SiteNamespaces { xtr, host } = namespaces;
    link::connect(SITE_MTU, (xtr, SITE_LINK), (host, HOST_LINK))?;
    link::up(xtr, SITE_LINK)?;
    link::up(host, HOST_LINK)?;
    for (gateway, length) in [(site.gateway6(), 64), (site.gateway4(), 26)] {
        link::address(xtr, SITE_LINK, net(gateway, length))?;
    }
    for n in 0..HOST_ADDRESSES {
        link::address(host, HOST_LINK, net(site.host6(n), 64))?;
        link::address(host, HOST_LINK, net(site.host4(n), 26))?;
    }
    for gateway in [site.gateway6(), site.gateway4()] {
        link::route(host, default_of(gateway), Some(gateway), HOST_LINK)?;
    }
    Ok(())
}

/// The default route of an address's family.
pub(crate) fn default_of(address: IpAddr) -> ipnet::IpNet {
    match address {
        IpAddr::V4(_) => net(IpAddr::from([0u8; 4]), 0),
        IpAddr::V6(_) => net(IpAddr::from([0u8; 16]), 0),
    }
}

fn prefix(text: &str) -> io::Result<ipnet::IpNet> {
    text.parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests;
