//! What `show` prints of a Map-Server/Map-Resolver: plain data, no secrets.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::eid::{EidPrefix, InstanceId};

/// Role, age and health of a daemon; the same in every role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusView {
    /// `mapping`, `xtr` or `gateway`.
    pub role: String,
    /// The configured name; the role's name when there is none.
    pub name: String,
    /// The version of the software.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether everything works; when not, `notes` say why.
    pub healthy: bool,
    /// Where packets from the native side, or the site, come in; `None` in a Map-Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake: Option<String>,
    /// Whose deviations from RFC 9301 are put up with by source address, and which they are; sites and Map-Servers are not among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
    /// What the operator should know, a sentence each.
    pub notes: Vec<String>,
    /// The workers of the data plane; empty in a daemon without one.
    #[serde(default)]
    pub workers: Vec<WorkerView>,
}

/// One worker of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// From 0.
    pub number: usize,
    /// The core it is pinned to.
    pub cpu: Option<usize>,
    /// Packets it took in, from both sides.
    pub packets: u64,
    /// How often it went round; one that is not stuck does at least once a second.
    #[serde(default)]
    pub turns: u64,
    /// Why it ended; `None` = it runs.
    pub failure: Option<String>,
}

/// Counters by name.
pub type CountersView = BTreeMap<String, u64>;

/// A configured site and what became of its registrations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    /// The site's name.
    pub name: String,
    /// Its configured EID-prefixes.
    pub eid_prefixes: Vec<SitePrefixView>,
    /// Its configured distinguished names.
    #[serde(default)]
    pub eid_names: Vec<String>,
    /// EID-prefixes registered now.
    pub registered: usize,
    /// Records accepted since the start.
    pub accepted: u64,
    /// Messages and records refused since the start.
    pub refused: u64,
    /// Seconds since the last accepted Map-Register; `None` before the first.
    pub last_register_seconds: Option<u64>,
    /// Refused messages and records by the rule that refused them.
    #[serde(default)]
    pub refused_by: CountersView,
    /// How its xTRs deviate from RFC 9301: the name of the profile.
    #[serde(default)]
    pub profile: String,
    /// What the operator should know of it, a sentence each.
    #[serde(default)]
    pub notes: Vec<String>,
    /// The newest refusal in words, with source, prefix and rule; `None` when there was none.
    pub last_refusal: Option<String>,
}

/// A configured EID-prefix of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SitePrefixView {
    /// The prefix.
    pub prefix: EidPrefix,
    /// Whether more-specifics may be registered too.
    pub accept_more_specifics: bool,
    /// Registered prefixes that are this one or a more-specific of it.
    pub registered: usize,
}

/// The registration of one EID-prefix by one xTR.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationView {
    /// The EID-prefix; `None` of a distinguished name.
    pub prefix: Option<EidPrefix>,
    /// The distinguished name.
    #[serde(default)]
    pub name: Option<String>,
    /// The site it belongs to.
    pub site: String,
    /// Where the Map-Register came from.
    pub source: IpAddr,
    /// The xTR-ID in hexadecimal, when the xTR has one.
    pub xtr_id: Option<String>,
    /// Seconds since the first registration of this xTR.
    pub uptime_seconds: u64,
    /// Seconds until the registration expires without refresh.
    pub expires_seconds: u64,
    /// Record TTL in minutes, as registered.
    pub ttl_minutes: u32,
    /// P-bit: the Map-Server answers Map-Requests itself.
    pub proxy_reply: bool,
    /// a-bit: locator-sets of several xTRs are merged.
    pub merge: bool,
    /// Map-Version Number, 0 = not used.
    pub map_version: u16,
    /// ACT, what an ITR does when there is no locator.
    #[serde(default)]
    pub action: String,
    /// The locators of this xTR.
    pub locators: Vec<RegisteredLocatorView>,
}

/// A subscription of one xTR (RFC 9437).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubscriptionView {
    /// What it is subscribed to.
    pub prefix: EidPrefix,
    /// The xTR-ID in hexadecimal.
    pub xtr_id: String,
    /// The Site-ID.
    pub site_id: u64,
    /// The site or subscriber of this Site-ID; `None` when the configuration has none.
    pub subscriber: Option<String>,
    /// Where Map-Notifies go, in this order.
    pub itr_rlocs: Vec<IpAddr>,
    /// Seconds since the first Map-Request.
    pub since_seconds: u64,
    /// Seconds until it ends by itself, since nothing is registered there; `None` = never.
    pub ends_seconds: Option<u64>,
    /// The last nonce that either side used, in hexadecimal.
    pub nonce: String,
    /// Map-Notifies that wait for their Map-Notify-Ack.
    pub unacknowledged: usize,
    /// Nothing of this prefix is published to the xTR, though a covering one is subscribed.
    pub muted: bool,
}

/// Registrations that were refused alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalView {
    /// The site, when one could be told.
    pub site: Option<String>,
    /// The EID-prefix; of a whole message, its first.
    pub prefix: Option<EidPrefix>,
    /// Where the Map-Registers came from.
    pub source: IpAddr,
    /// The name of the rule.
    pub reason: String,
    /// What of the message broke it, when the rule alone does not tell: a locator, an algorithm.
    #[serde(default)]
    pub subject: Option<String>,
    /// What the rule means and what to do.
    pub help: String,
    /// Seconds since the last one.
    pub age_seconds: u64,
    /// How many.
    pub count: u64,
}

/// A locator of a registration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredLocatorView {
    /// The RLOC.
    pub rloc: IpAddr,
    /// Priority, 255 = not for unicast.
    pub priority: u8,
    /// Weight.
    pub weight: u8,
    /// Priority for multicast, 255 = not for multicast.
    #[serde(default = "not_for_multicast")]
    pub multicast_priority: u8,
    /// Weight for multicast.
    #[serde(default)]
    pub multicast_weight: u8,
    /// R-bit.
    pub reachable: bool,
}

fn not_for_multicast() -> u8 {
    255
}

/// The referral cache of a DDT Map-Resolver, and the lookups that go through the tree now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferralsView {
    /// Configured entries, then learned ones.
    pub cache: Vec<ReferralView>,
    /// Lookups under way.
    pub pending: Vec<PendingReferralView>,
}

/// An entry of the referral cache.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferralView {
    /// The XEID-prefix; `None` = every one: the root.
    pub prefix: Option<EidPrefix>,
    /// The action of the Map-Referral, as RFC 8111 §6.1 calls it, in lower case.
    pub action: String,
    /// The RLOCs of the DDT nodes to ask.
    pub rlocs: Vec<IpAddr>,
    /// Seconds until it is forgotten; `None` = configured.
    pub expires_seconds: Option<u64>,
    /// The DDT node that sent it; `None` = configured.
    pub source: Option<IpAddr>,
}

/// A lookup that goes through the tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingReferralView {
    /// What was asked for.
    pub eid: EidPrefix,
    /// The ITR-RLOC that asks.
    pub itr: Option<IpAddr>,
    /// The DDT node whose answer is awaited.
    pub asking: Option<IpAddr>,
    /// The prefix of the last referral; `None` before the first.
    pub referral: Option<EidPrefix>,
    /// Referrals followed so far.
    pub referrals: u32,
    /// DDT Map-Requests sent to the nodes of the last referral.
    pub tries: u32,
    /// Seconds since the lookup began.
    pub age_seconds: u64,
}

/// A DDT node's part of the tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationsView {
    /// What it is authoritative for.
    pub authoritative: Vec<AuthoritativePrefixView>,
    /// What it has delegated.
    pub delegations: Vec<DelegationView>,
}

/// An authoritative prefix of a DDT node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthoritativePrefixView {
    /// The EID-prefix.
    pub prefix: ipnet::IpNet,
    /// Its instance; `None` = every instance.
    pub instance_id: Option<InstanceId>,
    /// Other nodes that are authoritative for it.
    pub peers: Vec<IpAddr>,
    /// Whether `peers` names them all.
    pub complete: bool,
}

/// A delegation of a DDT node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegationView {
    /// The XEID-prefix.
    pub prefix: EidPrefix,
    /// The nodes it is delegated to.
    pub rlocs: Vec<IpAddr>,
    /// Whether any of them is a DDT Map-Server.
    pub map_server: bool,
}
