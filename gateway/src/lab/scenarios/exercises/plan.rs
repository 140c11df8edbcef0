//! The network of the exercises, and the configuration of its routers: short, since learners read it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::lab::network::{Access, Core, Network, Plan};
use crate::lab::topology::SITE_LINK;

const DRAWING: &str = r"
   host-1 203.0.113.10                              host-2 203.0.113.74
      |   2001:db8:e001::10                            |   2001:db8:e002::10
    xtr-1 198.51.100.11                              xtr-2
      |   2001:db8:c0::11 (exercise 7)       to-p      |      to-q
      |                                  +-- isp-p ----+---- isp-q --+
      |                     198.51.100.21|                           |198.51.100.22, or 2001:db8:c0::22 (exercise 7)
   ===+================+================ core =======================+===
                       |                  |
                     ms 198.51.100.2    pxtr 198.51.100.1, 2001:db8:c0::1
                  2001:db8:c0::2          |  (PITR, PETR)
            (Map-Server, Map-Resolver)    |
                                        host-n 192.0.2.80, 2001:db8:ffff::80
                                          (knows nothing of LISP)
";

/// One network each, so that each begins as its page says.
pub(crate) static PLANS: [Plan; 7] = [
    Plan { name: "exercise-1", drawing: DRAWING, build: single },
    Plan { name: "exercise-2", drawing: DRAWING, build: single },
    Plan { name: "exercise-3", drawing: DRAWING, build: single },
    Plan { name: "exercise-4", drawing: DRAWING, build: single },
    Plan { name: "exercise-5", drawing: DRAWING, build: single },
    Plan { name: "exercise-6", drawing: DRAWING, build: two_ipv4 },
    Plan { name: "exercise-7", drawing: DRAWING, build: both_families },
];

const CORE: IpAddr = v4(198, 51, 100, 254);
const CORE6: IpAddr = v6(0xc0, 0x254);
const MS: IpAddr = v4(198, 51, 100, 2);
/// The gateway.
pub(super) const PXTR: IpAddr = v4(198, 51, 100, 1);
const MS6: IpAddr = v6(0xc0, 2);
const PXTR6: IpAddr = v6(0xc0, 1);
/// Site 1's locator.
pub(super) const XTR_1: IpAddr = v4(198, 51, 100, 11);
/// Site 1's locator of the other family, in exercise 7.
pub(super) const XTR_1_6: IpAddr = v6(0xc0, 0x11);
/// Site 2's locator at provider P.
pub(super) const P: IpAddr = v4(198, 51, 100, 21);
/// Site 2's locator at provider Q.
pub(super) const Q: IpAddr = v4(198, 51, 100, 22);
/// The same in exercise 7.
pub(super) const Q6: IpAddr = v6(0xc0, 0x22);

/// Hosts with their addresses.
pub(super) static HOSTS: [(&str, [IpAddr; 2]); 3] = [
    ("host-1", [v4(203, 0, 113, 10), v6(0xe001, 0x10)]),
    ("host-2", [v4(203, 0, 113, 74), v6(0xe002, 0x10)]),
    ("host-n", [v4(192, 0, 2, 80), v6(0xffff, 0x80)]),
];

/// Locators with their names.
type Rlocs = [(&'static str, IpAddr)];

/// Both sites have one locator, of IPv4.
const SINGLE: (&Rlocs, &Rlocs) = (&[("core", XTR_1)], &[("p", P)]);
/// Site 2 has two.
const TWO_IPV4: (&Rlocs, &Rlocs) = (&[("core", XTR_1)], &[("p", P), ("q", Q)]);
/// Site 2 has one of each family, and site 1 can reach both.
const BOTH_FAMILIES: (&Rlocs, &Rlocs) =
    (&[("core4", XTR_1), ("core6", XTR_1_6)], &[("p", P), ("q", Q6)]);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(site: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, 0, 0, 0, 0, host))
}

fn single(network: &mut Network) -> io::Result<()> {
    build(network, SINGLE)
}

fn two_ipv4(network: &mut Network) -> io::Result<()> {
    build(network, TWO_IPV4)
}

fn both_families(network: &mut Network) -> io::Result<()> {
    build(network, BOTH_FAMILIES)
}

fn build(network: &mut Network, (one, two): (&Rlocs, &Rlocs)) -> io::Result<()> {
    let core = network.core("core", CORE, CORE6)?;
    let ms = network.node("ms")?;
    network.access(&core, &ms, Access::of(&ms, "core0", &[MS, MS6]))?;
    let pxtr = network.router("pxtr")?;
    network.access(&core, &pxtr, Access::of(&pxtr, "core0", &[PXTR, PXTR6]))?;
    let host_n = network.node("host-n")?;
    let native = [(v4(192, 0, 2, 65), HOSTS[2].1[0], 26), (v6(0xffff, 1), HOSTS[2].1[1], 64)];
    network.site(&pxtr, &host_n, &native)?;
    let xtr_1 = network.router("xtr-1")?;
    network.access(&core, &xtr_1, Access::of(&xtr_1, "core0", &[XTR_1, XTR_1_6]))?;
    site(network, 0, "xtr-1", "host-1")?;
    two_providers(network, &core)?;
    site(network, 1, "xtr-2", "host-2")?;
    start(network, one, two)?;
    network.capture(core.namespace(), true)?;
    network.capture(&host_n, false)?;
    Ok(())
}

fn two_providers(network: &mut Network, core: &Core) -> io::Result<()> {
    let xtr = network.router("xtr-2")?;
    for (at_core, at_router, rlocs) in [("isp-p", "to-p", &[P][..]), ("isp-q", "to-q", &[Q, Q6])] {
        network.access_through_relay(core, &xtr, Access { at_core, at_router, rlocs })?;
    }
    Ok(())
}

fn site(
    network: &mut Network,
    number: usize,
    router: &str,
    machine: &'static str,
) -> io::Result<()> {
    let (router, host) = (network.namespace(router)?, network.node(machine)?);
    let [host4, host6] = HOSTS[number].1;
    let gateways = [(v4(203, 0, 113, 1), v6(0xe001, 1)), (v4(203, 0, 113, 65), v6(0xe002, 1))];
    let (gateway4, gateway6) = gateways[number];
    network.site(&router, &host, &[(gateway4, host4, 26), (gateway6, host6, 64)])
}

fn start(network: &mut Network, one: &Rlocs, two: &Rlocs) -> io::Result<()> {
    let keys = [network.key("1")?, network.key("2")?];
    let at = |network: &Network, name: &str| network.namespace(name);
    let ms = network.daemon("mapping", at(network, "ms")?.as_ref(), &map_server(&keys))?;
    let text = xtr("xtr-1", &keys[0], one, ["203.0.113.0/26", "2001:db8:e001::/48"]);
    network.daemon("xtr", at(network, "xtr-1")?.as_ref(), &text)?;
    let text = xtr("xtr-2", &keys[1], two, ["203.0.113.64/26", "2001:db8:e002::/48"]);
    network.daemon("xtr", at(network, "xtr-2")?.as_ref(), &text)?;
    network.daemon("gateway", at(network, "pxtr")?.as_ref(), &gateway())?;
    network.wait_for_registrations(&ms, 4)
}

fn map_server([one, two]: &[String; 2]) -> String {
    let site = |name: &str, key: &str, prefixes: [&str; 2]| {
        format!(
            "\n[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key}\" }}]\neid-prefixes = {prefixes:?}\n"
        )
    };
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{MS}\", \"{MS6}\"]\n{}{}",
        site("1", one, ["203.0.113.0/26", "2001:db8:e001::/48"]),
        site("2", two, ["203.0.113.64/26", "2001:db8:e002::/48"]),
    )
}

fn xtr(name: &str, key: &str, rlocs: &Rlocs, prefixes: [&str; 2]) -> String {
    // Who has both families has to be able to ask and register by either.
    let both = rlocs.iter().any(|(_, rloc)| rloc.is_ipv6());
    let servers: Vec<IpAddr> = [MS, MS6].into_iter().filter(|ms| both || ms.is_ipv4()).collect();
    let map_servers: Vec<_> = servers
        .iter()
        .map(|ms| format!("{{ address = \"{ms}\", key-id = 1, key-file = \"{key}\" }}"))
        .collect();
    let map_resolvers: Vec<_> = servers.iter().map(|ms| format!("\"{ms}\"")).collect();
    let mut text = format!(
        "[xtr]\nname = \"{name}\"\n\
         map-servers = [{}]\n\
         map-resolvers = [{}]\n\
         use-petr = [{{ address = \"{PXTR}\" }}]\n\
         probe = {{ interval = \"1s\", idle-interval = \"1s\" }}\n\
         tun = {{ queues = 1 }}\n\n[xtr.rlocs]\n",
        map_servers.join(", "),
        map_resolvers.join(", ")
    );
    let weight = 100 / rlocs.len().max(1);
    for (name, rloc) in rlocs {
        text += &format!("{name} = {{ address = \"{rloc}\", priority = 1, weight = {weight} }}\n");
    }
    for prefix in prefixes {
        text += &format!("\n[[eid]]\nprefix = \"{prefix}\"\ninterfaces = [\"{SITE_LINK}\"]\n");
    }
    text
}

fn gateway() -> String {
    let eids = ["203.0.113.0/24", "2001:db8:e000::/36"];
    format!(
        "[gateway]\nname = \"pxtr\"\nrlocs = [\"{PXTR}\", \"{PXTR6}\"]\nmap-resolvers = [\"{MS}\"]\n\
         probe = {{ interval = \"1s\", idle-interval = \"1s\" }}\n\
         tun = {{ queues = 1 }}\n\n\
         [pitr]\neid-aggregates = {eids:?}\nannounce = {{ drain = \"0s\" }}\n\n\
         [petr]\naccept-from = {{ rlocs = [\"198.51.100.0/24\", \"2001:db8:c0::/48\"], eids = {eids:?} }}\n"
    )
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
        let prefixes = ["203.0.113.64/26", "2001:db8:e002::/48"];
        let mut texts = vec![map_server(&[key.clone(), key.clone()]), gateway()];
        for (one, two) in [SINGLE, TWO_IPV4, BOTH_FAMILIES] {
            texts.push(xtr("xtr-1", &key, one, prefixes));
            texts.push(xtr("xtr-2", &key, two, prefixes));
        }
        for text in texts {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }
}
