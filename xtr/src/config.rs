//! What a tunnel router is configured with, after parsing and validation.
use crate::forward::RateLimits;
use crate::host::lan::Mac;
use crate::packet::Dscp;
use crate::packet::icmp::Rate;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use mapping::auth::Covered;
use mapping::config::{Algorithm, Profile, RtrKey, Secret};
use mapping::eid::{EidPrefix, InstanceId, MapVersion};
use mapping::timers;
use mapping::wire::XtrIdentity;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A tunnel router: an xTR of a site, or the proxy (gateway).
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// For humans: shown in status.
    pub name: String,
    /// Where nonces (RG-13) and the versions of own mappings (MV-04) are kept over a restart; without it nonces count from the time of day.
    pub state_dir: Option<PathBuf>,
    /// The control plane's part.
    pub control: ControlConfig,
    /// The data plane's part.
    pub data: DataConfig,
    /// Routes and rules to own while running.
    pub host: HostConfig,
}

/// The control plane of a tunnel router.
#[derive(Clone, Debug)]
pub struct ControlConfig {
    /// Whose side it plays.
    pub role: Role,
    /// Own locators.
    pub rlocs: Vec<OwnRloc>,
    /// Where lookups go, tried in turn (RQ-21).
    pub map_resolvers: Vec<Endpoint>,
    /// Where registrations go; empty for a proxy (PI-13).
    pub map_servers: Vec<MapServer>,
    /// PETRs for non-LISP destinations and for destinations without a common RLOC family (PE-11).
    pub use_petr: Vec<Petr>,
    /// PITRs that are told when own mappings change (SM-01), whether they got data or not.
    pub proxy_itrs: Vec<Endpoint>,
    /// Own EID-prefixes; empty for a proxy.
    pub eids: Vec<LocalEid>,
    /// Between two registrations (RFC 9301 §8.2: 60 s).
    pub registration_interval: Duration,
    /// How remote RLOCs are probed (RFC 9301 §7.1); `None` = no probing.
    pub probe: Option<ProbeConfig>,
    /// How the largest outer packet is known (RFC 9300 §7).
    pub path_mtu: PathMtuConfig,
    /// Record TTL of own mappings in minutes (1440).
    pub record_ttl_minutes: u32,
    /// Ask the Map-Servers to let registrations time out by their Record TTL (T-bit, RG-07).
    pub timeout_by_ttl: bool,
    /// Ask the Map-Servers to answer for us (P-bit).
    pub proxy_reply: bool,
    /// Most map-cache entries held (MC-27).
    pub map_cache_limit: usize,
    /// LISP-SEC: lookups are protected, and registrations say that protected ones are answered (RFC 9303).
    pub lisp_sec: Option<LispSec>,
    /// Who we are in registrations (RG-09) and subscriptions (PS-01).
    pub identity: Option<XtrIdentity>,
    /// Ask the Map-Servers to merge our registrations with those of the site's other xTRs (a-bit, RG-08).
    pub merge: bool,
    /// Subscribe to the mappings of the map-cache; needs `identity`.
    pub subscribe: Option<Subscribe>,
    /// What LISP headers say beside the instance; `None` in the public Internet profile.
    pub trusted_core: Option<TrustedCore>,
    /// How NATs are traversed (draft-ermagan-lisp-nat-traversal).
    pub nat: Option<Nat>,
    /// Who else deviates from RFC 9301, beside Map-Servers.
    pub peers: Vec<Peer>,
}

impl ControlConfig {
    /// Map-cache entries held when nothing else is configured (MC-27).
    pub const MAP_CACHE_LIMIT: usize = 100_000;

    /// With the intervals of RFC 9301 and nothing else: no locators, nobody to ask, nothing to register, no probing.
    pub fn of(role: Role) -> Self {
        Self {
            role,
            rlocs: Vec::new(),
            map_resolvers: Vec::new(),
            map_servers: Vec::new(),
            use_petr: Vec::new(),
            proxy_itrs: Vec::new(),
            eids: Vec::new(),
            registration_interval: timers::REGISTRATION_INTERVAL,
            probe: None,
            path_mtu: PathMtuConfig::default(),
            record_ttl_minutes: timers::RECORD_TTL_MINUTES,
            timeout_by_ttl: false,
            proxy_reply: false,
            map_cache_limit: Self::MAP_CACHE_LIMIT,
            lisp_sec: None,
            identity: None,
            merge: false,
            subscribe: None,
            trusted_core: None,
            nat: None,
            peers: Vec::new(),
        }
    }
}

/// Tunnel routers, by the address they send from, that deviate from RFC 9301.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where they send from.
    pub prefix: IpNet,
    /// How they deviate.
    pub profile: Profile,
}

impl Peer {
    /// What its profile relaxes, for those who allow it; `None` of the rules as they are.
    pub const fn loosened(&self) -> Option<&'static str> {
        match self.profile {
            Profile::Rfc9301 | Profile::Oor | Profile::Vpp => None,
            Profile::LispersNet => {
                Some("a JSON LCAF in its Map-Replies and Map-Notifies may have a wrong Length")
            }
        }
    }
}

/// NAT traversal (draft-ermagan-lisp-nat-traversal).
#[derive(Clone, Debug)]
pub enum Nat {
    /// An xTR finds out whether it is behind one; needs [`ControlConfig::identity`].
    Xtr(NatXtr),
    /// An RTR carries xTRs that are.
    Rtr(NatRtr),
}

/// NAT traversal of an xTR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatXtr {
    /// Between two Map-Registers through the RTR, which keep the binding (§5.1.1); less than two minutes.
    pub keepalive: Duration,
}

/// NAT traversal of an RTR.
#[derive(Clone, Debug)]
pub struct NatRtr {
    /// To whom Map-Registers are relayed, and who answers them.
    pub map_servers: Vec<RtrMapServer>,
    /// The instance of their EIDs.
    pub instance_id: InstanceId,
    /// EID-prefixes that xTRs behind NATs may have.
    pub eid_prefixes: Vec<IpNet>,
    /// How long an xTR is served after its last Map-Register, if its Record TTL is not shorter.
    pub timeout: Duration,
}

/// A Map-Server that an RTR relays to.
#[derive(Clone, Debug)]
pub struct RtrMapServer {
    /// Where it is.
    pub address: IpAddr,
    /// What proves that a Map-Notify comes from there (§4.4).
    pub key: RtrKey,
}

/// Which marks LISP headers carry in a trusted core, never over the public Internet (RFC 9300 §16, RFC 9302 §8).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedCore {
    /// RLOCs that are believed and told: the core. Packets from and to all others have plain headers, or are taken so.
    pub rlocs: Vec<IpNet>,
    /// Map-Versioning (RFC 9302).
    pub map_versioning: bool,
    /// Locator-Status-Bits (RFC 9300 §10); with Map-Versioning only those that come with the known version count (DH-21).
    pub status_bits: bool,
    /// Echo-noncing (RFC 9300 §10.1).
    pub echo_nonce: bool,
    /// How long no Locator-Status-Bits are sent after an own locator came or went (RFC 9300 §13.1).
    pub use_lsb_timer: Duration,
    /// Versions that own mappings begin with (MV-04); any other begins with a random one.
    pub versions: BTreeMap<EidPrefix, MapVersion>,
    /// Versions of an earlier run, which go on unless the configured one is newer.
    pub kept: BTreeMap<EidPrefix, KeptVersion>,
}

/// The version that an own mapping had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeptVersion {
    /// The version.
    pub version: MapVersion,
    /// What it was the version of, in words; another mapping has a later one.
    pub locators: String,
}

/// How remote RLOCs are probed. A locator that goes silent while it carries traffic is given up after
/// `1.1 * interval + tries * max(min(interval / 2, 1 s), RTT and its variation)` at the latest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeConfig {
    /// Between two probes of a locator that carries traffic, at least 100 ms.
    pub interval: Duration,
    /// Of a locator that carries none; not less than `interval`.
    pub idle_interval: Duration,
    /// Probes without answer in a row that declare a locator down, at least 1.
    pub tries: u32,
    /// Probes that a locator that was down answers in a row before it carries traffic that another locator can carry; at least 1.
    pub hold_down: u32,
}

impl Default for ProbeConfig {
    fn default() -> Self {
        Self {
            interval: timers::PROBE_INTERVAL,
            idle_interval: timers::IDLE_PROBE_INTERVAL,
            tries: timers::PROBE_TRIES,
            hold_down: timers::PROBE_HOLD_DOWN,
        }
    }
}

/// How the largest outer packet towards a locator (L) is known: stateless (RFC 9300 §7.1) without `probe` and [`DataConfig::path_mtu_icmp`],
/// stateful (§7.2) with either (MT-01).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathMtuConfig {
    /// L is at most this over IPv4, octets; without it, what the route or its interface says, 1500 while that is not known (MT-02).
    pub ipv4: Option<u16>,
    /// The same over IPv6.
    pub ipv6: Option<u16>,
    /// Find out what gets through by padded RLOC-probes (RFC 8899, MT-16); needs [`ControlConfig::probe`].
    pub probe: bool,
}

impl PathMtuConfig {
    /// L towards `rloc` when the route or its interface carries `link` octets.
    pub fn ceiling(&self, rloc: IpAddr, link: Option<u16>) -> u16 {
        let configured = if rloc.is_ipv4() { self.ipv4 } else { self.ipv6 };
        let link = link.unwrap_or(DEFAULT_MTU);
        configured.map_or(link, |configured| configured.min(link))
    }
}

/// The path MTU assumed until the host says better (MT-02).
pub const DEFAULT_MTU: u16 = 1500;

/// How subscriptions are made (RFC 9437).
#[derive(Clone, Debug, Default)]
pub struct Subscribe {
    /// What Map-Notifies to us are signed with, beside the keys of the Map-Servers that we register with.
    pub key: Option<NotifyKey>,
    /// Take publications of EID-prefixes that were not subscribed to (PS-23).
    pub accept_unsubscribed: bool,
}

/// A key that Map-Notifies are signed with.
#[derive(Clone, Debug)]
pub struct NotifyKey {
    /// Key ID.
    pub key_id: u8,
    /// The secret.
    pub secret: Secret,
    /// How messages are signed.
    pub algorithm: Algorithm,
}

/// LISP-SEC of a tunnel router (RFC 9303). As an ETR it needs no key but those of its Map-Servers.
#[derive(Clone, Debug)]
pub struct LispSec {
    /// Key ID at the Map-Resolvers.
    pub key_id: u8,
    /// The secret shared with the Map-Resolvers; none of a Map-Server's (SE-07).
    pub secret: Secret,
    /// Never do without: neither for an ETR that cannot sign (SE-22), nor for an unprotected Map-Request (SE-23).
    pub required: bool,
}

/// The role of a tunnel router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// ITR and ETR of a LISP site.
    Xtr,
    /// PITR and PETR.
    Proxy,
}

/// An own locator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRloc {
    /// The name in `rlocs = { name = .. }`.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Priority, 255 = not for unicast.
    pub priority: u8,
    /// Weight.
    pub weight: u8,
    /// Priority for multicast, 255 = not for multicast: carried, not used (RFC 9301 §5.4).
    pub multicast_priority: u8,
    /// Weight for multicast.
    pub multicast_weight: u8,
}

impl OwnRloc {
    /// A locator for unicast alone.
    pub fn new(name: impl Into<String>, address: IpAddr, priority: u8, weight: u8) -> Self {
        let (multicast_priority, multicast_weight) = (255, 0);
        Self { name: name.into(), address, priority, weight, multicast_priority, multicast_weight }
    }
}

/// A peer given by address or DNS name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// An address.
    Address(IpAddr),
    /// A DNS name, resolved and followed at run time (AAAA and A).
    Name(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// A Map-Server to register with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapServer {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Key ID.
    pub key_id: u8,
    /// The site's secret.
    pub secret: Secret,
    /// How messages are signed.
    pub algorithm: Algorithm,
    /// How far the MAC of Map-Registers reaches; with an xTR-ID, the Map-Server believes only what the MAC covers.
    pub covers: Covered,
    /// How it deviates from RFC 9301; a legacy one wants untruncated MACs (AU-14).
    pub profile: Profile,
}

impl MapServer {
    /// What its profile relaxes, for those who allow it; `None` of the rules as they are.
    pub const fn loosened(&self) -> Option<&'static str> {
        match self.profile {
            Profile::Rfc9301 => None,
            Profile::Oor | Profile::Vpp => {
                Some("its MACs are not truncated, and HMAC-SHA-1 will do")
            }
            Profile::LispersNet => Some(
                "its MACs are not truncated, HMAC-SHA-1 will do, Map-Requests that it forwards need no inner checksum, and a JSON LCAF may have a wrong Length",
            ),
        }
    }

    /// The octets of the Authentication Data that the Map-Server expects.
    pub const fn mac_len(&self) -> usize {
        match self.profile {
            Profile::Rfc9301 => self.algorithm.mac_len(),
            Profile::Oor | Profile::LispersNet | Profile::Vpp => {
                self.algorithm.untruncated_mac_len()
            }
        }
    }
}

/// A proxy ETR to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Petr {
    /// Where it is.
    pub endpoint: Endpoint,
    /// Priority, lowest first.
    pub priority: u8,
    /// Weight among equal priorities.
    pub weight: u8,
}

/// An EID-prefix of the site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalEid {
    /// The prefix.
    pub prefix: EidPrefix,
    /// Names of the locators it is registered with; empty = all.
    pub locator_set: Vec<String>,
}

/// The data plane.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// Own RLOCs: where LISP packets come in and go out.
    pub rlocs: Vec<IpAddr>,
    /// Where packets from the native side come in.
    pub intake: Intake,
    /// TUN device name.
    pub tun_name: String,
    /// Workers, each with its own TUN queue; `None` = one per core, or one per entry of `cpus`.
    pub queues: Option<usize>,
    /// The cores the workers run on, in turn; empty = wherever the scheduler puts them.
    pub cpus: Vec<usize>,
    /// Outer UDP source ports in the pool, 1 to 1024 (EN-16); default 64.
    pub source_ports: u16,
    /// Send outer UDP checksum 0 (EN-20). Off by default: a burst in one UDP_SEGMENT send, and GRO at the receiver, need a checksum.
    pub zero_udp_checksum: bool,
    /// How DSCP crosses the tunnel (EN-06, DE-09).
    pub dscp: Dscp,
    /// Copy ECN (normal mode, EN-08); otherwise compatibility mode (EN-09).
    pub copy_ecn: bool,
    /// Log unusual combinations of inner and outer ECN, at most every 10 s (DE-14).
    pub log_unusual_ecn: bool,
    /// Believe ICMP reports about the path MTU (MT-11).
    pub path_mtu_icmp: bool,
    /// Packets per second to and from each locator and each site.
    pub rate_limits: RateLimits,
    /// ICMP errors to inner sources per family, and per source (MT-20).
    pub icmp_rate: Rate,
    /// The same as [`ControlConfig::trusted_core`].
    pub trusted_core: Option<TrustedCore>,
    /// What NAT traversal needs of it.
    pub nat: NatPlane,
}

/// NAT traversal in the data plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NatPlane {
    /// Nothing.
    #[default]
    Off,
    /// An xTR: control messages behind LISP headers of Instance ID 0xFFFFFF are for the control plane.
    Xtr,
    /// An RTR: packets to translated ports leave from port 4342.
    Rtr,
}

impl Default for DataConfig {
    fn default() -> Self {
        Self {
            rlocs: Vec::new(),
            intake: Intake::Tun,
            tun_name: "isthmus0".to_owned(),
            queues: None,
            cpus: Vec::new(),
            source_ports: 64,
            zero_udp_checksum: false,
            dscp: Dscp::Copy,
            copy_ecn: true,
            log_unusual_ecn: true,
            path_mtu_icmp: true,
            rate_limits: RateLimits::default(),
            icmp_rate: Rate::default(),
            trusted_core: None,
            nat: NatPlane::Off,
        }
    }
}

/// Where packets from the native side, or from the site, come in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Intake {
    /// The kernel routes them into the TUN.
    #[default]
    Tun,
    /// Packet sockets take them from the interfaces; what these leave, and packets of this host, come by the TUN.
    Ring(RingIntake),
}

/// What the packet sockets take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RingIntake {
    /// From these Ethernet interfaces, at most 16.
    pub interfaces: Vec<String>,
    /// Packets to these prefixes,
    pub take: Vec<IpNet>,
    /// but not to these.
    pub leave: Vec<IpNet>,
}

impl RingIntake {
    /// Interfaces that one data plane may take packets from: a ring takes 8 MiB per worker.
    pub const MAX_INTERFACES: usize = 16;

    /// A proxy takes what is for the EID aggregates.
    pub fn of_proxy(interfaces: Vec<String>, aggregates: &[IpNet]) -> Self {
        Self { interfaces, take: aggregates.to_vec(), leave: Vec::new() }
    }

    /// A site's router takes everything of the families of its EID-prefixes, as its routing does, but for what stays in the site and what
    /// is never forwarded (RFC 6890 §2.2, multicast).
    pub fn of_site(interfaces: Vec<String>, eid_prefixes: &[IpNet]) -> Self {
        let v4 = Ipv4Net::default();
        let v6 = Ipv6Net::default();
        let has = |ipv4| eid_prefixes.iter().any(|prefix| prefix.addr().is_ipv4() == ipv4);
        let take = [(true, v4.into()), (false, v6.into())];
        let take = take.into_iter().filter(|&(ipv4, _)| has(ipv4)).map(|(_, all)| all).collect();
        let never_v4 = [(0, 8), (0x7f00_0000, 8), (0xa9fe_0000, 16), (0xe000_0000, 3)];
        let never_v4 = never_v4.map(|(bits, len)| Ipv4Net::new_assert(bits.into(), len).into());
        let never_v6 = [(0, 96), (0xffff << 32, 96), (0xfe80 << 112, 10), (0xff << 120, 8)];
        let never_v6 = never_v6.map(|(bits, len)| {
            Ipv6Net::new_assert(std::net::Ipv6Addr::from_bits(bits), len).into()
        });
        let leave = eid_prefixes.iter().copied().chain(never_v4).chain(never_v6).collect();
        Self { interfaces, take, leave }
    }
}

/// What the daemon owns in the host's routing.
#[derive(Clone, Debug, Default)]
pub struct HostConfig {
    /// Proxy: EID aggregates routed into the TUN, `proto` 204.
    pub announce: Vec<IpNet>,
    /// Table of the announced routes (254 = main).
    pub announce_table: u32,
    /// Metric of the announced routes.
    pub announce_metric: u32,
    /// The announced routes are withdrawn while no own RLOC is usable, or no Map-Resolver answers, for longer than this (PI-16).
    pub withdraw_after: Option<Duration>,
    /// Proxy: how long it forwards what still comes once it has withdrawn the announced routes to end.
    pub drain: Duration,
    /// Proxy: interfaces that hold an own RLOC and on which native packets for the announced prefixes are taken all the same (PI-07).
    pub native_interfaces: Vec<String>,
    /// xTR: interfaces whose traffic goes into the TUN (policy rule `iif`).
    pub site_interfaces: Vec<String>,
    /// xTR: own EID-prefixes, which stay in the site.
    pub site_prefixes: Vec<IpNet>,
    /// xTR: ranges of EIDs whose hosts come and go; no two share an address.
    pub ranges: Vec<DynamicRange>,
    /// xTR: gateways that are the same at every site, at most one per interface.
    pub gateways: Vec<GatewayMac>,
    /// xTR: files of DHCP leases: hosts of dynamic-EID ranges that get one are here.
    pub leases: Vec<PathBuf>,
}

/// A range of EIDs whose hosts come and go (draft-ietf-lisp-eid-mobility).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DynamicRange {
    /// The range.
    pub range: EidPrefix,
    /// Names of the locators its hosts are registered with; empty = all.
    pub locator_set: Vec<String>,
    /// The site interfaces on which its hosts may be.
    pub interfaces: Vec<String>,
    /// A host that gave no sign of life for so long is gone (DY-05).
    pub timeout: Duration,
    /// Most of its hosts that are registered at once.
    pub limit: usize,
    /// Its links reach other sites as well, so that only a packet sent through this router tells where a host is.
    pub extended_subnet: bool,
}

impl DynamicRange {
    /// The timeout, unless configured otherwise.
    pub const TIMEOUT: Duration = Duration::from_secs(15);
    /// The limit, unless configured otherwise.
    pub const LIMIT: usize = 4_096;
}

/// A default gateway that hosts find at every site with the same MAC and addresses, so that they keep it when they move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayMac {
    /// The site interface.
    pub interface: String,
    /// The MAC.
    pub mac: Mac,
    /// The addresses.
    pub addresses: Vec<IpAddr>,
}
