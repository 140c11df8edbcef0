//! What a running daemon can be asked through its admin socket; every daemon answers the subset that fits its role.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::eid::EidPrefix;
use crate::recorder::Told;

/// Entries in a part of a long list, so that a daemon with a million of them does its work in between.
pub const PART: usize = 1_000;

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
    /// Hosts of dynamic-EID ranges, here and away (xtr).
    Mobility,
    /// NAT traversal: own RLOCs and their RTRs (xtr), or the xTRs served (gateway).
    Nat,
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
    /// Begin to tap packets; the answer is the number of the session (xtr, gateway). Shows what others send: see [`Self::is_privileged`].
    Tap(TapQuery),
    /// What the tap found since the last question; it ends unless it is asked for every few seconds.
    TapNext {
        /// The number of the session.
        session: u64,
        /// End it with this answer.
        stop: bool,
    },
    /// What arrived for own EID-prefixes, and what was sent where, each by RLOC (xtr, gateway).
    Traffic,
    /// How far the migration is: what was sent and received by inner and outer family, directly or through a proxy, and by site (xtr,
    /// gateway). The answer is a list of partial sums.
    Migration,
    /// Remote RLOCs with their state, without what was sent to them (xtr, gateway): never a long walk, however many entries there are.
    RemoteRlocs,
    /// Map-cache entries of a part of the EID space (xtr, gateway).
    FindMappings {
        /// Those in it, and before them those that cover it; `None` = all.
        within: Option<EidPrefix>,
        /// Only those whose mapping names this RLOC.
        rloc: Option<IpAddr>,
        /// At most so many at once; no more than [`PART`].
        most: usize,
    },
    /// Interfaces with what they are used for, and their counters (xtr, gateway).
    Interfaces,
    /// The configuration that runs, without secrets.
    Config,
    /// Forget map-cache entries (xtr, gateway): all, those in a prefix, or the one that an EID is found by. The answer is their number.
    ClearMapCache {
        /// Which; `None` = all.
        eid: Option<EidPrefix>,
    },
    /// Read the configuration file anew.
    Reload,
    /// Take this configuration over.
    Apply {
        /// Where it comes from: for messages, and for the paths in it.
        file: String,
        /// Its content.
        text: String,
        /// Return to the configuration of before unless [`Self::Confirm`] comes in so many seconds; `None` = no need to confirm.
        confirm_within_seconds: Option<u64>,
    },
    /// Keep the configuration that waits for it.
    Confirm,
    /// Return to the configuration of before the last change.
    Undo,
    /// Everything counted and measured, for monitoring.
    Metrics,
    /// What counters were in the last 10 minutes, 2 hours, day.
    History {
        /// Their names; empty = all.
        counters: Vec<String>,
    },
    /// What happened.
    Events {
        /// Only what came after the event of this number.
        after: Option<u64>,
    },
    /// The map-cache entries that carried most octets (xtr, gateway).
    TopEids {
        /// How many of them.
        most: usize,
    },
    /// Keep this among the events. For the daemon's own shell: nobody can ask it through the socket.
    #[serde(skip)]
    Keep(Told),
}

impl Query {
    /// Whether only the administrator of the host may ask: it changes something, or shows what is in packets.
    pub const fn is_privileged(&self) -> bool {
        matches!(
            self,
            Self::Tap(_)
                | Self::TapNext { .. }
                | Self::ClearMapCache { .. }
                | Self::Reload
                | Self::Apply { .. }
                | Self::Confirm
                | Self::Undo
        )
    }
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

/// Which packets to tap, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapQuery {
    /// Terms joined by `and`; empty = every packet.
    pub filter: String,
    /// One of so many packets that match; 1 = all.
    pub sample: u64,
    /// Packets wanted; `None` = as many as there are.
    pub count: Option<u64>,
    /// How long, milliseconds.
    pub milliseconds: u64,
    /// Show packets as they leave too, not only as they come in.
    pub outputs: bool,
}

/// What a tap found since the last question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapAnswer {
    /// In the order of time.
    pub packets: Vec<TapPacket>,
    /// Packets that matched but found no room.
    pub lost: u64,
    /// More are waiting: ask again at once.
    pub more: bool,
    /// The tap is over.
    pub done: bool,
}

/// A packet on one side of a tunnel router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapPacket {
    /// Since 1970, nanoseconds: of the batch in which it was forwarded.
    pub nanoseconds: u64,
    /// Where it was seen.
    pub side: Side,
    /// Whether it came or left there.
    pub direction: Direction,
    /// What became of it.
    pub verdict: TapVerdict,
    /// The name of the drop counter.
    pub reason: Option<String>,
    /// It waited for its mapping before.
    pub waited: bool,
    /// Inner source; `None` if it is no packet.
    pub source: Option<IpAddr>,
    /// Inner destination.
    pub destination: Option<IpAddr>,
    /// Protocol in the inner packet.
    pub protocol: Option<u8>,
    /// Source and destination port in the inner packet.
    pub ports: Option<(u16, u16)>,
    /// Octets of the inner packet; a super-packet of the kernel may be longer than any path takes.
    pub inner_length: Option<usize>,
    /// The other end of the tunnel.
    pub rloc: Option<IpAddr>,
    /// Instance ID in the LISP header.
    pub instance_id: Option<u32>,
    /// What the LISP header says beside it, in words, if anything; outside a trusted core it means nothing.
    #[serde(default)]
    pub marks: Option<String>,
    /// Packets that left for it; of several, the first is shown as it leaves.
    pub pieces: u32,
    /// Octets of the packet as it was seen, outer header included.
    pub length: usize,
    /// Its first octets, in hexadecimal digits. The outer header is as it is sent; of a packet that came in, the outer source port and
    /// which of several own addresses of a family it came to are not known.
    pub octets: String,
}

/// Which way a packet went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// It came in.
    In,
    /// It left.
    Out,
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TapVerdict {
    /// Sent to a locator.
    Encapsulated,
    /// Taken out of one tunnel and sent into another.
    Reencapsulated,
    /// Decapsulated and handed to the kernel.
    Delivered,
    /// Taken out of a tunnel and handed to the control plane.
    Punted,
    /// Handed back to the kernel as it came.
    ForwardedNatively,
    /// It waits for its mapping.
    Held,
    /// Dropped.
    Dropped,
}

impl TapVerdict {
    /// As written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulated => "encapsulated",
            Self::Reencapsulated => "reencapsulated",
            Self::Punted => "punted",
            Self::Delivered => "delivered",
            Self::ForwardedNatively => "forwarded-natively",
            Self::Held => "held",
            Self::Dropped => "dropped",
        }
    }
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
    /// Where a list that comes in parts goes on; `None` = at its beginning.
    pub after: Option<EidPrefix>,
    /// Where the answer goes, or why there is none.
    pub reply: oneshot::Sender<Result<Part, String>>,
}

/// An answer, or some entries of a long list.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// The view as JSON.
    pub view: Value,
    /// What to ask for next; `None` = this was all.
    pub next: Option<EidPrefix>,
}

impl From<Value> for Part {
    fn from(view: Value) -> Self {
        Self { view, next: None }
    }
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
