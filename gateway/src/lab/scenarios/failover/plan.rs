//! The network of the scenario, and the configuration of its routers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::lab::network::{Access, Core, Network, Plan};
use crate::lab::topology::SITE_LINK;

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "failover", drawing: DRAWING, build };

const DRAWING: &str = r"
   host-r 2001:db8:e001::10   host-f 2001:db8:e002::10   host-n 2001:db8:f::10, native
      |                          |                          |
    xtr-r 198.51.100.11        xtr-f 198.51.100.12        pitr 198.51.100.1
      |   probes every 1 s       |   every 100 ms           |   every 1 s
   ===+==========================+========= core ===========+======= ms 198.51.100.2
                                    |               |
                                  ISP-P 10 ms     ISP-Q 30 ms
                                    |               |
                       198.51.100.21 +--- xtr-m ---+ 203.0.113.250, the backup
                                            |
                                          host-m 2001:db8:e007::10
";

/// One way through ISP-P.
pub(super) const DELAY_P: Duration = Duration::from_millis(10);
/// One way through ISP-Q.
pub(super) const DELAY_Q: Duration = Duration::from_millis(30);

/// The router between all of them.
pub(super) const CORE: IpAddr = v4(198, 51, 100, 254);
const CORE6: IpAddr = v6(0xc0, 0x254);
const MS: IpAddr = v4(198, 51, 100, 2);
const PITR: IpAddr = v4(198, 51, 100, 1);
/// The locator of site R.
pub(super) const XTR_R: IpAddr = v4(198, 51, 100, 11);
const XTR_F: IpAddr = v4(198, 51, 100, 12);
/// Site M's locator at ISP-P: active.
pub(super) const P: IpAddr = v4(198, 51, 100, 21);
/// Site M's locator at ISP-Q: backup.
pub(super) const Q: IpAddr = v4(203, 0, 113, 250);
/// The hosts.
pub(super) const HOST_R: IpAddr = v6(0xe001, 0x10);
/// See [`HOST_R`].
pub(super) const HOST_F: IpAddr = v6(0xe002, 0x10);
/// See [`HOST_R`].
pub(super) const HOST_M: IpAddr = v6(0xe007, 0x10);
/// A host that knows nothing of LISP.
pub(super) const HOST_N: IpAddr = v6(0xf, 0x10);

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
    for (names, rloc, gateway, host) in [
        (("xtr-r", "host-r"), XTR_R, v6(0xe001, 1), HOST_R),
        (("xtr-f", "host-f"), XTR_F, v6(0xe002, 1), HOST_F),
        (("pitr", "host-n"), PITR, v6(0xf, 1), HOST_N),
    ] {
        let router = network.router(names.0)?;
        network.access(&core, &router, Access::of(&router, "core0", &[rloc]))?;
        let machine = network.node(names.1)?;
        network.site(&router, &machine, &[(gateway, host, 64)])?;
    }
    site_m(network, &core)?;
    start(network)?;
    network.capture(core.namespace(), true)?;
    Ok(())
}

fn site_m(network: &mut Network, core: &Core) -> io::Result<()> {
    let xtr = network.router("xtr-m")?;
    for (at_core, at_router, rloc, delay) in
        [("m-p", "isp-p", P, DELAY_P), ("m-q", "isp-q", Q, DELAY_Q)]
    {
        let access = Access { at_core, at_router, rlocs: &[rloc] };
        network.access_through_relay(core, &xtr, access)?.delay(delay);
    }
    let host = network.node("host-m")?;
    network.site(&xtr, &host, &[(v6(0xe007, 1), HOST_M, 64)])
}

fn start(network: &mut Network) -> io::Result<()> {
    let keys = [network.key("r")?, network.key("f")?, network.key("m")?, network.key("pitr")?];
    let at = |network: &Network, name: &str| network.namespace(name);
    let ms = network.daemon("mapping", at(network, "ms")?.as_ref(), &map_server(&keys))?;
    for (name, text) in [
        ("xtr-r", site_xtr("xtr-r", &keys[0], "2001:db8:e001::/48", &[("core", XTR_R, 1)], "1s")),
        (
            "xtr-f",
            site_xtr("xtr-f", &keys[1], "2001:db8:e002::/48", &[("core", XTR_F, 1)], "100ms"),
        ),
        (
            "xtr-m",
            site_xtr("xtr-m", &keys[2], "2001:db8:e007::/48", &[("p", P, 1), ("q", Q, 2)], "1s"),
        ),
    ] {
        network.daemon("xtr", at(network, name)?.as_ref(), &text)?;
    }
    network.daemon("gateway", at(network, "pitr")?.as_ref(), &gateway(&keys[3]))?;
    network.wait_for_registrations(&ms, 3)
}

fn map_server([r, f, m, pitr]: &[String; 4]) -> String {
    let site = |name: &str, key: &str, prefix: &str| {
        format!(
            "[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key}\" }}]\neid-prefixes = [\"{prefix}\"]\n\n"
        )
    };
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n\n{}{}{}\
         [[subscriber]]\nname = \"pitr\"\nsite-id = 100\nkey-id = 1\nkey-file = \"{pitr}\"\nallowed-locators = [\"{PITR}/32\"]\n",
        site("r", r, "2001:db8:e001::/48"),
        site("f", f, "2001:db8:e002::/48"),
        site("m", m, "2001:db8:e007::/48"),
    )
}

/// An xTR with these locators (name, address, priority) that probes this often what carries traffic.
fn site_xtr(
    name: &str,
    key: &str,
    prefix: &str,
    rlocs: &[(&str, IpAddr, u8)],
    probe: &str,
) -> String {
    let rlocs: Vec<_> = rlocs
        .iter()
        .map(|(name, rloc, priority)| {
            format!("{name} = {{ address = \"{rloc}\", priority = {priority}, weight = 100 }}")
        })
        .collect();
    format!(
        "[xtr]\nname = \"{name}\"\nrlocs = {{ {} }}\n\
         map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{key}\" }}]\nmap-resolvers = [\"{MS}\"]\n\
         probe = {{ interval = \"{probe}\" }}\ntun = {{ queues = 1 }}\n\n\
         [[eid]]\nprefix = \"{prefix}\"\ninterfaces = [\"{SITE_LINK}\"]\n",
        rlocs.join(", ")
    )
}

/// The PITR is told of changes because it subscribes: nothing is ever sent to it that could solicit it.
fn gateway(key: &str) -> String {
    format!(
        "[gateway]\nname = \"pitr\"\nrlocs = [\"{PITR}\"]\nmap-resolvers = [\"{MS}\"]\ntun = {{ queues = 1 }}\n\
         probe = {{ interval = \"1s\" }}\n\
         xtr-id = \"b0de\"\nsite-id = 100\nsubscribe = {{ key-id = 1, key-file = \"{key}\" }}\n\n\
         [pitr]\neid-aggregates = [\"2001:db8:e000::/36\"]\nannounce = {{ drain = \"0s\" }}\n"
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
        let keys = [(); 4].map(|()| key.clone());
        let rlocs = [("p", P, 1), ("q", Q, 2)];
        for text in [
            map_server(&keys),
            gateway(&key),
            site_xtr("m", &key, "2001:db8:e007::/48", &rlocs, "100ms"),
        ] {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }
}
