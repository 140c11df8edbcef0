//! The network of the scenario, and the configuration of its routers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::network::{Access, Core, Network, Plan};
use crate::lab::topology::SITE_LINK;

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "multihoming", drawing: DRAWING, build };

const DRAWING: &str = r"
            host-r 2001:db8:e001::10         host-n 2001:db8:f::10, native
               |                                |
             xtr-r  198.51.100.11             pitr  198.51.100.1
               |    2001:db8:c0::11             |
     ==========+============= core =============+===================== ms 198.51.100.2
                |            |             |            |
              ISP-P        ISP-Q           |            |
              10 ms        30 ms           |            |
                |            |          xtr-w1       xtr-w2
     198.51.100.21..27  203.0.113.249..253  198.51.100.31  198.51.100.32
     2001:db8:c0::21         |             |            |
                +-- xtr-m ---+             +-- host-w --+  2001:db8:e008::10
                      |
                   host-m  2001:db8:e007:1::10 to :4::10
";

/// One way through ISP-P.
pub(super) const DELAY_P: Duration = Duration::from_millis(10);
/// One way through ISP-Q.
pub(super) const DELAY_Q: Duration = Duration::from_millis(30);

const CORE: IpAddr = v4(198, 51, 100, 254);
const CORE6: IpAddr = v6(0xc0, 0, 0x254);
const MS: IpAddr = v4(198, 51, 100, 2);
const PITR: IpAddr = v4(198, 51, 100, 1);
const XTR_R: [IpAddr; 2] = [v4(198, 51, 100, 11), v6(0xc0, 0, 0x11)];
/// The locators of xtr-w1 and xtr-w2.
pub(super) const W: [IpAddr; 2] = [v4(198, 51, 100, 31), v4(198, 51, 100, 32)];

/// The locators that the policy of which changes: one at each provider.
pub(super) const P: IpAddr = v4(198, 51, 100, 21);
/// See [`P`].
pub(super) const Q: IpAddr = v4(203, 0, 113, 250);
/// Four with fixed weights.
pub(super) const FOUR: [(IpAddr, u8); 4] = [
    (v4(198, 51, 100, 23), 30),
    (v4(198, 51, 100, 24), 20),
    (v4(203, 0, 113, 252), 20),
    (v4(203, 0, 113, 253), 10),
];
/// One of each family.
pub(super) const MIXED: [IpAddr; 2] = [v4(198, 51, 100, 25), v6(0xc0, 0, 0x21)];
/// One of weight 0, one of weight 50, one of priority 255.
pub(super) const UNUSED: [IpAddr; 3] =
    [v4(198, 51, 100, 26), v4(203, 0, 113, 249), v4(198, 51, 100, 27)];

/// The remote site's host.
pub(super) const HOST_R: IpAddr = v6(0xe001, 0, 0x10);
/// A host that knows nothing of LISP.
pub(super) const HOST_N: IpAddr = v6(0xf, 0, 0x10);
/// The host of the site with two routers.
pub(super) const HOST_W: IpAddr = v6(0xe008, 0, 0x10);

/// The host's address in site M's EID-prefix number `n`, from 1.
pub(super) const fn host_m(n: u16) -> IpAddr {
    v6(0xe007, n, 0x10)
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(site: u16, subnet: u16, host: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, subnet, 0, 0, 0, host))
}

/// Priority and weight of [`P`] and [`Q`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) p: (u8, u8),
    pub(super) q: (u8, u8),
}

/// What the PITR attracts.
pub(super) const EID_AGGREGATE: &str = "2001:db8:e000::/36";

/// How it begins.
pub(super) const HALVES: Policy = Policy { p: (1, 50), q: (1, 50) };

fn build(network: &mut Network) -> io::Result<()> {
    let core = network.core("core", CORE, CORE6)?;
    let ms = network.node("ms")?;
    network.access(&core, &ms, Access::of(&ms, "core0", &[MS]))?;
    let xtr_r = network.router("xtr-r")?;
    network.access(&core, &xtr_r, Access::of(&xtr_r, "core0", &XTR_R))?;
    let host_r = network.node("host-r")?;
    network.site(&xtr_r, &host_r, &[(v6(0xe001, 0, 1), HOST_R, 64)])?;
    let pitr = network.router("pitr")?;
    network.access(&core, &pitr, Access::of(&pitr, "core0", &[PITR]))?;
    let host_n = network.node("host-n")?;
    network.site(&pitr, &host_n, &[(v6(0xf, 0, 1), HOST_N, 64)])?;
    site_m(network, &core)?;
    site_w(network, &core)?;
    start(network)?;
    network.capture(core.namespace(), true)?;
    Ok(())
}

fn site_m(network: &mut Network, core: &Core) -> io::Result<()> {
    let xtr = network.router("xtr-m")?;
    let at_q = |rloc: &IpAddr| matches!(rloc, IpAddr::V4(v4) if v4.octets()[0] == 203);
    let mut rlocs = vec![P, Q];
    rlocs.extend(FOUR.map(|(rloc, _)| rloc));
    rlocs.extend(MIXED);
    rlocs.extend(UNUSED);
    let (q, p): (Vec<IpAddr>, Vec<IpAddr>) = rlocs.into_iter().partition(at_q);
    let isp_p = Access { at_core: "m-p", at_router: "isp-p", rlocs: &p };
    network.access_through_relay(core, &xtr, isp_p)?.delay(DELAY_P);
    let isp_q = Access { at_core: "m-q", at_router: "isp-q", rlocs: &q };
    network.access_through_relay(core, &xtr, isp_q)?.delay(DELAY_Q);
    let host = network.node("host-m")?;
    let subnets = [1, 2, 3, 4, 5].map(|n| (v6(0xe007, n, 1), host_m(n), 64));
    network.site(&xtr, &host, &subnets)
}

/// Two routers, one host with a link to each.
fn site_w(network: &mut Network, core: &Core) -> io::Result<()> {
    let (xtr_1, xtr_2) = (network.router("xtr-w1")?, network.router("xtr-w2")?);
    let host = network.node("host-w")?;
    for (xtr, rloc) in [(&xtr_1, W[0]), (&xtr_2, W[1])] {
        network.access(core, xtr, Access::of(xtr, "core0", &[rloc]))?;
    }
    network.site(&xtr_1, &host, &[(v6(0xe008, 0, 1), HOST_W, 64)])?;
    second_link(&xtr_2, &host)
}

fn second_link(router: &Namespace, machine: &Namespace) -> io::Result<()> {
    const ETH1: &str = "eth1";
    link::connect(1500, (router, SITE_LINK), (machine, ETH1))?;
    link::up(router, SITE_LINK)?;
    link::up(machine, ETH1)?;
    link::address(router, SITE_LINK, crate::lab::addresses::net(v6(0xe008, 0, 2), 64))?;
    link::address(machine, ETH1, crate::lab::addresses::net(HOST_W, 128))
}

fn start(network: &mut Network) -> io::Result<()> {
    let keys = [network.key("r")?, network.key("m")?, network.key("w")?, network.key("pitr")?];
    let at = |network: &Network, name: &str| network.namespace(name);
    let ms = network.daemon("mapping", at(network, "ms")?.as_ref(), &map_server(&keys))?;
    let xtr_r = site_xtr("xtr-r", &keys[0], &XTR_R, "2001:db8:e001::/48", "");
    network.daemon("xtr", at(network, "xtr-r")?.as_ref(), &xtr_r)?;
    network.daemon("xtr", at(network, "xtr-m")?.as_ref(), &xtr_m(&keys[1], HALVES))?;
    for (name, rloc, id) in [("xtr-w1", W[0], "a1"), ("xtr-w2", W[1], "a2")] {
        let merging = format!("merge = true\nxtr-id = \"{id}\"\nsite-id = 8\n");
        let text = site_xtr(name, &keys[2], &[rloc], "2001:db8:e008::/48", &merging);
        network.daemon("xtr", at(network, name)?.as_ref(), &text)?;
    }
    network.daemon(
        "gateway",
        at(network, "pitr")?.as_ref(),
        &gateway(&keys[3], &[EID_AGGREGATE]),
    )?;
    // Four of site M, one of each other site, where the Map-Server merges what two routers register.
    network.wait_for_registrations(&ms, 6)
}

fn map_server([r, m, w, pitr]: &[String; 4]) -> String {
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n\n\
         [[site]]\nname = \"r\"\nkeys = [{{ id = 1, file = \"{r}\" }}]\neid-prefixes = [\"2001:db8:e001::/48\"]\n\n\
         [[site]]\nname = \"m\"\nkeys = [{{ id = 1, file = \"{m}\" }}]\n\
         eid-prefixes = [{{ prefix = \"2001:db8:e007::/48\", accept-more-specifics = true }}]\n\n\
         [[site]]\nname = \"w\"\nsite-id = 8\nkeys = [{{ id = 1, file = \"{w}\" }}]\neid-prefixes = [\"2001:db8:e008::/48\"]\n\n\
         [[subscriber]]\nname = \"pitr\"\nsite-id = 100\nkey-id = 1\nkey-file = \"{pitr}\"\nallowed-locators = [\"{PITR}/32\"]\n"
    )
}

fn site_xtr(name: &str, key: &str, rlocs: &[IpAddr], prefix: &str, more: &str) -> String {
    let rlocs: Vec<_> = rlocs
        .iter()
        .enumerate()
        .map(|(n, rloc)| format!("r{n} = {{ address = \"{rloc}\", priority = 1, weight = 50 }}"))
        .collect();
    format!(
        "[xtr]\nname = \"{name}\"\nrlocs = {{ {} }}\n{}{more}\n\
         [[eid]]\nprefix = \"{prefix}\"\ninterfaces = [\"{SITE_LINK}\"]\n",
        rlocs.join(", "),
        common(key)
    )
}

fn common(key: &str) -> String {
    format!(
        "map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{key}\" }}]\n\
         map-resolvers = [\"{MS}\"]\nregistration-interval = \"10s\"\ntun = {{ queues = 1 }}\n"
    )
}

/// Site M's xTR with this policy for its first EID-prefix, and with that one's locators for a fifth.
pub(super) fn xtr_m_with_fifth(key: &str, policy: Policy) -> String {
    xtr_m(key, policy)
        + &format!(
            "\n[[eid]]\nprefix = \"2001:db8:e007:5::/64\"\nlocator-set = [\"p\", \"q\"]\ninterfaces = [\"{SITE_LINK}\"]\n"
        )
}

/// Site M's xTR with this policy for its first EID-prefix.
pub(super) fn xtr_m(key: &str, policy: Policy) -> String {
    let one = |name: &str, rloc: IpAddr, (priority, weight): (u8, u8)| {
        let multicast = if name == "p" { ", mpriority = 7, mweight = 8" } else { "" };
        format!(
            "{name} = {{ address = \"{rloc}\", priority = {priority}, weight = {weight}{multicast} }}"
        )
    };
    let mut rlocs = vec![one("p", P, policy.p), one("q", Q, policy.q)];
    let four = FOUR.iter().enumerate();
    rlocs.extend(four.map(|(n, (rloc, weight))| one(&format!("f{n}"), *rloc, (1, *weight))));
    rlocs.extend(MIXED.iter().enumerate().map(|(n, rloc)| one(&format!("x{n}"), *rloc, (1, 50))));
    for (n, policy) in [(1, 0), (1, 50), (255, 50)].into_iter().enumerate() {
        rlocs.push(one(&format!("u{n}"), UNUSED[n], policy));
    }
    let sets = [
        "[\"p\", \"q\"]",
        "[\"f0\", \"f1\", \"f2\", \"f3\"]",
        "[\"x0\", \"x1\"]",
        "[\"u0\", \"u1\", \"u2\"]",
    ];
    let mut text =
        format!("[xtr]\nname = \"xtr-m\"\nrlocs = {{ {} }}\n{}", rlocs.join(", "), common(key));
    for (n, set) in (1..).zip(sets) {
        text.push_str(&format!(
            "\n[[eid]]\nprefix = \"2001:db8:e007:{n}::/64\"\nlocator-set = {set}\ninterfaces = [\"{SITE_LINK}\"]\n"
        ));
    }
    text
}

/// The PITR is told of changes because it subscribes: nothing is ever sent to it that could solicit it.
pub(super) fn gateway(key: &str, aggregates: &[&str]) -> String {
    format!(
        "[gateway]\nname = \"pitr\"\nrlocs = [\"{PITR}\"]\nmap-resolvers = [\"{MS}\"]\ntun = {{ queues = 1 }}\n\
         xtr-id = \"b0de\"\nsite-id = 100\nsubscribe = {{ key-id = 1, key-file = \"{key}\" }}\n\n\
         [pitr]\neid-aggregates = {aggregates:?}\nannounce = {{ drain = \"0s\" }}\n"
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
        let merging = "merge = true\nxtr-id = \"a1\"\nsite-id = 8\n";
        for text in [
            map_server(&keys),
            xtr_m_with_fifth(&key, HALVES),
            gateway(&key, &[EID_AGGREGATE, "192.0.2.0/24"]),
            site_xtr("w", &key, &W[..1], "2001:db8:e008::/48", merging),
        ] {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }
}
