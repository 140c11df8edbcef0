//! What the kernel says of the underlay, as the control plane hears of it: own RLOCs that come and go, paths to remote ones.
//!
//! The first changes are acted upon at once, a storm of them at a bounded rate: an xTR whose link flaps must not flood the mapping system,
//! nor must one with ten thousand remote RLOCs look up their paths all the time.
use super::Daemon;
use crate::host::changes::Change;
use crate::host::underlay::{self, PathAnswer, PathQuestion};
use mapping::recorder::Told;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// In a storm of changes, they are acted upon this often.
const STORM_INTERVAL: Duration = Duration::from_millis(500);
/// So many changes are acted upon at once before it counts as a storm.
const AT_ONCE: u32 = 4;
/// Everything is looked up again at least this often.
const REFRESH: Duration = Duration::from_secs(60);
/// The kernel is told at most this often which routes matter.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(1);
/// An own RLOC that came back is used, and registered, once it was there for so long; at once where there is no other one.
const OWN_HOLD_DOWN: Duration = Duration::from_secs(1);

/// What is to be looked at, and when.
#[derive(Debug)]
pub(super) struct Watch {
    /// Own RLOCs.
    own: Pace,
    /// Paths to remote RLOCs.
    paths: Pace,
    /// Those that are asked for next.
    asking: BTreeSet<IpAddr>,
    /// All of them, instead.
    all: bool,
    refresh_due: Instant,
    /// There are RLOCs whose routes the kernel does not know to matter yet.
    follow_due: Option<Instant>,
    followed_at: Instant,
    /// Interfaces that lead to remote RLOCs, by RLOC.
    leads: HashMap<IpAddr, u32>,
    /// Own RLOCs without address or link now.
    pub(super) missing: BTreeSet<IpAddr>,
    /// Missing ones that are there again, and since when.
    returning: BTreeMap<IpAddr, Instant>,
    /// The last time that an own RLOC was up.
    pub(super) own_up_at: Instant,
}

/// A bounded rate that lets the first ones pass.
#[derive(Debug)]
struct Pace {
    left: u32,
    renewed: Instant,
    due: Option<Instant>,
}

impl Pace {
    const fn new(now: Instant) -> Self {
        Self { left: AT_ONCE, renewed: now, due: None }
    }

    /// Something is to be done, soon.
    fn want(&mut self, now: Instant) {
        let intervals =
            now.saturating_duration_since(self.renewed).as_millis() / STORM_INTERVAL.as_millis();
        if intervals > 0 {
            self.left = self.left.saturating_add(intervals.min(100) as u32).min(AT_ONCE);
            self.renewed = now;
        }
        if self.due.is_none() {
            self.due = Some(if self.left > 0 { now } else { self.renewed + STORM_INTERVAL });
        }
    }

    fn take(&mut self, now: Instant) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.due = None;
        self.left = self.left.saturating_sub(1);
        true
    }
}

impl Watch {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            own: Pace::new(now),
            paths: Pace::new(now),
            asking: BTreeSet::new(),
            all: false,
            refresh_due: now,
            follow_due: None,
            followed_at: now,
            leads: HashMap::new(),
            missing: BTreeSet::new(),
            returning: BTreeMap::new(),
            own_up_at: now,
        }
    }

    /// When [`Daemon::watch_underlay`] is to be called next.
    pub(super) fn next_timeout(&self) -> Instant {
        let returning = self.returning.values().map(|since| *since + OWN_HOLD_DOWN).min();
        [self.own.due, self.paths.due, self.follow_due, returning]
            .into_iter()
            .flatten()
            .fold(self.refresh_due, Instant::min)
    }

    /// A remote RLOC came into use: its path is wanted now.
    pub(super) fn added(&mut self, now: Instant, rloc: IpAddr) {
        self.asking.insert(rloc);
        self.follow_due.get_or_insert((self.followed_at + FOLLOW_INTERVAL).max(now));
    }

    /// The kernel told of a change.
    pub(super) fn changed(&mut self, now: Instant, change: Change) {
        if change.host {
            self.own.want(now);
        }
        if change.all_paths || !change.rlocs.is_empty() {
            self.all |= change.all_paths;
            self.asking.extend(change.rlocs);
            self.paths.want(now);
        }
    }

    /// The kernel did not say which own RLOCs are there.
    fn unanswered(&mut self, now: Instant) {
        // Whoever is back waits anew: without a verdict its time would be over and over again.
        self.returning.clear();
        self.own.due = Some(now + STORM_INTERVAL);
    }

    /// What is missing now, and what counts as up: an own RLOC that is back waits, if another one can stand in for it.
    fn judge(&mut self, now: Instant, there: &BTreeMap<IpAddr, bool>) -> Vec<(IpAddr, bool)> {
        let mut verdicts = Vec::new();
        for (&rloc, &is_there) in there {
            if !is_there {
                self.returning.remove(&rloc);
                verdicts.push((rloc, false));
                continue;
            }
            let stands_in = |other: &IpAddr| {
                *other != rloc && other.is_ipv4() == rloc.is_ipv4() && !self.missing.contains(other)
            };
            let has_other = there.iter().any(|(other, &up)| up && stands_in(other));
            let since = *self.returning.entry(rloc).or_insert(now);
            let waits = self.missing.contains(&rloc) && has_other && now < since + OWN_HOLD_DOWN;
            if !waits {
                self.returning.remove(&rloc);
            }
            verdicts.push((rloc, !waits));
        }
        verdicts
    }
}

impl Daemon {
    /// Looks at what has to be looked at now.
    pub(super) async fn watch_underlay(&mut self, now: Instant) {
        if self.watch.refresh_due <= now {
            self.watch.refresh_due = now + REFRESH;
            self.watch.all = true;
            self.watch.paths.want(now);
            self.watch.own.want(now);
        }
        if self.watch.returning.values().any(|since| *since + OWN_HOLD_DOWN <= now) {
            self.watch.own.due = Some(now);
        }
        if self.watch.follow_due.is_some_and(|due| due <= now) {
            self.follow_rlocs(now);
        }
        if self.watch.own.take(now) {
            self.check_own_rlocs().await;
        }
    }

    /// Tells the kernel which routes matter; what they were before that, the paths say that are asked for after it.
    fn follow_rlocs(&mut self, now: Instant) {
        (self.watch.follow_due, self.watch.followed_at) = (None, now);
        let rlocs: BTreeSet<IpAddr> = self.control.remote_rlocs().collect();
        self.watch.leads.retain(|rloc, _| rlocs.contains(rloc));
        self.watch.asking.extend(rlocs.difference(self.changes.rlocs()));
        if let Err(error) = self.changes.follow_rlocs(rlocs) {
            tracing::warn!(%error, "the kernel tells of every route");
        }
    }

    /// Asks for the paths that are wanted.
    pub(super) fn ask_paths(&mut self, now: Instant) {
        if self.watch.paths.take(now) && std::mem::take(&mut self.watch.all) {
            self.watch.asking = self.control.remote_rlocs().collect();
        }
        if self.watch.asking.is_empty() || self.watch.paths.due.is_some() {
            return;
        }
        let source = |rloc| self.control.source_towards(rloc);
        let questions = self.watch.asking.iter();
        let questions =
            questions.map(|&rloc| PathQuestion { rloc, source: source(rloc) }).collect();
        // While the last list is worked on, the next one grows.
        if let Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) =
            self.path_questions.try_send(questions)
        {
            self.watch.asking.clear();
        }
    }

    pub(super) fn path_answered(&mut self, now: Instant, PathAnswer { rloc, path }: PathAnswer) {
        let before = match path {
            Some(path) => self.watch.leads.insert(rloc, path.interface),
            None => self.watch.leads.remove(&rloc),
        };
        if before != path.map(|path| path.interface) {
            self.follow_links();
        }
        self.control.set_path(now, rloc, path.map(|path| path.mtu));
    }

    /// An own RLOC is usable while its address is on an interface that has a carrier.
    async fn check_own_rlocs(&mut self) {
        let handle = self.netlink.handle();
        let (Ok(addresses), Ok(interfaces)) =
            (underlay::own_addresses(&handle).await, underlay::interfaces(&handle).await)
        else {
            tracing::warn!("the kernel does not say which addresses and links there are");
            return self.watch.unanswered(Instant::now());
        };
        let own: Vec<IpAddr> = addresses.keys().copied().collect();
        if let Err(error) = self.engine.take_native(&own) {
            tracing::warn!(%error, "packets to a new address of this host may be taken for others");
        }
        let (now, clock) = (Instant::now(), self.engine.clock());
        let rlocs = self.config.control.rlocs.iter().map(|rloc| rloc.address);
        let is_there = |rloc| {
            let interface = addresses.get(&rloc).and_then(|index| interfaces.get(index));
            interface.is_some_and(|interface| interface.running)
        };
        let there = rlocs.map(|rloc| (rloc, is_there(rloc))).collect();
        self.own_links = self.own_links_of(&addresses);
        self.follow_links();
        let mut changed = false;
        for (rloc, up) in self.watch.judge(now, &there) {
            let is_news =
                if up { self.watch.missing.remove(&rloc) } else { self.watch.missing.insert(rloc) };
            if is_news {
                tracing::warn!(%rloc, up, "own RLOC changed state");
                self.record.tell(match up {
                    true => Told::info("own-rloc-up", rloc, "its address and its link are there"),
                    false => {
                        Told::warning("own-rloc-down", rloc, "its address or its link is gone")
                    }
                });
                changed = true;
            }
            self.control.set_own_rloc(now, rloc, up, clock);
        }
        if self.watch.missing.len() < there.len() {
            self.watch.own_up_at = now;
        }
        if changed {
            // Traffic has another source now, and may go another way.
            self.watch.all = true;
            self.watch.paths.want(now);
        }
    }

    fn own_links_of(&self, addresses: &HashMap<IpAddr, u32>) -> HashSet<u32> {
        let rlocs = self.config.control.rlocs.iter().map(|rloc| rloc.address);
        let mut links: HashSet<u32> =
            rlocs.filter_map(|rloc| addresses.get(&rloc).copied()).collect();
        // One whose address is gone for now may get it back with its link.
        links.extend(&self.own_links);
        links
    }

    fn follow_links(&mut self) {
        let leads = self.watch.leads.values();
        self.changes.follow_links(leads.chain(&self.own_links).copied().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn the_first_changes_are_acted_upon_at_once_and_a_storm_at_a_bounded_rate() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let mut acted = Vec::new();
        for ms in 0..3_000u64 {
            let now = start + Duration::from_millis(ms);
            pace.want(now);
            if pace.take(now) {
                acted.push(ms);
            }
        }
        assert_eq!(acted[..4], [0, 1, 2, 3]);
        assert!((8..=10).contains(&acted.len()), "{acted:?}");
        let later = start + Duration::from_secs(60);
        pace.want(later);
        assert!(pace.take(later), "quiet again");
    }

    #[test]
    fn what_the_kernel_does_not_say_is_asked_again_soon_but_not_at_once() {
        let start = Instant::now();
        let p = ip("198.51.100.21");
        let mut watch = Watch::new(start);
        watch.refresh_due = start + REFRESH;
        watch.returning.insert(p, start);
        let due = start + OWN_HOLD_DOWN;
        assert_eq!(watch.next_timeout(), due);
        watch.unanswered(due);
        assert_eq!(watch.next_timeout(), due + STORM_INTERVAL);
        assert!(!watch.own.take(due));
        assert!(watch.own.take(due + STORM_INTERVAL));
    }

    #[test]
    fn an_own_rloc_that_is_back_waits_where_another_stands_in_for_it() {
        let now = Instant::now();
        let [p, q, six] = ["198.51.100.21", "203.0.113.250", "2001:db8::1"].map(ip);
        let mut watch = Watch::new(now);
        let there = |up: [bool; 3]| BTreeMap::from([(p, up[0]), (q, up[1]), (six, up[2])]);
        let judge = |watch: &mut Watch, ms: u64, up: [bool; 3]| {
            let verdicts = watch.judge(now + Duration::from_millis(ms), &there(up));
            watch.missing = verdicts.iter().filter(|(_, up)| !up).map(|(rloc, _)| *rloc).collect();
            [p, q, six].map(|rloc| !watch.missing.contains(&rloc))
        };
        assert_eq!(judge(&mut watch, 0, [true; 3]), [true; 3]);
        assert_eq!(judge(&mut watch, 1, [false, true, true]), [false, true, true]);
        assert_eq!(judge(&mut watch, 2, [true; 3]), [false, true, true], "it may flap");
        assert_eq!(judge(&mut watch, 500, [false, true, true]), [false, true, true]);
        assert_eq!(judge(&mut watch, 600, [true; 3]), [false, true, true]);
        assert_eq!(judge(&mut watch, 1_599, [true; 3]), [false, true, true]);
        assert_eq!(judge(&mut watch, 1_600, [true; 3]), [true; 3]);
        // Alone in its family, or with all the others gone, it is wanted at once.
        assert_eq!(judge(&mut watch, 2_000, [false; 3]), [false; 3]);
        assert_eq!(judge(&mut watch, 2_001, [true, false, true]), [true, false, true]);
    }
}
