//! Every address of the lab: documentation prefixes, present in the lab's own namespaces only.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// The native aggregates that stand for all EIDs.
pub(crate) const EID_AGGREGATES: [&str; 2] = ["2001:db8:e000::/36", "203.0.113.0/24"];

/// All RLOCs of the IPv4 and of the IPv6 core.
pub(crate) const RLOC_RANGES: [&str; 2] = ["198.51.100.0/24", "2001:db8:c0::/48"];

/// The core routers themselves.
pub(crate) const CORE4: IpAddr = core4(254);
/// The gateway on all IPv6 core links.
pub(crate) const CORE6_LINK_LOCAL: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The core router of the IPv6 core.
pub(crate) const CORE6: IpAddr = core6(0x254);

/// The proxy gateway's locators.
pub(crate) const PXTR4: IpAddr = core4(1);
/// See [`PXTR4`].
pub(crate) const PXTR6: IpAddr = core6(1);
/// The Map-Server and Map-Resolver.
pub(crate) const MS4: IpAddr = core4(2);
/// See [`MS4`].
pub(crate) const MS6: IpAddr = core6(2);

/// Locators of the four sites.
pub(crate) const XTR_A: IpAddr = core4(11);
/// See [`XTR_A`].
pub(crate) const XTR_B: IpAddr = core4(12);
/// See [`XTR_A`].
pub(crate) const XTR_C: IpAddr = core6(0x13);
/// See [`XTR_A`].
pub(crate) const XTR_D: IpAddr = core6(0x14);

/// The proxy gateway's native legs.
pub(crate) const PXTR_NATIVE6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 1));
/// See [`PXTR_NATIVE6`].
pub(crate) const PXTR_NATIVE4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
/// The Internet router's side of these legs.
pub(crate) const INTERNET6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, 2));
/// See [`INTERNET6`].
pub(crate) const INTERNET4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2));
/// The Internet router's side towards host N.
pub(crate) const N_GATEWAY6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));
/// See [`N_GATEWAY6`].
pub(crate) const N_GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 65));
/// Host N, which knows nothing of LISP.
pub(crate) const HOST_N6: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0x80));
/// See [`HOST_N6`].
pub(crate) const HOST_N4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 80));
/// Also host N: an address in no site's prefix and near no other.
pub(crate) const HOST_DEAD: IpAddr =
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 1));

/// How many consecutive addresses per family a site's host answers on, so that one path MTU
/// learned for one of them does not disturb the next measurement.
pub(crate) const HOST_ADDRESSES: u8 = 10;

/// A LISP site: its xTR, its EIDs and its host.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Site {
    /// The site's letter.
    pub(crate) name: &'static str,
    /// The xTR's locator.
    pub(crate) rloc: IpAddr,
    /// Third hextet of the IPv6 EID-prefix (/48).
    hextet: u16,
    /// First host number of the IPv4 EID-prefix (/26).
    block: u8,
}

/// The sites A, B (behind the IPv4 core), C6 and D6 (behind the IPv6 core).
pub(crate) const SITES: [Site; 4] = [
    Site { name: "a", rloc: XTR_A, hextet: 0xe001, block: 0 },
    Site { name: "b", rloc: XTR_B, hextet: 0xe002, block: 64 },
    Site { name: "c", rloc: XTR_C, hextet: 0xe003, block: 128 },
    Site { name: "d", rloc: XTR_D, hextet: 0xe004, block: 192 },
];

/// Site A.
pub(crate) const SITE_A: &Site = &SITES[0];
/// Site B.
pub(crate) const SITE_B: &Site = &SITES[1];
/// Site C6.
pub(crate) const SITE_C: &Site = &SITES[2];
/// Site D6.
pub(crate) const SITE_D: &Site = &SITES[3];

/// A locator that site A moves to in scenario P1.
pub(crate) const XTR_A_MOVED: IpAddr = core4(111);

impl Site {
    /// The same site with another locator.
    pub(crate) const fn moved_to(self, rloc: IpAddr) -> Self {
        Self { rloc, ..self }
    }

    /// The IPv6 EID-prefix.
    pub(crate) fn prefix6(&self) -> IpNet {
        net(IpAddr::V6(self.v6(0)), 48)
    }

    /// The IPv4 EID-prefix.
    pub(crate) fn prefix4(&self) -> IpNet {
        net(IpAddr::V4(self.v4(0)), 26)
    }

    /// The xTR's address on the site's link.
    pub(crate) fn gateway6(&self) -> IpAddr {
        IpAddr::V6(self.v6(1))
    }

    /// See [`Site::gateway6`].
    pub(crate) fn gateway4(&self) -> IpAddr {
        IpAddr::V4(self.v4(1))
    }

    /// The host's `n`th IPv6 address, from 0 to [`HOST_ADDRESSES`] - 1.
    pub(crate) fn host6(&self, n: u8) -> IpAddr {
        IpAddr::V6(self.v6(0x10 + u16::from(n)))
    }

    /// The host's `n`th IPv4 address, from 0 to [`HOST_ADDRESSES`] - 1.
    pub(crate) fn host4(&self, n: u8) -> IpAddr {
        IpAddr::V4(self.v4(10 + n))
    }

    fn v6(&self, last: u16) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.hextet, 0, 0, 0, 0, last)
    }

    fn v4(&self, last: u8) -> Ipv4Addr {
        Ipv4Addr::new(203, 0, 113, self.block + last)
    }
}

/// Site M's locator-sets, one per EID-prefix: priority and weight of each locator.
pub(crate) const M_POLICIES: [&[(u8, u8)]; 4] = [
    &[(1, 50), (1, 50)],
    &[(1, 70), (1, 30)],
    &[(1, 30), (1, 20), (1, 20), (1, 10)],
    &[(1, 100), (2, 100)],
];

/// EID-prefixes of all sites together, as many as are registered when all is well.
pub(crate) const EID_PREFIXES: usize = 2 * SITES.len() + M_POLICIES.len();

/// The locators of site M's `policy`th EID-prefix.
pub(crate) fn m_rlocs(policy: usize) -> Vec<IpAddr> {
    let before: usize = M_POLICIES[..policy].iter().map(|set| set.len()).sum();
    (before..before + M_POLICIES[policy].len()).map(|n| core4(21 + n as u8)).collect()
}

/// Site M's `policy`th EID-prefix.
pub(crate) fn m_prefix(policy: usize) -> IpNet {
    net(m_address(policy, 0), 64)
}

/// The xTR's address in it.
pub(crate) fn m_gateway(policy: usize) -> IpAddr {
    m_address(policy, 1)
}

/// The host's address in it.
pub(crate) fn m_host(policy: usize) -> IpAddr {
    m_address(policy, 0x10)
}

fn m_address(policy: usize, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xe007, 1 + policy as u16, 0, 0, 0, last))
}

/// The root of the tree in scenario D1.
pub(crate) const ORG_ROOT: IpAddr = core4(31);

/// An organisation with a Map-Server of its own and one site, in scenario D1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Organisation {
    /// Its name, and that of its site.
    pub(crate) name: &'static str,
    /// Its Map-Server's locator.
    pub(crate) map_server: IpAddr,
    /// Its site's locator.
    pub(crate) rloc: IpAddr,
    /// The upper half of the third hextet of its EIDs.
    block: u16,
}

/// Organisation A.
pub(crate) const ORG_A: Organisation =
    Organisation { name: "org-a", map_server: core4(32), rloc: core4(41), block: 0xea00 };
/// Organisation B.
pub(crate) const ORG_B: Organisation =
    Organisation { name: "org-b", map_server: core4(33), rloc: core4(42), block: 0xeb00 };

/// A site of scenario L1, where LISP-SEC is required.
pub(crate) const SEC_A: Organisation =
    Organisation { name: "sec-a", map_server: core4(34), rloc: core4(43), block: 0xf100 };
/// The other site of scenario L1.
pub(crate) const SEC_B: Organisation =
    Organisation { name: "sec-b", map_server: core4(34), rloc: core4(44), block: 0xf200 };
/// Who answers in scenario L1 without being asked to.
pub(crate) const MALLORY: IpAddr = core4(35);

impl Organisation {
    /// What the root has delegated to it.
    pub(crate) fn block(&self) -> IpNet {
        net(self.at(0, 0), 40)
    }

    /// The EID-prefix of its site.
    pub(crate) fn prefix(&self) -> IpNet {
        net(self.at(1, 0), 48)
    }

    /// The xTR's address on the site's link.
    pub(crate) fn gateway(&self) -> IpAddr {
        self.at(1, 1)
    }

    /// The site's host.
    pub(crate) fn host(&self) -> IpAddr {
        self.at(1, 0x10)
    }

    /// An address in the `nth` /48 of its block.
    pub(crate) fn address(&self, nth: u16) -> IpAddr {
        self.at(nth, 1)
    }

    fn at(&self, nth: u16, last: u16) -> IpAddr {
        Ipv6Addr::new(0x2001, 0xdb8, self.block + nth, 0, 0, 0, 0, last).into()
    }
}

/// A prefix from an address and a length that fits its family.
pub(crate) fn net(address: IpAddr, length: u8) -> IpNet {
    match address {
        IpAddr::V4(v4) => IpNet::V4(Ipv4Net::new_assert(v4, length)),
        IpAddr::V6(v6) => IpNet::V6(Ipv6Net::new_assert(v6, length)),
    }
}

/// An address as a prefix of its own.
pub(crate) fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

const fn core4(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, last))
}

const fn core6(last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, last))
}
