//! Marks of the LISP header in a trusted core, as both planes know them: map-versions (RFC 9302), Locator-Status-Bits and nonces
//! (RFC 9300 §5.3, §10, §13). Without `data.trusted-core` none of it exists: what a header says then is neither sent nor heeded.
use arc_swap::ArcSwap;
use mapping::eid::{EidPrefix, EidTable, MapVersion};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Locator-Status-Bits: bit i, from the least significant, stands for the locator with ordinal i of a mapping (RFC 9300 §10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusBits {
    /// 1 = up; bits that are not in `known` are 0.
    pub bits: u32,
    /// The bits that say something.
    pub known: u32,
}

impl StatusBits {
    /// Of a header without Instance ID.
    pub const fn of_word(bits: u32) -> Self {
        Self { bits, known: u32::MAX }
    }

    /// Of a header with an Instance ID, which leaves eight.
    pub const fn of_octet(bits: u8) -> Self {
        Self { bits: bits as u32, known: 0xff }
    }

    /// All locators of a mapping with `locators` of them, up.
    pub const fn all_up(locators: usize) -> Self {
        let known = if locators >= 32 { u32::MAX } else { (1 << locators) - 1 };
        Self { bits: known, known }
    }

    /// The bits that both know and that are not the same in both.
    pub const fn difference(self, other: Self) -> u32 {
        (self.bits ^ other.bits) & self.known & other.known
    }

    /// Whether the locator with this ordinal is up, as far as is known.
    pub const fn is_up(self, ordinal: u8) -> bool {
        ordinal >= 32 || (self.bits | !self.known) & (1 << ordinal) != 0
    }

    /// The bit of this ordinal, changed.
    #[must_use]
    pub const fn with(self, ordinal: u8, up: bool) -> Self {
        if ordinal >= 32 {
            return self;
        }
        let bit = 1 << ordinal;
        Self { bits: if up { self.bits | bit } else { self.bits & !bit }, known: self.known | bit }
    }
}

/// What the 24 bits after the flags are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tag {
    /// Nothing.
    #[default]
    None,
    /// N=1: a nonce of 24 bits.
    Nonce {
        /// The nonce.
        nonce: u32,
        /// E=1: to be echoed. Otherwise it is the echo.
        request: bool,
    },
    /// V=1: map-versions.
    Versions {
        /// Of the mapping of the inner source.
        source: MapVersion,
        /// Of the mapping of the inner destination.
        destination: MapVersion,
    },
}

/// What a LISP header says beside the Instance ID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderMarks {
    /// The 24 bits.
    pub tag: Tag,
    /// L=1.
    pub status_bits: Option<StatusBits>,
}

/// As in `isthmus tap` and `isthmus explain`.
impl fmt::Display for HeaderMarks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.tag {
            Tag::None => {}
            Tag::Nonce { nonce, request: true } => write!(f, "nonce {nonce:06x} to be echoed")?,
            Tag::Nonce { nonce, request: false } => write!(f, "nonce {nonce:06x}")?,
            Tag::Versions { source, destination } => {
                write!(f, "map-version {} to {}", source.get(), destination.get())?;
            }
        }
        match self.status_bits {
            None => Ok(()),
            Some(status) => {
                let comma = if self.tag == Tag::None { "" } else { ", " };
                write!(f, "{comma}locator-status-bits {:#x}", status.bits)
            }
        }
    }
}

/// The mapping that packets are encapsulated by, as far as marks go; beside its [`LocatorSet`](crate::fib::LocatorSet).
#[derive(Clone, Debug, Default)]
pub struct EntryMarks {
    /// Its version; Null where versions are not used, or the mapping has none.
    pub version: MapVersion,
    /// What was last taken of its site's Locator-Status-Bits; `None` where they are not heeded.
    pub status_bits: Option<StatusBits>,
    /// Its locators that are in the trusted core, whether packets go there or not.
    pub trusted: Box<[(IpAddr, Arc<Nonces>)]>,
}

impl EntryMarks {
    /// The nonces of a locator, if it is trusted.
    pub fn nonces(&self, rloc: IpAddr) -> Option<&Nonces> {
        self.trusted.iter().find(|(trusted, _)| *trusted == rloc).map(|(_, nonces)| &**nonces)
    }

    /// The tag of a packet to the locator with these nonces, if it is a nonce: the echo of what came from there (DH-24), or from another
    /// locator of the site, as a tunnel router need not send from where it receives; else the request (DH-23): a request that comes in has
    /// the own one rest (DH-27). Only a packet that `is_sent` counts.
    pub(crate) fn nonce(&self, to: &Nonces, clock: u32, is_sent: bool) -> Option<Tag> {
        let others = || self.trusted.iter().find_map(|(_, other)| other.to_echo(clock));
        to.to_echo(clock).or_else(others).or_else(|| to.requested(clock, is_sent))
    }
}

impl PartialEq for EntryMarks {
    fn eq(&self, other: &Self) -> bool {
        let rlocs = |marks: &Self| marks.trusted.iter().map(|(rloc, _)| *rloc).collect::<Vec<_>>();
        self.version == other.version
            && self.status_bits == other.status_bits
            && rlocs(self) == rlocs(other)
    }
}

/// An own mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMark {
    /// Its version; Null where versions are not used.
    pub version: MapVersion,
    /// Whether packets with an older version are refused from everybody (MV-12).
    pub refuses_older: bool,
    /// To be sent with its packets; `None` where they are not used, or not at the moment (DH-22).
    pub status_bits: Option<StatusBits>,
}

/// What the control plane tells the workers.
#[derive(Clone, Debug, Default)]
pub struct TrustedMarks {
    /// Own mappings.
    pub own: EidTable<OwnMark>,
    /// ITRs that stay with an old version of an own mapping whatever they are told (MV-11).
    pub refused: HashSet<(IpAddr, EidPrefix)>,
    /// The trusted locators in use.
    pub peers: Arc<HashMap<IpAddr, Arc<Nonces>>>,
    /// Whose request has this nonce: an ETR may answer from another of its locators.
    pub requests: HashMap<u32, Arc<Nonces>>,
}

/// [`TrustedMarks`] as the workers read them, without a lock.
#[derive(Debug, Default)]
pub struct SharedMarks(ArcSwap<TrustedMarks>);

impl SharedMarks {
    /// What holds now.
    pub fn load(&self) -> arc_swap::Guard<Arc<TrustedMarks>> {
        self.0.load()
    }

    /// What holds from now on.
    pub fn store(&self, marks: TrustedMarks) {
        self.0.store(Arc::new(marks));
    }
}

/// A nonce is there.
const PRESENT: u32 = 1 << 31;
/// Packets without the echo count only this long after the request was first sent: those before were under way. Seconds of the clock.
const ECHO_WAIT: u32 = 3;
/// For how long a nonce is echoed, and own requests rest, after it was received last. Seconds of the clock.
const ECHO_FOR: u32 = 1;

/// Echo-noncing with one locator (RFC 9300 §10.1). The control plane starts and ends requests, the workers do the rest; `clock` is the
/// engine's, in whole seconds. Nothing is written per packet, but once a second while there is a request.
#[derive(Debug, Default)]
pub struct Nonces {
    /// What we want to have echoed.
    request: AtomicU32,
    /// When that was first sent; 0 = not yet.
    asked: AtomicU32,
    /// When a packet came without it.
    missed: AtomicU32,
    echoed: AtomicBool,
    /// What the other end wants to have echoed,
    echo: AtomicU32,
    /// and when it last said so.
    echo_since: AtomicU32,
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Echo {
    /// The echo came: the path is up in both directions.
    Received,
    /// Packets keep coming without it (DH-26).
    Missing,
    /// Nothing can be said yet.
    Awaited,
}

impl Nonces {
    /// Begins a request for this nonce.
    pub fn request(&self, nonce: u32) {
        self.request.store(0, Ordering::Relaxed);
        self.asked.store(0, Ordering::Relaxed);
        self.missed.store(0, Ordering::Relaxed);
        self.echoed.store(false, Ordering::Relaxed);
        self.request.store(PRESENT | nonce & 0x00ff_ffff, Ordering::Release);
    }

    /// Ends the request.
    pub fn cancel(&self) {
        self.request.store(0, Ordering::Relaxed);
    }

    /// How the request stands.
    pub fn state(&self) -> Echo {
        let (asked, missed) =
            (self.asked.load(Ordering::Relaxed), self.missed.load(Ordering::Relaxed));
        if self.echoed.load(Ordering::Relaxed) {
            Echo::Received
        } else if asked != 0 && missed >= asked + ECHO_WAIT {
            Echo::Missing
        } else {
            Echo::Awaited
        }
    }

    #[cfg(test)]
    pub(crate) fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed) != 0
    }

    /// [`EntryMarks::nonce`] of a mapping with this locator only.
    #[cfg(test)]
    pub(crate) fn tag(&self, clock: u32, is_sent: bool) -> Option<Tag> {
        self.to_echo(clock).or_else(|| self.requested(clock, is_sent))
    }

    /// The nonce that came from this locator and is to be echoed now.
    fn to_echo(&self, clock: u32) -> Option<Tag> {
        let echo = self.echo.load(Ordering::Relaxed);
        let is_due = echo != 0 && clock <= self.echo_since.load(Ordering::Relaxed) + ECHO_FOR;
        is_due.then_some(Tag::Nonce { nonce: echo & !PRESENT, request: false })
    }

    /// The nonce that this locator is to echo.
    fn requested(&self, clock: u32, is_sent: bool) -> Option<Tag> {
        let request = self.request.load(Ordering::Acquire);
        if request == 0 {
            return None;
        }
        if is_sent && self.asked.load(Ordering::Relaxed) == 0 {
            self.asked.store(clock, Ordering::Relaxed);
        }
        Some(Tag::Nonce { nonce: request & !PRESENT, request: true })
    }

    /// The nonce that was requested of this locator came back, from whichever.
    pub(crate) fn echoed(&self, nonce: u32) {
        let ended =
            self.request.compare_exchange(PRESENT | nonce, 0, Ordering::Relaxed, Ordering::Relaxed);
        if ended.is_ok() {
            self.echoed.store(true, Ordering::Relaxed);
        }
    }

    /// A packet with this tag came from the locator; [`Self::echoed`] has the echoes.
    pub(crate) fn received(&self, clock: u32, tag: Tag) {
        match tag {
            Tag::Nonce { nonce, request: true } => {
                store_if_new(&self.echo, PRESENT | nonce);
                store_if_new(&self.echo_since, clock);
                // The own request starts anew after it.
                store_if_new(&self.asked, 0);
            }
            // A nonce that nobody asked for is no echo either: some tunnel routers send one with every packet.
            Tag::None | Tag::Versions { .. } | Tag::Nonce { request: false, .. } => {
                if self.request.load(Ordering::Relaxed) != 0 {
                    store_if_new(&self.missed, clock);
                }
            }
        }
    }
}

/// Workers share the line.
fn store_if_new(place: &AtomicU32, value: u32) {
    if place.load(Ordering::Relaxed) != value {
        place.store(value, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: Tag = Tag::Nonce { nonce: 7, request: true };
    const ECHO: Tag = Tag::Nonce { nonce: 7, request: false };

    #[test]
    fn dh_17_bits_are_numbered_from_the_least_significant() {
        let bits = StatusBits::all_up(3).with(2, false);
        assert_eq!((bits.bits, bits.known), (0b011, 0b111), "TV-R13");
        assert!(bits.is_up(0) && bits.is_up(1) && !bits.is_up(2));
        assert!(bits.is_up(3) && bits.is_up(40), "of others nothing is known");
        assert_eq!(StatusBits::all_up(32).known, u32::MAX);
        assert_eq!(StatusBits::all_up(255), StatusBits::all_up(32));
        assert_eq!(bits.difference(StatusBits::of_octet(0xff)), 0b100);
        let far = StatusBits::all_up(20).with(12, false);
        assert_eq!(far.difference(StatusBits::of_octet(0xff)), 0, "an octet does not reach it");
        assert_eq!(far.difference(StatusBits::of_word(0xfffff)), 1 << 12);
    }

    #[test]
    fn dh_23_every_packet_carries_the_request_until_the_echo_comes() {
        let nonces = Nonces::default();
        assert_eq!(nonces.tag(5, true), None);
        nonces.request(7);
        for clock in 5..9 {
            assert_eq!(nonces.tag(clock, true), Some(REQUEST));
        }
        assert_eq!(nonces.state(), Echo::Awaited);
        nonces.echoed(8);
        assert_eq!((nonces.state(), nonces.tag(9, true)), (Echo::Awaited, Some(REQUEST)));
        nonces.echoed(7);
        assert_eq!((nonces.state(), nonces.tag(9, true)), (Echo::Received, None));
    }

    #[test]
    fn dh_24_what_was_received_is_echoed_in_the_next_packets() {
        let nonces = Nonces::default();
        nonces.received(5, REQUEST);
        assert_eq!(nonces.tag(5, true), Some(ECHO));
        assert_eq!(nonces.tag(6, true), Some(ECHO), "one may get lost");
        assert_eq!(nonces.tag(7, true), None);
    }

    #[test]
    fn dh_26_only_packets_without_the_echo_say_that_it_is_missing() {
        let nonces = Nonces::default();
        nonces.request(7);
        nonces.received(90, Tag::None);
        assert_eq!(nonces.state(), Echo::Awaited, "nothing was sent that could be echoed");
        nonces.request(7);
        nonces.tag(100, false);
        nonces.tag(101, true);
        assert_eq!(nonces.state(), Echo::Awaited, "no return traffic says nothing");
        nonces.received(103, Tag::None);
        assert_eq!(nonces.state(), Echo::Awaited, "it may have been under way");
        nonces.received(
            104,
            Tag::Versions { source: MapVersion::NULL, destination: MapVersion::from_bits(9) },
        );
        assert_eq!(nonces.state(), Echo::Missing);
    }

    #[test]
    fn dh_26_a_nonce_that_nobody_asked_for_is_no_echo() {
        let nonces = Nonces::default();
        nonces.request(7);
        nonces.tag(101, true);
        nonces.received(104, Tag::Nonce { nonce: 8, request: false });
        assert_eq!(nonces.state(), Echo::Missing);
    }

    #[test]
    fn dh_27_an_own_request_rests_while_the_other_end_requests() {
        let nonces = Nonces::default();
        nonces.request(7);
        assert_eq!(nonces.tag(10, true), Some(REQUEST));
        nonces.received(11, Tag::Nonce { nonce: 99, request: true });
        let echo = Some(Tag::Nonce { nonce: 99, request: false });
        assert_eq!((nonces.tag(11, true), nonces.tag(12, true)), (echo, echo));
        nonces.received(13, Tag::None);
        assert_eq!(nonces.state(), Echo::Awaited, "the wait begins anew");
        assert_eq!(nonces.tag(13, true), Some(REQUEST), "resumed");
    }
}
