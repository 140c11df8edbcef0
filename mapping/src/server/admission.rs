//! Who is served when not everybody can be: limits before anything is parsed, and before any MAC is computed (MS-23).
//!
//! A source has its own rate. What a flood from spoofed sources takes, each with hardly a message, is bounded by a share that all
//! strangers have together: sources that registered, or that asked while there was no flood, do not draw on it. So a flood costs
//! strangers their answers, and nobody else. The share shrinks while this node does not keep up, on however slow a machine. A site has a
//! rate too, for what claims to come from it.
//!
//! Nothing in here grows: tables have fixed sizes and are found by a seeded hash.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::limits::{Acquaintances, Rate, Scatter, ScatteredBuckets, TokenBucket, source_key};
use crate::timers;

use super::site::SiteIndex;

/// A bucket with its rate.
#[derive(Clone, Debug)]
struct Share {
    rate: Rate,
    bucket: TokenBucket,
}

impl Share {
    const fn new(rate: Rate) -> Self {
        Self { rate, bucket: TokenBucket::new() }
    }

    fn take(&mut self, now: Instant) -> bool {
        self.bucket.take(now, self.rate)
    }

    /// As [`Self::take`] with the rate halved so many times.
    fn take_under(&mut self, now: Instant, pressure: u32) -> bool {
        self.bucket.take(now, self.rate.slowed(pressure))
    }

    fn is_low(&self, now: Instant) -> bool {
        self.bucket.is_low(now, self.rate)
    }
}

/// What one site may take.
#[derive(Clone, Debug)]
struct SiteShares {
    all: Share,
    strangers: Share,
}

impl SiteShares {
    fn new() -> Self {
        let share = |per_second, burst| Share::new(Rate::new(per_second, burst));
        Self {
            all: share(timers::SITE_REGISTERS_PER_SECOND, timers::SITE_REGISTERS_BURST),
            strangers: share(timers::SITE_STRANGERS_PER_SECOND, timers::SITE_STRANGERS_BURST),
        }
    }
}

/// Whether this node keeps up with what comes, judged once in a while.
#[derive(Debug, Default)]
struct Load {
    since: Option<Instant>,
    turns: u32,
    behind: u32,
    /// How many times the shares of strangers are halved.
    pressure: u32,
}

impl Load {
    /// Between two judgements.
    const PERIOD: Duration = Duration::from_millis(20);
    /// Then the shares are a thousandth.
    const MOST: u32 = 10;

    fn turn(&mut self, now: Instant, behind: bool) {
        let since = *self.since.get_or_insert(now);
        self.turns += 1;
        self.behind += u32::from(behind);
        if now.saturating_duration_since(since) < Self::PERIOD {
            return;
        }
        self.pressure = match self.behind {
            all if all == self.turns => (self.pressure + 1).min(Self::MOST),
            few if few * 2 < self.turns => self.pressure.saturating_sub(1),
            _ => self.pressure,
        };
        *self = Self { since: Some(now), pressure: self.pressure, ..Self::default() };
    }
}

/// The limits of a Map-Server and Map-Resolver.
#[derive(Debug)]
pub(super) struct Admission {
    registers: ScatteredBuckets,
    requests: ScatteredBuckets,
    strangers_registers: Share,
    strangers_requests: Share,
    etrs: Acquaintances,
    itrs: Acquaintances,
    sites: Vec<SiteShares>,
    load: Load,
    /// Whether registrations are refused, since what they change cannot be kept in time.
    pub(super) shed_registers: bool,
}

impl Admission {
    /// The limits for so many sites.
    pub(super) fn new(sites: usize, scatter: Scatter) -> Self {
        let per_source = |rate| ScatteredBuckets::new(rate, timers::TRACKED_SOURCES, scatter);
        let known =
            |probation, count| Acquaintances::new(probation, timers::ACQUAINTANCE, count, scatter);
        Self {
            registers: per_source(Rate::new(timers::REGISTERS_PER_SECOND, timers::REGISTERS_BURST)),
            requests: per_source(Rate::new(timers::REQUESTS_PER_SECOND, timers::REQUESTS_BURST)),
            strangers_registers: Share::new(Rate::new(
                timers::STRANGERS_REGISTERS_PER_SECOND,
                timers::STRANGERS_REGISTERS_BURST,
            )),
            strangers_requests: Share::new(Rate::new(
                timers::STRANGERS_REQUESTS_PER_SECOND,
                timers::STRANGERS_REQUESTS_BURST,
            )),
            etrs: known(Duration::ZERO, timers::KNOWN_ETRS),
            itrs: known(timers::PROBATION, timers::KNOWN_ITRS),
            sites: vec![SiteShares::new(); sites],
            load: Load::default(),
            shed_registers: false,
        }
    }

    /// There are so many sites now; the places of those from before stay.
    pub(super) fn set_sites(&mut self, sites: usize) {
        self.sites.resize(sites.max(self.sites.len()), SiteShares::new());
    }

    /// Some messages were taken from a queue; `behind` if more were there than could be taken. As long as this goes on, strangers get
    /// less and less, until what is known of the others is served in time.
    pub(super) fn turn(&mut self, now: Instant, behind: bool) {
        self.load.turn(now, behind);
    }

    /// A Map-Register.
    pub(super) fn register(&mut self, now: Instant, source: IpAddr) -> Result<(), Discard> {
        if self.shed_registers {
            return Err(Discard::StoreBehind);
        }
        let source = source_key(source);
        if !self.registers.take(now, &source) {
            return Err(Discard::SourceRateLimited);
        }
        let pressure = self.load.pressure;
        let admitted =
            self.etrs.contains(now, &source) || self.strangers_registers.take_under(now, pressure);
        admitted.then_some(()).ok_or(Discard::StrangersRateLimited)
    }

    /// Any other message.
    pub(super) fn request(&mut self, now: Instant, source: IpAddr) -> Result<(), Discard> {
        self.record(now, source)?;
        let source = source_key(source);
        let known = self.itrs.contains(now, &source) || self.etrs.contains(now, &source);
        let admitted = known || self.strangers_requests.take_under(now, self.load.pressure);
        admitted.then_some(()).ok_or(Discard::StrangersRateLimited)
    }

    /// Another record of a message that was admitted.
    pub(super) fn record(&mut self, now: Instant, source: IpAddr) -> Result<(), Discard> {
        let admitted = self.requests.take(now, &source_key(source));
        admitted.then_some(()).ok_or(Discard::SourceRateLimited)
    }

    /// A Map-Register that names `site`, before its MAC is computed.
    pub(super) fn site(
        &mut self,
        now: Instant,
        site: SiteIndex,
        source: IpAddr,
    ) -> Result<(), Discard> {
        let Some(shares) = self.sites.get_mut(site.place()) else {
            return Ok(());
        };
        // Strangers first, so that what is refused of them takes nothing from the site.
        let known = self.etrs.contains(now, &source_key(source));
        let admitted = (known || shares.strangers.take(now)) && shares.all.take(now);
        admitted.then_some(()).ok_or(Discard::SiteRateLimited)
    }

    /// `source` proved who it is: an authentic Map-Register that is no replay.
    pub(super) fn registered(&mut self, now: Instant, source: IpAddr) {
        self.etrs.meet(now, &source_key(source));
    }

    /// `source` asked for something in a well-formed way. That proves little, so it makes nobody known while strangers flood.
    pub(super) fn asked(&mut self, now: Instant, source: IpAddr) {
        let source = source_key(source);
        let calm = self.load.pressure == 0 && !self.strangers_requests.is_low(now);
        if calm || self.itrs.contains(now, &source) {
            self.itrs.meet(now, &source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HONEST: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

    fn admission(sites: usize) -> (Admission, Instant) {
        (Admission::new(sites, Scatter::new([1, 2])), Instant::now())
    }

    /// Many addresses, one message each.
    fn spoofed() -> impl Iterator<Item = IpAddr> {
        (0..400_000_u32).map(|n| Ipv4Addr::from(0x0a00_0000 + n).into())
    }

    /// Ten times the share of strangers.
    fn flood(start: Instant, mut each: impl FnMut(Instant, usize, IpAddr)) {
        for (number, source) in spoofed().enumerate() {
            each(start + Duration::from_micros(number as u64), number, source);
        }
    }

    #[test]
    fn ms_23_who_asked_before_a_flood_is_served_during_it() {
        let (mut admission, start) = admission(0);
        for at in [start, start + timers::PROBATION] {
            assert_eq!(admission.request(at, HONEST), Ok(()));
            admission.asked(at, HONEST);
        }
        let (mut served, mut answered) = (0, 0);
        flood(start + timers::PROBATION, |now, number, source| {
            if admission.request(now, source).is_ok() {
                served += 1;
                admission.asked(now, source);
            }
            if number % 100_000 == 0 {
                answered += usize::from(admission.request(now, HONEST).is_ok());
            }
        });
        assert_eq!(answered, 4);
        let share = timers::STRANGERS_REQUESTS_BURST + timers::STRANGERS_REQUESTS_PER_SECOND;
        assert!(served <= share + 1, "{served}");
    }

    #[test]
    fn ms_23_who_registered_before_a_flood_registers_during_it() {
        let (mut admission, start) = admission(1);
        admission.registered(start, HONEST);
        let mut admitted = 0;
        flood(start, |now, number, source| {
            admitted += u32::from(admission.register(now, source).is_ok());
            if number % 1_000 == 0 {
                assert_eq!(admission.register(now, HONEST), Ok(()));
                assert_eq!(admission.site(now, SiteIndex::at(0), HONEST), Ok(()));
            }
        });
        let share = timers::STRANGERS_REGISTERS_BURST + timers::STRANGERS_REGISTERS_PER_SECOND;
        assert!(admitted <= share + 1, "{admitted}");
    }

    #[test]
    fn ms_23_a_flood_of_one_source_is_bounded_known_or_not() {
        let (mut admission, start) = admission(0);
        admission.registered(start, HONEST);
        let most = timers::REGISTERS_BURST;
        let admitted = (0..2 * most).filter(|_| admission.register(start, HONEST).is_ok()).count();
        assert_eq!(admitted, most as usize);
        assert_eq!(admission.register(start, HONEST), Err(Discard::SourceRateLimited));
    }

    #[test]
    fn a_flood_in_the_name_of_one_site_leaves_other_sites_and_its_own_etrs_alone() {
        let (mut admission, start) = admission(2);
        admission.registered(start, HONEST);
        let stranger = Ipv4Addr::new(192, 0, 2, 2).into();
        let mut computed = 0;
        for source in spoofed() {
            computed += u32::from(admission.site(start, SiteIndex::at(0), source).is_ok());
        }
        assert_eq!(computed, timers::SITE_STRANGERS_BURST);
        assert_eq!(admission.site(start, SiteIndex::at(0), HONEST), Ok(()));
        assert_eq!(admission.site(start, SiteIndex::at(1), stranger), Ok(()));
        assert_eq!(
            admission.site(start, SiteIndex::at(0), stranger),
            Err(Discard::SiteRateLimited)
        );
    }

    #[test]
    fn while_the_store_is_behind_lookups_are_answered_and_registrations_refused() {
        let (mut admission, start) = admission(1);
        admission.registered(start, HONEST);
        admission.shed_registers = true;
        assert_eq!(admission.register(start, HONEST), Err(Discard::StoreBehind));
        assert_eq!(admission.request(start, HONEST), Ok(()));
        admission.shed_registers = false;
        assert_eq!(admission.register(start, HONEST), Ok(()));
    }

    #[test]
    fn ms_23_a_node_that_does_not_keep_up_gives_strangers_less_and_then_more_again() {
        let (mut admission, start) = admission(0);
        let mut now = start;
        let served_of_1_000 = |admission: &mut Admission, now: &mut Instant, behind| {
            let mut served = 0;
            for source in spoofed().take(1_000) {
                *now += Duration::from_millis(2);
                admission.turn(*now, behind);
                // Half of what a calm node takes.
                served += (0..100).filter(|_| admission.request(*now, source).is_ok()).count();
            }
            served
        };
        assert_eq!(served_of_1_000(&mut admission, &mut now, false), 100_000);
        assert!(served_of_1_000(&mut admission, &mut now, true) < 20_000);
        let least = served_of_1_000(&mut admission, &mut now, true);
        assert!((50..200).contains(&least), "{least}");
        for at in [start, start + timers::PROBATION] {
            admission.asked(at, HONEST);
        }
        served_of_1_000(&mut admission, &mut now, false);
        assert_eq!(served_of_1_000(&mut admission, &mut now, false), 100_000);
    }
}
