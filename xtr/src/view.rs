//! What a running tunnel router shows of itself: the JSON of `isthmus show`.
//!
//! Every list is sorted (prefix, then address), so that two answers can be compared line by line.
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Counters by name: the answer to `show counters`.
pub type CountersView = BTreeMap<String, u64>;

/// One map-cache entry, as `show map-cache` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapCacheEntryView {
    /// The EID-prefix.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// Seconds since the entry was first learned.
    pub uptime_seconds: u64,
    /// Seconds until it goes; `None` = never.
    pub expires_seconds: Option<u64>,
    /// Where it comes from.
    pub via: Via,
    /// What the mapping says: `complete` with locators, else its action
    /// (`forward-native`, `send-map-request`, `no-action`, `drop`, `drop-policy-denied`, `drop-auth-failure`).
    pub state: String,
    /// What is done with packets now: `encapsulate`, `encapsulate-to-petr`, `native`, `resolve`, or
    /// `drop:REASON` with the name of a drop counter.
    pub forwarding: String,
    /// Whether the mapping came protected by LISP-SEC (RFC 9303).
    #[serde(default)]
    pub secured: bool,
    /// Its Map-Version (RFC 9302); 0 = none, or not used.
    #[serde(default)]
    pub map_version: u16,
    /// Packets encapsulated for it.
    pub packets: u64,
    /// Inner octets encapsulated for it.
    pub octets: u64,
    /// Its locators, those of the use-petr set included when packets go there.
    pub locators: Vec<LocatorView>,
}

/// Where a map-cache entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Via {
    /// A Map-Reply with locators.
    MapReply,
    /// A negative Map-Reply (RFC 9301 §5.4: Locator Count 0).
    Negative,
}

impl Via {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::MapReply => "map-reply",
            Self::Negative => "negative",
        }
    }
}

/// One locator, of a map-cache entry or (in `show locators`) of the whole router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatorView {
    /// The RLOC.
    pub address: IpAddr,
    /// Its state.
    pub state: LocatorState,
    /// Priority, 255 = not for unicast. In `show locators`: the best among the entries that use it.
    pub priority: u8,
    /// Weight. In `show locators`: of the entry with the best priority.
    pub weight: u8,
    /// Seconds since its state became what it is, as far as it is known of the RLOC (not what the mapping says).
    #[serde(default)]
    pub since_seconds: u64,
    /// Round-trip time of RLOC-probes, smoothed, microseconds.
    pub rtt_micros: Option<u64>,
    /// RLOC-probes sent to it.
    #[serde(default)]
    pub probes_sent: u64,
    /// RLOC-probes it answered.
    #[serde(default)]
    pub probes_answered: u64,
    /// Of the last 64 RLOC-probes to it while it was up, those that got lost, percent.
    #[serde(default)]
    pub probe_loss_percent: u8,
    /// Seconds since the last answered RLOC-probe.
    pub last_probe_reply_seconds: Option<u64>,
    /// Packets sent to it (for this entry, or in total).
    pub packets: u64,
    /// Inner octets sent to it (for this entry, or in total).
    pub octets: u64,
    /// Largest outer packet towards it, octets.
    pub mtu: u16,
    /// How that is known.
    #[serde(default)]
    pub path_mtu: PathMtuState,
    /// EID-prefixes that use it; 1 within an entry.
    pub mappings: u64,
    /// Whether it belongs to the use-petr set.
    pub petr: bool,
    /// Why it carries nothing now, or, while it recovers, only what no other locator can, in words; `None` = it may carry traffic.
    pub unusable: Option<String>,
}

/// How the largest outer packet towards a locator is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathMtuState {
    /// From the route, its interface or the configuration.
    #[default]
    Assumed,
    /// A probe of that size was answered.
    Confirmed,
    /// A probe of that size was not answered, but smaller ones are being tried.
    Searching,
}

impl PathMtuState {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Assumed => "assumed",
            Self::Confirmed => "confirmed",
            Self::Searching => "searching",
        }
    }
}

/// The state of a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LocatorState {
    /// The last RLOC-probe was answered.
    Up,
    /// Not probed yet, or probing is off: taken as up.
    Unprobed,
    /// Was down and answers RLOC-probes again, but not yet long enough: carries only what no other locator can.
    Recovering,
    /// Probes go unanswered, or a router says that it cannot be reached (RFC 9301 §7).
    Down,
    /// The underlay has no route to it (RFC 9301 §7).
    NoRoute,
    /// The mapping says R=0 (RFC 9300 §9).
    Unreachable,
    /// No own RLOC of its address family.
    NoFamily,
    /// One of our own addresses.
    Own,
}

impl LocatorState {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unprobed => "unprobed",
            Self::Recovering => "recovering",
            Self::Down => "down",
            Self::NoRoute => "no-route",
            Self::Unreachable => "unreachable",
            Self::NoFamily => "no-family",
            Self::Own => "own",
        }
    }
}

/// An own EID-prefix at one Map-Server, as `show registrations` prints it on an xTR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnRegistrationView {
    /// The EID-prefix.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// The Map-Server as configured: address or DNS name.
    pub map_server: String,
    /// How it deviates from RFC 9301: the name of its profile.
    #[serde(default)]
    pub profile: String,
    /// Where it is now; `None` = its name is not resolved yet, or has no address of our families.
    pub address: Option<IpAddr>,
    /// How it stands.
    pub state: RegistrationState,
    /// Seconds since the last acknowledging Map-Notify.
    pub last_acknowledged_seconds: Option<u64>,
    /// Seconds until the next Map-Register.
    pub next_seconds: u64,
    /// Acknowledging Map-Notifys that left this prefix out.
    pub refusals: u64,
    /// Map-Registers sent since the last acknowledgement.
    pub unanswered: u64,
}

/// How a registration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationState {
    /// Acknowledged by the Map-Server.
    Registered,
    /// Sent, not answered yet.
    Pending,
    /// Not answered in three tries: wrong key, key ID, prefix or site at the Map-Server, or no path to it.
    Unanswered,
    /// The Map-Server acknowledged the message without this prefix.
    Refused,
    /// The Map-Server has no address we can reach.
    Unresolved,
}

impl RegistrationState {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registered => "registered",
            Self::Pending => "pending",
            Self::Unanswered => "unanswered",
            Self::Refused => "refused",
            Self::Unresolved => "unresolved",
        }
    }
}

/// A subscription of ours, as `show subscriptions` prints it on an xTR or gateway (RFC 9437).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnSubscriptionView {
    /// What is subscribed.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// How it stands.
    pub state: SubscriptionState,
    /// The Map-Server that publishes: where its last Map-Notify came from; `None` before the first.
    pub map_server: Option<IpAddr>,
    /// Seconds since it was acknowledged first.
    pub since_seconds: u64,
    /// Seconds until it is asked for again.
    pub renewal_seconds: u64,
    /// The last nonce that either side used, in hexadecimal.
    pub nonce: String,
    /// Publications accepted.
    pub publications: u64,
}

/// How an own subscription stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SubscriptionState {
    /// Acknowledged; every change is published.
    Subscribed,
    /// To something that is not registered: the Map-Server forgets it after a while.
    Temporary,
    /// Made by the operator of the Map-Server, not by us.
    Foreign,
    /// Being given up.
    Unsubscribing,
}

impl SubscriptionState {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribed => "subscribed",
            Self::Temporary => "temporary",
            Self::Foreign => "foreign",
            Self::Unsubscribing => "unsubscribing",
        }
    }
}

/// Traffic by EID-prefix and RLOC, as `show traffic` prints it. Where nothing is lost, what one side sent is what the other got.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficView {
    /// What arrived for own EID-prefixes, on each own RLOC.
    pub arrived: Vec<ArrivedView>,
    /// What was sent, by map-cache entry and remote RLOC.
    pub sent: Vec<SentView>,
}

/// What arrived for one own EID-prefix on one own RLOC, since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArrivedView {
    /// The own EID-prefix.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// The own RLOC.
    pub rloc: IpAddr,
    /// How the mapping has it now; `None` = it is not in the locator-set.
    pub locator: Option<OwnLocatorView>,
    /// Packets decapsulated.
    pub packets: u64,
    /// Their inner octets.
    pub octets: u64,
}

/// A locator of an own mapping, as it is registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLocatorView {
    /// Priority, 255 = not for unicast.
    pub priority: u8,
    /// Weight.
    pub weight: u8,
    /// Priority for multicast, 255 = not for multicast.
    pub multicast_priority: u8,
    /// Weight for multicast.
    pub multicast_weight: u8,
    /// R-bit.
    pub reachable: bool,
}

/// What was sent for one map-cache entry to one RLOC.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentView {
    /// The EID-prefix.
    pub prefix: IpNet,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// The remote RLOC; `None` = all those that the mapping no longer has.
    pub rloc: Option<IpAddr>,
    /// Packets encapsulated.
    pub packets: u64,
    /// Their inner octets.
    pub octets: u64,
}

/// A host of a dynamic-EID range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostView {
    /// Its address.
    pub eid: IpAddr,
    /// Its instance, 0 to 16 777 215.
    pub instance_id: u32,
    /// `here`, or `away`: at another site.
    pub place: String,
    /// For how many seconds.
    pub since_seconds: u64,
    /// Seconds since its last sign of life; `None` of one that is away.
    pub heard_seconds: Option<u64>,
    /// `data`, `arp`, `nd` or `lease`; `None` of one that is away.
    pub detected_by: Option<String>,
    /// The site interface it was seen on, if that is known.
    pub interface: Option<String>,
    /// Where packets for it go: own RLOCs, or those of the other site.
    pub rlocs: Vec<IpAddr>,
    /// What the Map-Servers make of it, the worst of them; `None` of one that is away.
    pub registration: Option<RegistrationState>,
    /// It was seen here again and again while it was said to be elsewhere, as an address that two hosts have: for so many seconds more it
    /// is left where it is.
    pub held_seconds: Option<u64>,
}

/// NAT traversal: the answer to `show nat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatView {
    /// An xTR's own RLOCs.
    pub rlocs: Vec<NatRlocView>,
    /// What is registered through an RTR.
    pub sites: Vec<NatSiteView>,
    /// To an RTR, Map-Registers that await their Map-Notify.
    pub unverified: u64,
}

/// What an xTR knows of NATs before one of its RLOCs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatRlocView {
    /// The own RLOC.
    pub rloc: IpAddr,
    /// `unknown`: no Map-Server has said yet; `outside`: there is no NAT; `no-rtr`: there is one, and no RTR of its family; `pending`: the
    /// RTR has not answered yet; `registered`: it has.
    pub state: String,
    /// Seconds since it became what it is.
    pub since_seconds: u64,
    /// How the Map-Server saw the last Info-Request, if otherwise.
    pub seen_as: Option<SocketAddr>,
    /// What the Map-Server took to answer it, microseconds.
    pub info_rtt_us: Option<u64>,
    /// The RTR in use.
    pub rtr: Option<IpAddr>,
    /// All RTRs that the Map-Server names.
    pub rtrs: Vec<IpAddr>,
    /// From a Map-Register to its Map-Notify through the RTR, microseconds.
    pub rtt_us: Option<u64>,
    /// Seconds since the RTR last brought one.
    pub last_seconds: Option<u64>,
}

/// An EID-prefix behind a NAT, as the RTR knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NatSiteView {
    /// The EID-prefix.
    pub prefix: IpNet,
    /// The xTR-ID, 32 hexadecimal digits.
    pub xtr_id: String,
    /// The xTR's own RLOC.
    pub private: IpAddr,
    /// What its NAT makes of it and of port 4341.
    pub translated: SocketAddr,
    /// The RTR's own RLOC.
    pub rtr: IpAddr,
    /// The Map-Server that acknowledged it.
    pub map_server: IpAddr,
    /// Seconds since it is there.
    pub since_seconds: u64,
    /// Seconds since the last keepalive.
    pub last_seconds: u64,
    /// Seconds until it is forgotten unless another comes.
    pub expires_seconds: u64,
    /// From Map-Register to Map-Notify at the RTR, microseconds.
    pub rtt_us: u64,
}
