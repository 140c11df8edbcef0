//! One or two gateways between the native world and a site.
//!
//! ```text
//!   [host]  192.0.2.80, 2001:db8:ffff::80
//!      |
//!   [internet]  the gateways' neighbour, AS 64501
//!      |  192.0.2.2                 |  192.0.2.6
//!      |  192.0.2.1                 |  192.0.2.5
//!   [gateway]  AS 64500          [gateway]
//!      |  198.51.100.1              |  198.51.100.3
//!    ==+========== core ============+====+==
//!                                        |  198.51.100.11, Map-Server 198.51.100.2
//!                                     [xtr] --- [site]  203.0.113.10, 2001:db8:e001::10
//! ```

use std::io;
use std::net::IpAddr;

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use ipnet::IpNet;

use crate::daemon::Daemon;
use crate::site::wait_for_registrations;

const MTU: u32 = 1500;
/// Kernel settings of every namespace.
const EVERYWHERE: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

const MAPPING: &str = r#"
[mapping]
name = "ms"
listen = ["198.51.100.2"]
[[site]]
name = "a"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = ["203.0.113.0/26", "2001:db8:e001::/48"]
"#;

/// It has a PETR for each gateway, and both carry.
const XTR: &str = r#"
[xtr]
name = "a"
rlocs = { core = { address = "198.51.100.11", priority = 1, weight = 100 } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
use-petr = [PETRS]
[[eid]]
prefix = "203.0.113.0/26"
interfaces = ["lan0"]
[[eid]]
prefix = "2001:db8:e001::/48"
interfaces = ["lan0"]
"#;

const GATEWAY: &str = r#"
[gateway]
name = "pxtr"
rlocs = ["RLOC"]
map-resolvers = ["198.51.100.2"]
[pitr]
eid-aggregates = ["2001:db8:e000::/36", "203.0.113.0/24"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24"], eids = ["2001:db8:e000::/36", "203.0.113.0/24"] }
"#;

/// The link between a gateway and its neighbour.
#[derive(Clone, Copy, Debug)]
pub struct Leg {
    /// The gateway's address on it.
    pub gateway4: IpAddr,
    /// See [`Self::gateway4`].
    pub gateway6: IpAddr,
    /// The neighbour's address on it.
    pub neighbour4: IpAddr,
    /// See [`Self::neighbour4`].
    pub neighbour6: IpAddr,
    rloc: IpAddr,
}

/// All namespaces, and what runs in them beside gateways and routing daemons.
pub struct Network {
    _xtr_daemon: Daemon,
    _mapping: Daemon,
    /// Where the gateways and their routing daemons run.
    pub gateways: Vec<Namespace>,
    /// Their neighbour.
    pub internet: Namespace,
    /// A host that knows nothing of LISP.
    pub host: Namespace,
    /// A host of the site.
    pub site: Namespace,
    _xtr: Namespace,
    _core: Namespace,
}

impl Network {
    /// Builds it for so many gateways, at most two, and waits until the site is registered.
    ///
    /// # Errors
    /// What the kernel said; `PermissionDenied` without the privilege to make namespaces.
    pub fn build(gateways: usize) -> io::Result<Self> {
        let names = ["gateway", "gateway2"].into_iter().take(gateways);
        let gateways: Vec<_> = names.map(namespace).collect::<io::Result<_>>()?;
        let (core, internet) = (namespace("core")?, namespace("internet")?);
        let (host, xtr, site) = (namespace("host")?, namespace("xtr")?, namespace("site")?);
        link::bridge(&core, "br0")?;
        for ((gateway, port), (leg, internet_link)) in gateways
            .iter()
            .zip(["gateway", "gateway2"])
            .zip(legs(gateways.len()).iter().zip(["gw0", "gw1"]))
        {
            join((gateway, "core0"), (&core, port))?;
            link::plug(&core, port, "br0")?;
            address(gateway, "core0", leg.rloc, 24)?;
            join((gateway, "native0"), (&internet, internet_link))?;
            address(gateway, "native0", leg.gateway4, 30)?;
            address(gateway, "native0", leg.gateway6, 64)?;
            address(&internet, internet_link, leg.neighbour4, 30)?;
            address(&internet, internet_link, leg.neighbour6, 64)?;
        }
        join((&host, "eth0"), (&internet, "lan0"))?;
        attach((&host, "eth0"), native_host(), (&internet, "lan0"), native())?;
        join((&xtr, "core0"), (&core, "xtr"))?;
        link::plug(&core, "xtr", "br0")?;
        for rloc in ["198.51.100.11", "198.51.100.2"] {
            address(&xtr, "core0", ip(rloc)?, 24)?;
        }
        join((&site, "eth0"), (&xtr, "lan0"))?;
        let lan = ["203.0.113.0/26", "2001:db8:e001::/64"].map(net);
        attach((&site, "eth0"), site_host(), (&xtr, "lan0"), lan)?;
        let mapping = Daemon::start(&xtr, "mapping", MAPPING)?;
        let petr =
            |leg: &Leg| format!("{{ address = \"{}\", priority = 1, weight = 50 }}", leg.rloc);
        let petrs: Vec<String> = legs(gateways.len()).iter().map(petr).collect();
        let config = XTR.replace("PETRS", &petrs.join(", "));
        let xtr_daemon = Daemon::start(&xtr, "xtr", &config)?;
        wait_for_registrations(&mapping, 2)?;
        Ok(Self {
            _xtr_daemon: xtr_daemon,
            _mapping: mapping,
            gateways,
            internet,
            host,
            site,
            _xtr: xtr,
            _core: core,
        })
    }

    /// Starts the gateway in `gateways[at]`.
    ///
    /// # Errors
    /// It does not come up; with its log.
    pub fn start_gateway(&self, at: usize) -> io::Result<Daemon> {
        Daemon::start(&self.gateways[at], "gateway", &gateway_config(at))
    }
}

/// The links of the first `gateways` gateways.
pub fn legs(gateways: usize) -> Vec<Leg> {
    let v4 = |last: u8| IpAddr::from([192, 0, 2, last]);
    let v6 = |link: u16, last: u16| IpAddr::from([0x2001, 0xdb8, 0xf, link, 0, 0, 0, last]);
    let leg = |number: u8| Leg {
        gateway4: v4(1 + 4 * number),
        gateway6: v6(number.into(), 1),
        neighbour4: v4(2 + 4 * number),
        neighbour6: v6(number.into(), 0xfe),
        rloc: IpAddr::from([198, 51, 100, 1 + 2 * number]),
    };
    (0..2).take(gateways).map(leg).collect()
}

/// The configuration of a gateway.
pub fn gateway_config(at: usize) -> String {
    let leg = legs(2)[at];
    GATEWAY.replace("RLOC", &leg.rloc.to_string())
}

/// What stands for all EIDs in the native world.
pub fn aggregates() -> [IpNet; 2] {
    ["203.0.113.0/24", "2001:db8:e000::/36"].map(net)
}

/// The networks of the native host.
pub fn native() -> [IpNet; 2] {
    ["192.0.2.64/26", "2001:db8:ffff::/64"].map(net)
}

/// The native host.
pub fn native_host() -> [IpAddr; 2] {
    [IpAddr::from([192, 0, 2, 80]), IpAddr::from([0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80])]
}

/// The site's host.
pub fn site_host() -> [IpAddr; 2] {
    [IpAddr::from([203, 0, 113, 10]), IpAddr::from([0x2001, 0xdb8, 0xe001, 0, 0, 0, 0, 0x10])]
}

fn namespace(name: &'static str) -> io::Result<Namespace> {
    let namespace = Namespace::create(name)?;
    link::settings(&namespace, EVERYWHERE)?;
    link::up(&namespace, "lo")?;
    Ok(namespace)
}

fn join(near: (&Namespace, &'static str), far: (&Namespace, &'static str)) -> io::Result<()> {
    link::connect(MTU, near, far)?;
    link::up(near.0, near.1)?;
    link::up(far.0, far.1)
}

/// Gives a host its addresses in `networks`, and the router that it sends everything to the first address of each.
fn attach(
    (host, eth): (&Namespace, &'static str),
    addresses: [IpAddr; 2],
    (router, lan): (&Namespace, &'static str),
    networks: [IpNet; 2],
) -> io::Result<()> {
    for (own, network) in addresses.into_iter().zip(networks) {
        let (first, everything) = match network {
            IpNet::V4(v4) => {
                (IpAddr::from(v4.network().to_bits().wrapping_add(1).to_be_bytes()), "0.0.0.0/0")
            }
            IpNet::V6(v6) => {
                (IpAddr::from(v6.network().to_bits().wrapping_add(1).to_be_bytes()), "::/0")
            }
        };
        address(host, eth, own, network.prefix_len())?;
        address(router, lan, first, network.prefix_len())?;
        link::route(host, net(everything), Some(first), eth)?;
    }
    Ok(())
}

fn address(
    namespace: &Namespace,
    name: &'static str,
    address: IpAddr,
    length: u8,
) -> io::Result<()> {
    link::address(namespace, name, IpNet::new(address, length).map_err(io::Error::other)?)
}

fn ip(text: &str) -> io::Result<IpAddr> {
    text.parse().map_err(io::Error::other)
}

/// A prefix of this file.
fn net(text: &str) -> IpNet {
    text.parse().unwrap_or_default()
}
