//! What `isthmus explain` answers.
use crate::view::MapCacheEntryView;
use mapping::admin::ExplainQuery;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What would become of a packet, and how that comes about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainView {
    /// The packet.
    pub packet: ExplainQuery,
    /// What would become of it.
    pub verdict: Outcome,
    /// The name of the drop counter, when it would be dropped.
    pub reason: Option<String>,
    /// What that means and what to do about it.
    pub help: Option<String>,
    /// Everything found out and decided, in order.
    pub steps: Vec<StepView>,
    /// The map-cache entry that matches.
    pub entry: Option<MapCacheEntryView>,
    /// The locator chosen.
    pub locator: Option<LocatorChoice>,
    /// The outer header.
    pub outer: Option<OuterView>,
    /// How its size fits the path.
    pub size: Option<SizeView>,
    /// The inner packet after decapsulation.
    pub delivered: Option<DeliveredView>,
    /// The ICMP error that its source would get.
    pub icmp: Option<IcmpView>,
}

/// The end of a packet's way through the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Sent to a locator.
    Encapsulate,
    /// Taken out of one tunnel and sent into another (RTR).
    Reencapsulate,
    /// Decapsulated and handed to the kernel.
    Deliver,
    /// Handed back to the kernel as it came.
    ForwardNatively,
    /// Held until its mapping is there.
    Wait,
    /// Dropped.
    Drop,
}

impl Outcome {
    /// As written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encapsulate => "encapsulate",
            Self::Reencapsulate => "reencapsulate",
            Self::Deliver => "deliver",
            Self::ForwardNatively => "forward-natively",
            Self::Wait => "wait",
            Self::Drop => "drop",
        }
    }
}

/// One step, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepView {
    /// A word or two.
    pub step: String,
    /// What was found.
    pub text: String,
}

/// The locator a flow goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LocatorChoice {
    /// The remote RLOC.
    pub address: IpAddr,
    /// The own RLOC it is reached from.
    pub own_rloc: IpAddr,
    /// Its weight.
    pub weight: u8,
    /// Its share of the flows by weight, thousandths.
    pub share_permille: u32,
    /// Locators of the best priority that can be used, this one included.
    pub candidates: usize,
    /// What chose among them: the hash of the flow, in hexadecimal digits.
    pub flow_hash: String,
}

/// An outer header.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OuterView {
    /// Own RLOC.
    pub source: IpAddr,
    /// Remote RLOC.
    pub destination: IpAddr,
    /// UDP source port, of the flow.
    pub source_port: u16,
    /// 4341.
    pub destination_port: u16,
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// ECN, 0 to 3.
    pub ecn: u8,
    /// Instance ID in the LISP header.
    pub instance_id: u32,
    /// Whether routers on the way may fragment it (MT-08).
    pub may_fragment: bool,
}

/// A packet's size against its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SizeView {
    /// Octets of the inner packet.
    pub inner: usize,
    /// Octets of each packet sent, outer header included.
    pub sent: Vec<usize>,
    /// The largest outer packet that the path takes, octets.
    pub path_mtu: u16,
    /// The same before reports from the path.
    pub configured_mtu: u16,
    /// The largest inner packet that fits, octets.
    pub largest_inner: usize,
    /// `fits`, `fragment-outside`, `fragment` or `too-big`.
    pub fit: String,
}

/// A packet that left its tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveredView {
    /// Octets.
    pub length: usize,
    /// TTL or Hop Limit.
    pub ttl: u8,
    /// DSCP, 0 to 63.
    pub dscp: u8,
    /// ECN, 0 to 3.
    pub ecn: u8,
}

/// An ICMP error to the source of a dropped packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpView {
    /// `packet-too-big`, `time-exceeded` or `host-unreachable`.
    pub kind: String,
    /// Who gets it.
    pub to: IpAddr,
    /// The MTU it tells, octets.
    pub mtu: Option<u16>,
}
