//! The network of the scenario, and the configuration of its routers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::addresses::net;
use crate::lab::link;
use crate::lab::network::{Access, Core, Network, Plan};
use crate::lab::topology::{HOST_LINK, SITE_LINK, SITE_MTU, default_of};

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "data-centres", drawing: DRAWING, build };

const DRAWING: &str = r"
     host-c 192.168.1.12                               ms 10.1.1.1
        |   2001:db8:e00c::12                           |
     xtr-c  10.10.1.1                                   |
        |                                               |
     ===+==================== core =====================+====
              |                              |
            relay                          relay              0, 25 or 100 ms one way
              |                              |
     xtr-1  10.100.19.21            xtr-2  10.200.7.42
        |  gateway 172.16.4.1          |  gateway 172.16.4.1
        |  2001:db8:e004::1            |  2001:db8:e004::1    both 00:00:5e:00:01:01
     DC1  172.16.4.0/24             DC2  172.16.9.0/24
          2001:db8:e004::/64             2001:db8:e009::/64
        |                              |
        +--- vm 172.16.4.7 ---> moves -+
             2001:db8:e004::7
";

/// The bridge of a data centre, and that of the fabric that the VM's link is plugged into, which reaches one data centre at a time.
pub(super) const BRIDGE: &str = "br0";
/// The VM's link in the fabric.
pub(super) const VM_PORT: &str = "vm";
/// The fabric's links to the data centres.
pub(super) const UPLINKS: [&str; 2] = ["to-dc1", "to-dc2"];

const CORE: IpAddr = v4(10, 1, 1, 254);
const CORE6: IpAddr = v6(0xc0, 0x254);
pub(super) const MS: IpAddr = v4(10, 1, 1, 1);
pub(super) const XTR_C: IpAddr = v4(10, 10, 1, 1);
/// The data centres' locators.
pub(super) const XTR: [IpAddr; 2] = [v4(10, 100, 19, 21), v4(10, 200, 7, 42)];
/// The client's addresses.
pub(super) const CLIENT: [IpAddr; 2] = [v4(192, 168, 1, 12), v6(0xe00c, 0x12)];
/// The VM's.
pub(super) const VM: [IpAddr; 2] = [v4(172, 16, 4, 7), v6(0xe004, 7)];
/// Another host of the VM's subnet, which stays.
pub(super) const NEIGHBOUR: [IpAddr; 2] = [v4(172, 16, 4, 8), v6(0xe004, 8)];
const GATEWAY: [IpAddr; 2] = [v4(172, 16, 4, 1), v6(0xe004, 1)];
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
    let xtr_c = network.router("xtr-c")?;
    network.access(&core, &xtr_c, Access::of(&xtr_c, "core0", &[XTR_C]))?;
    let host_c = network.node("host-c")?;
    let subnets = [(v4(192, 168, 1, 1), CLIENT[0], 24), (v6(0xe00c, 1), CLIENT[1], 64)];
    network.site(&xtr_c, &host_c, &subnets)?;
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
    machine(network, "vm", ("fabric", VM_PORT), VM)?;
    machine(network, "stays", ("dc1", "stays"), NEIGHBOUR)?;
    start(network)
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
    let keys = [network.key("c")?, network.key("dc")?];
    let at = |network: &Network, name: &str| network.namespace(name);
    let ms = network.daemon("mapping", at(network, "ms")?.as_ref(), &map_server(&keys))?;
    let client = xtr("xtr-c", XTR_C, &keys[0], ["192.168.1.0/24", "2001:db8:e00c::/64"]);
    network.daemon("xtr", at(network, "xtr-c")?.as_ref(), &client)?;
    for (name, rloc, prefixes) in [
        ("xtr-1", XTR[0], ["172.16.4.0/24", "2001:db8:e004::/64"]),
        ("xtr-2", XTR[1], ["172.16.9.0/24", "2001:db8:e009::/64"]),
    ] {
        let text = xtr(name, rloc, &keys[1], prefixes) + &dynamic();
        network.daemon("xtr", at(network, name)?.as_ref(), &text)?;
    }
    let core = network.namespace("core")?;
    network.capture(&core, true)?;
    network.wait_for_registrations(&ms, 6)
}

fn map_server([c, dc]: &[String; 2]) -> String {
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n\n\
         [[site]]\nname = \"c\"\nkeys = [{{ id = 1, file = \"{c}\" }}]\n\
         eid-prefixes = [\"192.168.1.0/24\", \"2001:db8:e00c::/64\"]\n\n\
         [[site]]\nname = \"dc\"\nkeys = [{{ id = 1, file = \"{dc}\" }}]\neid-prefixes = [\
         {{ prefix = \"172.16.4.0/24\", accept-more-specifics = true }}, \
         {{ prefix = \"2001:db8:e004::/64\", accept-more-specifics = true }}, \
         \"172.16.9.0/24\", \"2001:db8:e009::/64\"]\n"
    )
}

fn xtr(name: &str, rloc: IpAddr, key: &str, prefixes: [&str; 2]) -> String {
    let mut text = format!(
        "[xtr]\nname = \"{name}\"\nrlocs = {{ core = {{ address = \"{rloc}\" }} }}\n\
         map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{key}\" }}]\n\
         map-resolvers = [\"{MS}\"]\nregistration-interval = \"10s\"\ntun = {{ queues = 1 }}\n"
    );
    for prefix in prefixes {
        text.push_str(&format!(
            "\n[[eid]]\nprefix = \"{prefix}\"\ninterfaces = [\"{SITE_LINK}\"]\n"
        ));
    }
    text
}

/// The same at both data centres.
fn dynamic() -> String {
    ["172.16.4.0/24", "2001:db8:e004::/64"]
        .iter()
        .zip(GATEWAY)
        .map(|(range, gateway)| {
            format!(
                "\n[[dynamic-eid]]\nrange = \"{range}\"\ninterfaces = [\"{SITE_LINK}\"]\ntimeout = \"3s\"\n\
                 gateway = {{ mac = \"00:00:5e:00:01:01\", addresses = [\"{gateway}\"] }}\n"
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;

    #[test]
    fn every_file_passes_the_products_own_check() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("site.key");
        fs::write(&key, "0123456789abcdef").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        let key = key.display().to_string();
        let prefixes = ["172.16.4.0/24", "2001:db8:e004::/64"];
        for text in [
            map_server(&[key.clone(), key.clone()]),
            xtr("xtr-c", XTR_C, &key, ["192.168.1.0/24", "2001:db8:e00c::/64"]),
            xtr("xtr-1", XTR[0], &key, prefixes) + &dynamic(),
        ] {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }
}
