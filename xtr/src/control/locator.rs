//! Remote RLOCs: what is known of each, shared by every map-cache entry that uses it (PB-18, MC-26), and which carry traffic.
use super::echo_nonce::Peer;
use super::loss::Loss;
use super::own::OwnRlocs;
use super::path_mtu::Discovery;
use super::probe_schedule::Class;
use super::round_trip::RoundTrip;
use super::ways::Ways;
use crate::config::DEFAULT_MTU;
use crate::counters::TrafficCounters;
use crate::drops::DropReason;
use crate::fib::{Adjacency, Ports};
use crate::view::PathMtuState;
use mapping::eid::EidPrefix;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Instant;

/// The underlay's path to a remote RLOC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// Not looked up yet: taken as there.
    Unknown,
    /// A route with this MTU, octets.
    Mtu(u16),
    /// No route (PB-16).
    None,
}

/// What RLOC-probing found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reachability {
    /// Never answered, never given up.
    Unprobed,
    /// The last probe was answered.
    Up,
    /// Was down, and answered so many probes in a row since.
    Recovering(u32),
    /// Given up until a probe is answered.
    Down(Why),
}

/// Why a locator is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It did not answer.
    Unanswered,
    /// A router said that the network or the host cannot be reached (PB-14).
    Unreachable,
    /// Nobody there takes LISP packets (PB-15).
    NotLisp,
    /// It sends packets, but does not echo nonces (DH-26).
    NotEchoed,
}

/// What may be sent to a locator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// Whatever its priority and weight give it.
    Usable,
    /// What nobody else can carry.
    LastResort,
    /// Nothing.
    Unusable,
}

/// An RLOC-probe sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    pub(super) nonce: u64,
    pub(super) sent: Instant,
    /// The own RLOC that it was sent from.
    pub(super) source: IpAddr,
    /// The EID-prefix asked about.
    pub(super) prefix: EidPrefix,
}

/// One remote RLOC.
#[derive(Debug)]
pub(super) struct Locator {
    /// Entries whose mapping names it.
    pub(super) users: BTreeSet<EidPrefix>,
    /// Whether it is in the use-petr set.
    pub(super) petr: bool,
    pub(super) path: Path,
    pub(super) reachability: Reachability,
    /// From where it is reached.
    pub(super) ways: Ways,
    /// When its state became what it is.
    pub(super) since: Instant,
    pub(super) round_trip: Option<RoundTrip>,
    pub(super) last_reply: Option<Instant>,
    /// Probes sent, and those of them that were answered.
    pub(super) probes: (u64, u64),
    /// Written by the data plane: when it last carried a packet, on its coarse clock.
    pub(super) used: Arc<AtomicU32>,
    /// `used` when it was looked at last.
    pub(super) used_seen: u32,
    /// It counts as carrying traffic until then.
    pub(super) active_until: Option<Instant>,
    /// What routers say of it is not believed before: a probe overruled the last one that did.
    pub(super) doubted_until: Option<Instant>,
    /// Unanswered probes, oldest first.
    pub(super) outstanding: Vec<Probe>,
    /// Probes since the last answer.
    pub(super) tries: u32,
    /// How many get lost on the way.
    pub(super) loss: Loss,
    /// Which of `users` was asked about last: after a probe without answer the next is, as its ETR may no longer serve this one.
    pub(super) asked: Option<EidPrefix>,
    /// The longer it has been down since then, the more rarely it is probed (PB-11).
    pub(super) patience_from: Instant,
    /// When the next probe is due, and in which queue it waits.
    pub(super) due: Option<(Class, Instant)>,
    /// The largest outer packet while the path is not looked up, octets.
    assumed_mtu: u16,
    /// Once it answers probes, if the path MTU is to be found out.
    pub(super) discovery: Option<Discovery>,
    /// Of path probes without answer.
    pub(super) path_nonces: Vec<u64>,
    /// If it is in the trusted core.
    pub(super) peer: Option<Peer>,
}

impl Locator {
    pub(super) fn new(now: Instant, assumed_mtu: u16) -> Self {
        Self {
            users: BTreeSet::new(),
            petr: false,
            path: Path::Unknown,
            reachability: Reachability::Unprobed,
            ways: Ways::default(),
            since: now,
            round_trip: None,
            last_reply: None,
            probes: (0, 0),
            used: Arc::default(),
            used_seen: 0,
            active_until: None,
            doubted_until: None,
            outstanding: Vec::new(),
            tries: 0,
            loss: Loss::default(),
            asked: None,
            patience_from: now,
            due: None,
            assumed_mtu,
            discovery: None,
            path_nonces: Vec::new(),
            peer: None,
        }
    }

    /// What may be sent to it as far as this node can tell (PB-16, PB-17).
    pub(super) const fn standing(&self) -> Standing {
        match (self.path, self.reachability) {
            (Path::None, _) => Standing::Unusable,
            // Which direction of the path is broken is not known: with no other locator it may be the other one.
            (_, Reachability::Recovering(_) | Reachability::Down(Why::NotEchoed)) => {
                Standing::LastResort
            }
            (_, Reachability::Down(_)) => Standing::Unusable,
            (_, Reachability::Unprobed | Reachability::Up) => Standing::Usable,
        }
    }

    pub(super) const fn is_down(&self) -> bool {
        matches!(self.reachability, Reachability::Down(_))
    }

    /// Whether it carried traffic lately.
    pub(super) fn is_active(&self, now: Instant) -> bool {
        self.active_until.is_some_and(|until| now < until)
    }

    /// The largest outer packet towards it, octets.
    pub(super) fn mtu(&self) -> u16 {
        self.discovery.as_ref().map_or(self.ceiling(), Discovery::estimate)
    }

    /// How [`Self::mtu`] is known.
    pub(super) fn path_mtu_state(&self) -> PathMtuState {
        match &self.discovery {
            Some(discovery) if discovery.is_searching() => PathMtuState::Searching,
            Some(discovery) if discovery.is_confirmed() => PathMtuState::Confirmed,
            _ => PathMtuState::Assumed,
        }
    }

    /// The largest outer packet that our own side sends towards it, octets.
    pub(super) fn ceiling(&self) -> u16 {
        match self.path {
            Path::Mtu(mtu) => mtu,
            Path::Unknown | Path::None => self.assumed_mtu,
        }
    }
}

/// A locator of a mapping or of the use-petr set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) address: IpAddr,
    pub(super) priority: u8,
    pub(super) weight: u8,
    /// R-bit.
    pub(super) reachable: bool,
    /// Its place in the record, from 0: the number of its Locator-Status-Bit (RFC 9300 §10).
    pub(super) ordinal: u8,
    pub(super) via: Via,
}

/// How a locator is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Via {
    /// From whichever own RLOC serves, to port 4341.
    #[default]
    Usual,
    /// From this own RLOC, which is behind a NAT, from one port alone.
    Nat(IpAddr),
    /// From this own RLOC and port 4342 to a port that a NAT has translated.
    Translated(IpAddr, u16),
}

impl Via {
    const fn source(self) -> Option<IpAddr> {
        match self {
            Self::Usual => None,
            Self::Nat(source) | Self::Translated(source, _) => Some(source),
        }
    }

    const fn ports(self) -> Ports {
        match self {
            Self::Usual => Ports::ByFlow,
            Self::Nat(_) => Ports::Static,
            Self::Translated(_, port) => Ports::Translated(port),
        }
    }
}

/// Whether a locator of our families is worth tracking and probing.
pub(super) fn is_trackable(own: &OwnRlocs, address: IpAddr) -> bool {
    own.for_family(address).is_some() && !own.contains(address)
}

/// The adjacencies that carry traffic: usable (or, for want of those, recovering), best priority only (MC-17 to MC-19, MC-23, PB-17), sorted by address; or why there is none.
pub(super) fn select(
    own: &OwnRlocs,
    known: &BTreeMap<IpAddr, Locator>,
    candidates: &[Candidate],
    traffic: &mut BTreeMap<IpAddr, Arc<TrafficCounters>>,
) -> Result<Box<[Adjacency]>, DropReason> {
    let standing = |candidate: &Candidate| {
        let eligible = candidate.reachable
            && candidate.priority != 255
            && own.can_send(candidate.address)
            && !own.contains(candidate.address);
        match known.get(&candidate.address) {
            _ if !eligible => Standing::Unusable,
            // Nobody probes through a NAT: Map-Registers keep the way open, or it is not there at all.
            Some(locator) if candidate.via != Via::Usual && locator.path != Path::None => {
                Standing::Usable
            }
            Some(locator) => locator.standing(),
            None => Standing::Usable,
        }
    };
    // One that recovers is better than none.
    let least = candidates.iter().map(standing).min().unwrap_or(Standing::Unusable);
    let usable =
        |candidate: &&Candidate| least != Standing::Unusable && standing(candidate) == least;
    let Some(best) = candidates.iter().filter(usable).map(|c| c.priority).min() else {
        return Err(why_none(own, candidates));
    };
    let mut adjacencies: Vec<Adjacency> = candidates
        .iter()
        .filter(usable)
        .filter(|candidate| candidate.priority == best)
        .filter_map(|candidate| {
            Some(Adjacency {
                source: candidate.via.source().or_else(|| {
                    known.get(&candidate.address).map_or_else(
                        || own.for_family(candidate.address),
                        |locator| locator.source(own, candidate.address),
                    )
                })?,
                destination: candidate.address,
                weight: candidate.weight,
                mtu: known.get(&candidate.address).map_or(DEFAULT_MTU, Locator::mtu),
                traffic: Arc::clone(traffic.entry(candidate.address).or_default()),
                ports: candidate.via.ports(),
                used: known
                    .get(&candidate.address)
                    .map_or_else(Arc::default, |locator| Arc::clone(&locator.used)),
            })
        })
        .collect();
    adjacencies.sort_by_key(|adjacency| adjacency.destination);
    Ok(adjacencies.into_boxed_slice())
}

/// A locator that may send, for the table of sources; nothing is sent to it from there.
pub(super) fn sender(address: IpAddr) -> Adjacency {
    Adjacency {
        source: address,
        destination: address,
        weight: 0,
        mtu: 0,
        traffic: Arc::default(),
        ports: Ports::ByFlow,
        used: Arc::default(),
    }
}

/// Whether two sets send the same packets the same way.
pub(super) fn same_set(one: &[Adjacency], other: &[Adjacency]) -> bool {
    let key = |a: &Adjacency| (a.source, a.destination, a.weight, a.mtu, a.ports);
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| key(a) == key(b))
}

/// Why no candidate is usable (EN-24, EN-25, PB-19). A family whose own RLOCs are all down is none of ours.
fn why_none(own: &OwnRlocs, candidates: &[Candidate]) -> DropReason {
    let unicast = || candidates.iter().filter(|candidate| candidate.priority != 255);
    let of_family = || unicast().filter(|c| own.can_send(c.address));
    if unicast().next().is_some() && of_family().next().is_none() {
        DropReason::NoCommonRlocFamily
    } else if of_family().next().is_some() && of_family().all(|c| own.contains(c.address)) {
        DropReason::EncapsulationLoop
    } else {
        DropReason::NoUsableLocator
    }
}
