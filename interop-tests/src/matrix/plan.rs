//! Who plays which role, and every address.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::peers::Program;

/// The blocks of all EIDs.
pub const EID_AGGREGATES: [&str; 2] = ["203.0.113.0/24", "2001:db8:e000::/36"];
/// The blocks of all RLOCs.
pub const RLOC_RANGES: [&str; 2] = ["198.51.100.0/24", "2001:db8:c0::/48"];

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// That of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `first` for IPv4, `second` for IPv6.
    pub fn pick<T>(self, first: T, second: T) -> T {
        match self {
            Self::V4 => first,
            Self::V6 => second,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.pick("IPv4", "IPv6"))
    }
}

/// What a machine of the network does. A site has its number: 1 or 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Map-Server and Map-Resolver.
    Mapping,
    /// ITR and ETR of a site.
    Site(u8),
    /// PITR and PETR.
    Proxy,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapping => f.write_str("ms"),
            Self::Site(number) => write!(f, "site {number}"),
            Self::Proxy => f.write_str("non-LISP host"),
        }
    }
}

/// A network.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The family of the core.
    pub core: Family,
    /// Who is Map-Server and Map-Resolver.
    pub mapping: Program,
    /// Who is tunnel router of site 1 and of site 2; a network need not have the second.
    pub sites: [Option<Program>; 2],
    /// Who is PITR and PETR, if there is one.
    pub proxy: Option<Program>,
    /// A site of ours that has two RLOCs, so that it can move from one to the other.
    pub mover: Option<Role>,
    /// How sites of lispers.net register.
    pub lispers: Lispers,
}

/// What Map-Registers of lispers.net have that RFC 9301 does not ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lispers {
    /// Nothing.
    #[default]
    Plain,
    /// Locators with a name and geo-coordinates, in an AFI list.
    Named,
    /// Locators with the telemetry of draft-farinacci-lisp-telemetry, which RLOC-probes then carry too.
    Telemetry,
    /// They are encrypted.
    Encrypted,
}

impl Plan {
    /// Every role that is played, in the order in which they start, with who plays it.
    pub fn roles(&self) -> Vec<(Role, Program)> {
        let sites = self.sites.iter().zip([Role::Site(1), Role::Site(2)]);
        let sites = sites.filter_map(|(program, role)| Some((role, (*program)?)));
        let proxy = self.proxy.map(|program| (Role::Proxy, program));
        [(Role::Mapping, self.mapping)].into_iter().chain(proxy).chain(sites).collect()
    }

    /// The sites, with who serves them.
    pub fn played_sites(&self) -> Vec<(Role, Program)> {
        self.roles().into_iter().filter(|(role, _)| matches!(role, Role::Site(_))).collect()
    }

    /// The sites that the Map-Server takes.
    pub fn registered_sites(&self) -> Vec<(Role, Program)> {
        let refused =
            |program| program == Program::LispersNet && self.lispers == Lispers::Encrypted;
        self.played_sites().into_iter().filter(|&(_, program)| !refused(program)).collect()
    }

    /// Whether every tunnel router answers RLOC-probes in this core.
    pub fn probes_are_answered(&self) -> bool {
        let routers = self.roles().into_iter().filter(|&(role, _)| role != Role::Mapping);
        routers.map(|(_, program)| program).all(|program| program.answers_probes(self.core))
    }

    /// For the table: `ROLE=NAME` of everybody.
    pub fn cast(&self) -> String {
        let named = |(role, program): (Role, Program)| match role {
            Role::Mapping => format!("ms={program}"),
            Role::Site(number) => format!("xtr{number}={program}"),
            Role::Proxy => format!("pxtr={program}"),
        };
        self.roles().into_iter().map(named).collect::<Vec<_>>().join(" ")
    }

    /// The address of a role in the core.
    pub fn rloc(&self, role: Role) -> IpAddr {
        self.in_core(role, 2)
    }

    /// Where it may move to.
    pub fn moved_rloc(&self, role: Role) -> IpAddr {
        self.in_core(role, 3)
    }

    /// Whether it is an address of a role in the core, now or after a move: a router with two sends from either, and
    /// OOR's flows keep the one they began with.
    pub fn has_rloc(&self, role: Role, address: IpAddr) -> bool {
        address == self.rloc(role) || address == self.moved_rloc(role)
    }

    /// The core's address on the link of a role.
    pub fn core_gateway(&self, role: Role) -> IpAddr {
        self.in_core(role, 1)
    }

    /// The prefix length of that link.
    pub fn core_length(&self) -> u8 {
        self.core.pick(28, 64)
    }

    /// The EID-prefixes of a site, or the native networks of the proxy.
    pub fn network(&self, role: Role, family: Family) -> IpNet {
        let length = match (role, family) {
            (Role::Site(_), Family::V4) => 26,
            (_, Family::V4) => 24,
            (_, Family::V6) => 64,
        };
        IpNet::new(local(role, family, 0), length).map(|net| net.trunc()).unwrap_or_default()
    }

    /// The address that the role's machine has there.
    pub fn gateway(&self, role: Role, family: Family) -> IpAddr {
        local(role, family, 1)
    }

    /// The host there.
    pub fn host(&self, role: Role, family: Family) -> IpAddr {
        local(role, family, 10)
    }

    /// Why somebody who plays here cannot carry `inner` through this core, if that is known.
    pub fn limitation(&self, inner: Family) -> Option<&'static str> {
        let roles = self.roles();
        roles.into_iter().find_map(|(role, program)| program.limitation(self, role, inner))
    }

    /// Whether it is an EID.
    pub fn is_eid(&self, address: IpAddr) -> bool {
        let aggregates = EID_AGGREGATES.iter().filter_map(|text| text.parse::<IpNet>().ok());
        aggregates.into_iter().any(|aggregate| aggregate.contains(&address))
    }

    fn in_core(&self, role: Role, last: u8) -> IpAddr {
        let link = match role {
            Role::Mapping => 1,
            Role::Site(number) => 1 + number,
            Role::Proxy => 4,
        };
        match self.core {
            Family::V4 => Ipv4Addr::new(198, 51, 100, 16 * link + last).into(),
            Family::V6 => {
                Ipv6Addr::new(0x2001, 0xdb8, 0xc0, link.into(), 0, 0, 0, last.into()).into()
            }
        }
    }
}

fn local(role: Role, family: Family, last: u8) -> IpAddr {
    match (role, family) {
        (Role::Site(number), Family::V4) => {
            Ipv4Addr::new(203, 0, 113, 64 * (number - 1) + last).into()
        }
        (Role::Site(number), Family::V6) => {
            let third = 0xe000 + u16::from(number);
            Ipv6Addr::new(0x2001, 0xdb8, third, 0, 0, 0, 0, last.into()).into()
        }
        (_, Family::V4) => Ipv4Addr::new(192, 0, 2, last).into(),
        (_, Family::V6) => Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, last.into()).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_an_eid_is_no_rloc_and_no_native_address() {
        let plan = Plan {
            core: Family::V6,
            mapping: Program::Isthmus,
            sites: [Some(Program::Isthmus); 2],
            proxy: Some(Program::Isthmus),
            mover: None,
            lispers: Lispers::Plain,
        };
        for family in Family::BOTH {
            for role in [Role::Site(1), Role::Site(2)] {
                assert!(plan.is_eid(plan.host(role, family)));
                assert!(plan.network(role, family).contains(&plan.gateway(role, family)));
            }
            assert!(!plan.is_eid(plan.host(Role::Proxy, family)));
            assert!(!plan.is_eid(Plan { core: family, ..plan }.rloc(Role::Site(2))));
        }
        assert_eq!(plan.cast(), "ms=isthmus pxtr=isthmus xtr1=isthmus xtr2=isthmus");
    }
}
