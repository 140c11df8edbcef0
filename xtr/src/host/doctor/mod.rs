//! The self-diagnosis: what of this host keeps a daemon from doing its work, what that means, and the command that mends it.
//!
//! [`collect`] looks; [`findings`] is pure: facts in, findings out. `isthmus doctor` prints them, and a daemon that starts logs them.
use serde::Serialize;
use std::fmt;
use std::net::IpAddr;

mod collect;
mod judge;
#[cfg(test)]
mod tests;

pub use collect::collect;
pub use judge::findings;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The daemon does not start, or forwards nothing.
    Error,
    /// It works, but loses packets, or something that it could have.
    Warning,
    /// Worth knowing.
    Note,
}

impl Severity {
    /// In a word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which look found it, one of [`CHECKS`].
    pub check: &'static str,
    /// How much it matters.
    pub severity: Severity,
    /// What there is.
    pub what: String,
    /// What comes of it.
    pub means: String,
    /// The command that mends it, or what else to do.
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} Mend it: {}", self.what, self.means, self.mend)
    }
}

/// What is looked at.
pub const CHECKS: [&str; 14] = [
    "capabilities",
    "io-uring",
    "tun-device",
    "forwarding",
    "rp-filter",
    "interfaces",
    "mtu",
    "offloads",
    "routes",
    "ports",
    "socket-buffers",
    "memlock",
    "descriptors",
    "clock",
];

/// What a configuration needs of its host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Tunnels are built; otherwise it is a Map-Server and Map-Resolver.
    pub router: bool,
    /// Packets with inner IPv4 are forwarded, and with inner IPv6.
    pub ipv4: bool,
    /// See `ipv4`.
    pub ipv6: bool,
    /// Frames are taken by packet rings too.
    pub ring: bool,
    /// The TUN device; empty if it is not looked at, because it is taken over.
    pub tun: String,
    /// Addresses that UDP ports are opened on.
    pub addresses: Vec<IpAddr>,
    /// Which ports; none are looked at by a daemon that is about to open them.
    pub ports: Vec<u16>,
    /// Whom it talks to: what for, and where. Those given by name are not looked at.
    pub peers: Vec<(&'static str, IpAddr)>,
    /// Interfaces of the site, or of the native side.
    pub interfaces: Vec<String>,
    /// Descriptors that the data plane opens.
    pub descriptors: u64,
    /// Nonces begin with the time of day: no `state-dir` keeps them.
    pub trusts_clock: bool,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The effective capabilities, a bit each.
    pub capabilities: u64,
    /// Whether a ring can be made.
    pub ring: RingFact,
    /// `kernel.io_uring_disabled`; `None` where there is no such switch.
    pub io_uring_disabled: Option<u8>,
    /// /dev/net/tun.
    pub tun: TunFact,
    /// There is an interface of the TUN's name.
    pub tun_name_taken: bool,
    /// `net.ipv4.ip_forward`; `None` where it cannot be read.
    pub forwarding_v4: Option<bool>,
    /// `net.ipv6.conf.all.forwarding`.
    pub forwarding_v6: Option<bool>,
    /// `net.ipv4.conf.*.rp_filter`, `all` among them.
    pub rp_filter: Vec<(String, u8)>,
    /// `net.core.rmem_max`, octets.
    pub rmem_max: Option<u64>,
    /// The limit of locked memory, octets; `None` = none.
    pub memlock: Option<u64>,
    /// The hard limit of open files.
    pub descriptors: u64,
    /// Ports that are taken, and by which process.
    pub taken: Vec<(IpAddr, u16, Option<String>)>,
    /// Of the peers, in their order: the MTU of the path and the interface, if there is one.
    pub paths: Vec<Option<(u16, String)>>,
    /// The interfaces that are concerned.
    pub links: Vec<LinkFact>,
    /// Own RLOCs that no interface has.
    pub missing_addresses: Vec<IpAddr>,
    /// Whether something keeps the clock right.
    pub clock_synchronized: Option<bool>,
    /// The time of day, seconds since 1970.
    pub unix_seconds: u64,
}

/// Whether a ring can be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RingFact {
    /// Yes.
    #[default]
    Works,
    /// EPERM.
    Forbidden,
    /// ENOSYS.
    Missing,
    /// EINVAL: a kernel without what is needed.
    TooOld,
    /// ENOMEM.
    NoMemory,
    /// Anything else.
    Failed(String),
}

/// Whether /dev/net/tun can be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum TunFact {
    /// Yes.
    #[default]
    Usable,
    /// It is not there.
    Missing,
    /// It may not be opened.
    Denied,
    /// Anything else.
    Failed(String),
}

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinkFact {
    /// Its name.
    pub name: String,
    /// It is not there at all.
    pub missing: bool,
    /// Switched on and with a carrier.
    pub running: bool,
    /// Its MTU, octets.
    pub mtu: u32,
    /// It holds an own RLOC.
    pub underlay: bool,
    /// The family of that RLOC, or of one of them.
    pub underlay_ipv6: bool,
    /// GRO, GSO and LRO, if it tells.
    pub offloads: Option<[bool; 3]>,
}
