//! The network of the scenario.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::configuration::{
    self, CLIENTS, GATEWAY_STATION, Keys, OF_D, OF_E, RANGES, REGISTRATIONS, Router, SITES, WHOLE,
};
use crate::lab::addresses::net;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Access, Core, Network, Plan};
use crate::lab::topology::{HOST_LINK, SITE_LINK, SITE_MTU, default_of};

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "data-centres", drawing: DRAWING, build };

const DRAWING: &str = r"
     host-c 192.168.1.12    host-d 192.168.2.12    host-e 192.168.3.12       ms 10.1.1.1
        |   2001:db8:e00c::12  |   2001:db8:e00d::12  |   2001:db8:e00e::12    |
     xtr-c  10.10.1.1       xtr-d  10.20.1.1       xtr-e  10.30.1.1            |
        |                      |                      | subscribes             |
     ===+======================+======== core ========+========================+====
              |                              |           |        |
            relay                          relay         |        | 0, 25 or 100 ms one way
              |                              |           |        |
     xtr-1  10.100.19.21            xtr-2  10.200.7.42   |     xtr-p  10.100.30.1 at DC1, 10.200.30.1 at DC2
        |  gateway 172.16.4.1          |  gateway 172.16.4.1      |
        |  2001:db8:e004::1            |  2001:db8:e004::1     host-p 172.16.20.12, 2001:db8:e014::12
     DC1  172.16.4.0/24 - - - - - - DC2  172.16.9.0/24   |
          2001:db8:e004::/64             2001:db8:e009::/64
        |              both 00:00:5e:00:01:01            |
        +--- vm 172.16.4.7 ---> moves -+                 +--- xtr-t, xtr-u: another tenant, instance 7,
             2001:db8:e004::7                                 with the addresses of DC1 and of site C
     - - - the subnet is extended at the end only
";

/// The bridge of a data centre, and that of the fabric that the VM's link is plugged into, which reaches one data centre at a time.
pub(super) const BRIDGE: &str = "br0";
/// The VM's link in the fabric.
pub(super) const VM_PORT: &str = "vm";
/// The fabric's links to the data centres.
pub(super) const UPLINKS: [&str; 2] = ["to-dc1", "to-dc2"];
/// The link of a data centre to the other one; in no bridge at first.
pub(super) const EXTENSION: &str = "extension";

const CORE: IpAddr = v4(10, 1, 1, 254);
const CORE6: IpAddr = v6(0xc0, 0x254);
pub(super) const MS: IpAddr = v4(10, 1, 1, 1);
pub(super) const XTR_C: IpAddr = v4(10, 10, 1, 1);
pub(super) const XTR_D: IpAddr = v4(10, 20, 1, 1);
pub(super) const XTR_E: IpAddr = v4(10, 30, 1, 1);
/// The other tenant's.
pub(super) const XTR_T: IpAddr = v4(10, 40, 1, 1);
pub(super) const XTR_U: IpAddr = v4(10, 41, 1, 1);
/// Those of site P, one in each data centre.
pub(super) const P: [IpAddr; 2] = [v4(10, 100, 30, 1), v4(10, 200, 30, 1)];
/// The instance of the other tenant.
pub(super) const TENANT: u32 = 7;
/// The data centres' locators.
pub(super) const XTR: [IpAddr; 2] = [v4(10, 100, 19, 21), v4(10, 200, 7, 42)];
/// The client's addresses.
pub(super) const CLIENT: [IpAddr; 2] = [v4(192, 168, 1, 12), v6(0xe00c, 0x12)];
/// Those of a site that asks late, of one that subscribes, and of one that moves as a whole.
pub(super) const HOST_D: [IpAddr; 2] = [v4(192, 168, 2, 12), v6(0xe00d, 0x12)];
pub(super) const HOST_E: [IpAddr; 2] = [v4(192, 168, 3, 12), v6(0xe00e, 0x12)];
pub(super) const HOST_P: [IpAddr; 2] = [v4(172, 16, 20, 12), v6(0xe014, 0x12)];
/// The VM's.
pub(super) const VM: [IpAddr; 2] = [v4(172, 16, 4, 7), v6(0xe004, 7)];
/// Another host of the VM's subnet, which stays.
pub(super) const NEIGHBOUR: [IpAddr; 2] = [v4(172, 16, 4, 8), v6(0xe004, 8)];
pub(super) const GATEWAY: [IpAddr; 2] = [v4(172, 16, 4, 1), v6(0xe004, 1)];
/// In no range.
pub(super) const STRANGER: IpAddr = v4(172, 16, 5, 9);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(site: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host))
}

fn build(network: &mut Network) -> io::Result<()> {
    let core = network.core("core", CORE, CORE6)?;
    let ms = network.node("ms")?;
    network.access(&core, &ms, Access::of(&ms, "core0", &[MS]))?;
    for (router, host, rloc, addresses) in [
        ("xtr-c", "host-c", XTR_C, CLIENT),
        ("xtr-d", "host-d", XTR_D, HOST_D),
        ("xtr-e", "host-e", XTR_E, HOST_E),
        ("xtr-t", "host-t", XTR_T, VM),
        ("xtr-u", "host-u", XTR_U, CLIENT),
    ] {
        let router = network.router(router)?;
        network.access(&core, &router, Access::of(&router, "core0", &[rloc]))?;
        site(network, &router, host, addresses)?;
    }
    let xtr_p = network.router("xtr-p")?;
    for (at_core, at_router, rloc) in [("p-dc1", "dc1", P[0]), ("p-dc2", "dc2", P[1])] {
        network.access(&core, &xtr_p, Access { at_core, at_router, rlocs: &[rloc] })?;
    }
    site(network, &xtr_p, "host-p", HOST_P)?;
    data_centre(
        network,
        &core,
        ("xtr-1", "dc1", "to-dc1"),
        XTR[0],
        [(v4(172, 16, 4, 2), 24), (v6(0xe004, 2), 64)],
    )?;
    data_centre(
        network,
        &core,
        ("xtr-2", "dc2", "to-dc2"),
        XTR[1],
        [(v4(172, 16, 9, 1), 24), (v6(0xe009, 1), 64)],
    )?;
    fabric(network)?;
    let [dc1, dc2] = [network.namespace("dc1")?, network.namespace("dc2")?];
    let extension = network.wire("extension", (&dc1, EXTENSION), (&dc2, EXTENSION))?;
    extension.isolate(GATEWAY_STATION);
    machine(network, "vm", ("fabric", VM_PORT), VM)?;
    machine(network, "stays", ("dc1", "stays"), NEIGHBOUR)?;
    start(network)
}

/// The host of a site, in two subnets; the router has the first address of each.
fn site(
    network: &mut Network,
    router: &Namespace,
    host: &'static str,
    [v4, v6]: [IpAddr; 2],
) -> io::Result<()> {
    let host = network.node(host)?;
    let subnets = [(first_of(v4), v4, 24), (first_of(v6), v6, 64)];
    network.site(router, &host, &subnets)
}

/// The first address of the subnet (/24 or /64) that an address is in.
fn first_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            Ipv4Addr::new(a, b, c, 1).into()
        }
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64 | 1).into(),
    }
}

/// A router, and a bridge as its site.
fn data_centre(
    network: &mut Network,
    core: &Core,
    (router, lan, access): (&'static str, &'static str, &'static str),
    rloc: IpAddr,
    subnets: [(IpAddr, u8); 2],
) -> io::Result<()> {
    let xtr = network.router(router)?;
    let access = Access { at_core: access, at_router: "core0", rlocs: &[rloc] };
    network.access_through_relay(core, &xtr, access)?;
    let lan = network.node(lan)?;
    link::bridge(&lan, BRIDGE)?;
    link::connect(SITE_MTU, (&xtr, SITE_LINK), (&lan, "router"))?;
    link::plug(&lan, "router", BRIDGE)?;
    link::up(&xtr, SITE_LINK)?;
    for (address, length) in subnets {
        link::address(&xtr, SITE_LINK, net(address, length))?;
    }
    network.capture(&lan, true)?;
    Ok(())
}

/// What the VM's link is plugged into: no carrier comes or goes when it moves.
fn fabric(network: &mut Network) -> io::Result<()> {
    let fabric = network.node("fabric")?;
    link::bridge(&fabric, BRIDGE)?;
    for (uplink, lan) in UPLINKS.into_iter().zip(["dc1", "dc2"]) {
        let lan = network.namespace(lan)?;
        link::connect(SITE_MTU, (&fabric, uplink), (&lan, "fabric"))?;
        link::plug(&lan, "fabric", BRIDGE)?;
        link::up(&fabric, uplink)?;
    }
    link::plug(&fabric, UPLINKS[0], BRIDGE)
}

/// A machine on a bridge.
fn machine(
    network: &mut Network,
    name: &'static str,
    (lan, port): (&str, &'static str),
    addresses: [IpAddr; 2],
) -> io::Result<()> {
    let machine = network.node(name)?;
    let lan = network.namespace(lan)?;
    link::connect(1500, (&machine, HOST_LINK), (&lan, port))?;
    link::plug(&lan, port, BRIDGE)?;
    link::up(&machine, HOST_LINK)?;
    for (address, gateway) in addresses.into_iter().zip(GATEWAY) {
        let length = if address.is_ipv4() { 24 } else { 64 };
        link::address(&machine, HOST_LINK, net(address, length))?;
        link::route(&machine, default_of(gateway), Some(gateway), HOST_LINK)?;
    }
    Ok(())
}

fn start(network: &mut Network) -> io::Result<()> {
    for site in SITES {
        network.key(site)?;
    }
    let keys = Keys::of(network);
    let start = |network: &mut Network, role, name: &str, text: &str| -> io::Result<_> {
        let namespace = network.namespace(name)?;
        network.daemon(role, &namespace, text)
    };
    let ms = start(network, "mapping", "ms", &configuration::map_server(&keys))?;
    for at in 0..2 {
        let text = configuration::data_centre(&keys, at, &leases(network, at), false);
        start(network, "xtr", ["xtr-1", "xtr-2"][at], &text)?;
    }
    let tenants = [("xtr-t", XTR_T, RANGES), ("xtr-u", XTR_U, CLIENTS)];
    for (name, rloc, prefixes) in tenants {
        let rlocs = [("core", rloc)];
        let router =
            Router { instance_id: TENANT, ..Router::new(name, &rlocs, "tenant", prefixes) };
        start(network, "xtr", name, &router.text(&keys))?;
    }
    for (name, site, rloc, prefixes) in
        [("xtr-c", "c", XTR_C, CLIENTS), ("xtr-d", "d", XTR_D, OF_D), ("xtr-e", "e", XTR_E, OF_E)]
    {
        let rlocs = [("core", rloc)];
        let subscribes = site == "e";
        let router = Router { subscribes, ..Router::new(name, &rlocs, site, prefixes) };
        start(network, "xtr", name, &router.text(&keys))?;
    }
    start(network, "xtr", "xtr-p", &whole_prefix(&keys, 0))?;
    for (name, is_router) in [("core", true), ("host-t", false), ("host-u", false)] {
        let namespace = network.namespace(name)?;
        network.capture(&namespace, is_router)?;
    }
    network.wait_for_registrations(&ms, REGISTRATIONS)
}

/// The router of site P, which is reached in that data centre.
pub(super) fn whole_prefix(keys: &Keys, at: usize) -> String {
    let rlocs = [("dc1", P[0]), ("dc2", P[1])];
    let locator_set = Some(rlocs[at].0);
    Router { locator_set, ..Router::new("xtr-p", &rlocs, "p", WHOLE) }.text(keys)
}

/// The file of a data centre's DHCP server.
pub(super) fn leases(network: &Network, at: usize) -> String {
    let file = ["dc1.leases", "dc2.leases"][at];
    network.directory().join(file).display().to_string()
}
