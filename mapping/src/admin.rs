//! What a running daemon can be asked through its admin socket; every daemon answers the subset that fits its role.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

/// A question or an order from the operator: one line of JSON on the admin socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "query", rename_all = "kebab-case")]
pub enum Query {
    /// Map-cache entries with their locators (xtr, gateway).
    MapCache,
    /// Configured sites and their state (mapping).
    Sites,
    /// Registered EID-prefixes (mapping), or own registrations and their state (xtr).
    Registrations,
    /// The newest refused registrations (mapping).
    Refusals,
    /// Who subscribed to what (mapping), or own subscriptions (xtr, gateway).
    Subscriptions,
    /// Locators with reachability, RTT, counters (xtr, gateway).
    Locators,
    /// The referral cache and the lookups under way (mapping).
    Referrals,
    /// What a DDT node is authoritative for and has delegated (mapping).
    Delegations,
    /// Counters by name.
    Counters,
    /// Non-zero drop counters with their help text.
    Drops,
    /// Role, uptime, version, health.
    Status,
    /// What would become of one packet (xtr, gateway).
    Explain(ExplainQuery),
}

/// The packet whose fate is to be explained. Nothing is sent, counted or asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainQuery {
    /// The side it comes from.
    pub from: Side,
    /// Inner source.
    pub source: IpAddr,
    /// Inner destination, of the same family.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// TCP or UDP source port.
    pub source_port: u16,
    /// TCP or UDP destination port.
    pub destination_port: u16,
    /// Octets of the inner packet, IP header included.
    pub length: u16,
    /// The DF bit; IPv6 packets have it always.
    pub dont_fragment: bool,
    /// TTL or Hop Limit, inner and outer.
    pub ttl: u8,
    /// TOS octet or Traffic Class, inner and outer.
    pub tos: u8,
    /// From the core: the Instance ID of the LISP header.
    pub instance_id: u32,
    /// From the core: the outer source.
    pub rloc: Option<IpAddr>,
}

/// A side of a tunnel router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Side {
    /// Where packets are native: the site, or the Internet.
    Native,
    /// Where packets are encapsulated: the underlay.
    Core,
}

impl Side {
    /// As written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Core => "core",
        }
    }
}

/// A query on its way to the daemon that answers it.
#[derive(Debug)]
pub struct Request {
    /// What is asked.
    pub query: Query,
    /// Where the answer goes: the view as JSON, or why there is none.
    pub reply: oneshot::Sender<Result<Value, String>>,
}

/// One drop counter, as `show drops` prints it in every role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropCount {
    /// The reason's name.
    pub reason: String,
    /// Packets or messages dropped.
    pub count: u64,
    /// What it means and what to do about it.
    pub help: String,
}
