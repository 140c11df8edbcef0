//! Which EIDs of a registered EID-prefix are registered elsewhere: told to whoever has the EID-prefix, by the Map-Notifies that it would have
//! got when they went there.
//!
//! It is told when the EID-prefix comes, and when it asks for its own EID-prefix: an xTR that died without a word has forgotten who had left
//! its site, but its registration stands still, so nothing else tells that it is a new one. Whoever asks in its name makes it hear the same
//! once more, at the pace of [`INTERVAL`]. What all of them are told goes out in steps, since a question proves nothing: neither this node
//! nor an ETR has more to do for it than [`NOTIFIES_AT_ONCE`] in every [`STEP`].

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::time::{Duration, Instant};

use crate::eid::EidPrefix;
use crate::resolver::Lookup;

use super::MapServer;
use super::registry::{Registrant, Registration};

/// More-specifics that are elsewhere, of which the ETR of an EID-prefix is told.
const MAX_ELSEWHERE: usize = 4_096;
/// Between two times that the same ETR is told for the asking.
const INTERVAL: Duration = Duration::from_secs(10);
/// Who was told lately; for another one the earliest of them is forgotten.
const MAX_TOLD: usize = 4_096;
/// ETRs that are being told when another one asks; with more of them it waits for its [`INTERVAL`].
const MAX_TELLING: usize = 64;
/// Between two steps of telling.
const STEP: Duration = Duration::from_millis(10);
/// Map-Notifies of one step.
const NOTIFIES_AT_ONCE: usize = 32;
/// More-specifics looked at in one step; most may be at home.
const LOOKS_AT_ONCE: usize = 256;
/// The part of a step that one ETR gets, before it is another one's turn.
const NOTIFIES_PER_TURN: usize = 8;
const LOOKS_PER_TURN: usize = 64;

/// A registered EID-prefix, and who has registered it.
type Asker = (EidPrefix, Registrant);

/// Who was told for the asking lately, and who is being told.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    told: BTreeMap<Asker, Told>,
    due: BTreeSet<(Instant, Asker)>,
    telling: BTreeMap<Asker, Telling>,
    /// Whose turn was the last.
    turn: Option<Asker>,
    /// Before this there is no other step.
    next_step: Option<Instant>,
}

/// Told for the asking.
#[derive(Debug)]
struct Told {
    /// When it may be told anew.
    due: Instant,
    /// Whether it has asked again since.
    again: bool,
}

/// How far telling is.
#[derive(Clone, Copy, Debug, Default)]
struct Telling {
    after: Option<EidPrefix>,
    told: usize,
}

/// What is left of a step.
#[derive(Clone, Copy, Debug)]
struct Budget {
    notifies: usize,
    looks: usize,
}

impl Elsewhere {
    pub(super) fn next_due(&self) -> Option<Instant> {
        let step = self.next_step.filter(|_| !self.telling.is_empty());
        [self.due.first().map(|(due, _)| *due), step].into_iter().flatten().min()
    }

    /// Whether to tell them now; if not, [`Self::take_due`] says when.
    fn ask(&mut self, now: Instant, asker: Asker) -> bool {
        if let Some(told) = self.told.get_mut(&asker) {
            told.again = true;
            return false;
        }
        if self.told.len() >= MAX_TOLD
            && let Some((_, earliest)) = self.due.pop_first()
        {
            self.told.remove(&earliest);
        }
        let is_crowded = self.telling.len() >= MAX_TELLING;
        let due = now + INTERVAL;
        self.told.insert(asker, Told { due, again: is_crowded });
        self.due.insert((due, asker));
        !is_crowded
    }

    /// There was nothing to tell: the next question counts as the first.
    fn forget(&mut self, asker: &Asker) {
        if let Some(told) = self.told.remove(asker) {
            self.due.remove(&(told.due, *asker));
        }
    }

    /// The next one to be told now.
    fn take_due(&mut self, now: Instant) -> Option<Asker> {
        while let Some(&(due, asker)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            let asked_again = self.told.remove(&asker).is_some_and(|told| told.again);
            if asked_again && self.ask(now, asker) {
                return Some(asker);
            }
        }
        None
    }

    /// Tells it from the beginning, in turns with the others.
    fn begin(&mut self, asker: Asker) {
        self.telling.insert(asker, Telling::default());
    }

    /// Whose turn it is.
    fn take_turn(&mut self) -> Option<(Asker, Telling)> {
        let after = self.turn.map_or(Bound::Unbounded, Bound::Excluded);
        let next = self.telling.range((after, Bound::Unbounded)).next();
        let asker = *next.or_else(|| self.telling.first_key_value())?.0;
        self.turn = Some(asker);
        self.telling.remove_entry(&asker)
    }

    /// Askers that are remembered.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.told.len()
    }
}

impl MapServer {
    /// Tells whoever asks for an EID-prefix that it has registered itself.
    pub(super) fn tell_asker(&mut self, now: Instant, lookup: &Lookup, prefix: &EidPrefix) {
        if *prefix == prefix.first().host_prefix() {
            return;
        }
        let Some(entry) = self.registry.get(prefix) else { return };
        let asks = |one: &&Registration| lookup.itr_rlocs.contains(&one.source);
        let Some(registrant) = entry.registrations().iter().find(asks).map(|one| one.registrant)
        else {
            return;
        };
        if self.has_parts(prefix) && self.elsewhere.ask(now, (*prefix, registrant)) {
            self.tell_what_is_elsewhere(now, *prefix, registrant);
        }
    }

    /// An EID-prefix has come, or come back: its ETR learns which EIDs of it are elsewhere, as it would have when they went there.
    pub(super) fn tell_what_is_elsewhere(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        registrant: Registrant,
    ) {
        if self.has_parts(&prefix) {
            self.elsewhere.begin((prefix, registrant));
            self.go_on_telling(now);
        }
    }

    /// Tells those who asked too soon, and goes on with those who are being told.
    pub(super) fn handle_due_elsewhere(&mut self, now: Instant) {
        while let Some(asker) = self.elsewhere.take_due(now) {
            self.elsewhere.begin(asker);
        }
        self.go_on_telling(now);
    }

    fn has_parts(&self, prefix: &EidPrefix) -> bool {
        self.registry.more_specifics(prefix).next().is_some()
    }

    /// The next step, if it is time.
    fn go_on_telling(&mut self, now: Instant) {
        if self.elsewhere.next_step.is_some_and(|step| now < step) {
            return;
        }
        let mut left = Budget { notifies: NOTIFIES_AT_ONCE, looks: LOOKS_AT_ONCE };
        while left.notifies > 0
            && left.looks > 0
            && let Some((asker, telling)) = self.elsewhere.take_turn()
        {
            self.tell_some(now, asker, telling, &mut left);
        }
        self.elsewhere.next_step = Some(now + STEP);
    }

    /// One turn of one ETR.
    fn tell_some(&mut self, now: Instant, asker: Asker, mut telling: Telling, left: &mut Budget) {
        let (prefix, registrant) = asker;
        let entry = self.registry.get(&prefix);
        let registrations = entry.map_or(&[][..], |entry| entry.registrations());
        let told: Vec<Registration> =
            registrations.iter().filter(|one| one.registrant == registrant).cloned().collect();
        if told.is_empty() {
            return;
        }
        let after = telling.after.unwrap_or(prefix);
        let parts = self.registry.iter_after(Some(after)).map(|(part, _)| part);
        let looks = LOOKS_PER_TURN.min(left.looks);
        let parts: Vec<EidPrefix> =
            parts.take_while(|part| prefix.covers(part)).take(looks).collect();
        let mut is_over = parts.len() < looks;
        let mut notifies = NOTIFIES_PER_TURN.min(left.notifies);
        for part in parts {
            if notifies == 0 {
                is_over = false;
                break;
            }
            left.looks -= 1;
            telling.after = Some(part);
            if let Some(other) = self.elsewhere(&part, &asker) {
                self.notify_others(now, part, other, &told);
                telling.told += 1;
                notifies -= 1;
                left.notifies -= 1;
            }
        }
        if !is_over && telling.told < MAX_ELSEWHERE {
            self.elsewhere.telling.insert(asker, telling);
        } else if telling.told == 0 {
            self.elsewhere.forget(&asker);
        }
    }

    /// Who has registered `part` of an EID-prefix, if it is no longer its ETR.
    fn elsewhere(&self, part: &EidPrefix, (prefix, registrant): &Asker) -> Option<Registrant> {
        let theirs = self.registry.get(part)?.registrations();
        let parent = self.registry.parent(part).map(|(parent, _)| parent);
        let configured = self.sites.configured(part);
        let is_part =
            parent == Some(*prefix) && configured.is_some_and(|found| found.covers(prefix));
        let is_home = theirs.iter().any(|one| one.registrant == *registrant);
        theirs.first().filter(|_| is_part && !is_home).map(|other| other.registrant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eid::InstanceId;
    use std::net::{IpAddr, Ipv4Addr};

    fn asker(number: u32) -> Asker {
        let address = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number));
        let prefix = EidPrefix::new(InstanceId::DEFAULT, "10.1.0.0/16".parse().expect("prefix"));
        (prefix, Registrant::Source(address))
    }

    #[test]
    fn dy_02_who_asks_without_end_is_told_at_a_pace_and_the_last_question_counts() {
        let (start, mut elsewhere) = (Instant::now(), Elsewhere::default());
        assert!(elsewhere.ask(start, asker(1)));
        assert!((0..100).all(|_| !elsewhere.ask(start, asker(1))));
        assert!(elsewhere.ask(start, asker(2)), "another one");
        assert_eq!(elsewhere.take_due(start + INTERVAL / 2), None);
        let later = start + INTERVAL;
        assert_eq!(elsewhere.take_due(later), Some(asker(1)));
        assert_eq!(elsewhere.take_due(later), None, "the other one did not ask again");
        assert!(!elsewhere.ask(later, asker(1)) && elsewhere.ask(later, asker(2)));
        assert_eq!(elsewhere.take_due(later + INTERVAL), Some(asker(1)));
        assert_eq!(elsewhere.take_due(later + INTERVAL * 2), None);
        assert_eq!((elsewhere.told.len(), elsewhere.next_due()), (0, None));
    }

    #[test]
    fn dy_02_who_was_told_is_remembered_in_bounds_and_nobody_is_kept_out_by_others() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::default());
        let last = MAX_TOLD as u32 + 10;
        assert!((0..last).all(|number| elsewhere.ask(now, asker(number))));
        assert_eq!((elsewhere.told.len(), elsewhere.due.len()), (MAX_TOLD, MAX_TOLD));
        assert!(!elsewhere.ask(now, asker(last - 1)), "remembered");
        assert!(elsewhere.ask(now, asker(0)), "the earliest was forgotten");
    }

    #[test]
    fn dy_02_those_who_are_told_take_turns_and_one_too_many_waits() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::default());
        for number in 0..MAX_TELLING as u32 {
            assert!(elsewhere.ask(now, asker(number)));
            elsewhere.begin(asker(number));
        }
        assert!(!elsewhere.ask(now, asker(1_000)));
        for number in (0..MAX_TELLING as u32).chain(0..5) {
            let (found, telling) = elsewhere.take_turn().expect("someone's turn");
            assert_eq!(found, asker(number));
            elsewhere.telling.insert(found, telling);
        }
        elsewhere.telling.clear();
        assert_eq!(elsewhere.take_turn().map(|(found, _)| found), None);
        assert_eq!(elsewhere.take_due(now + INTERVAL), Some(asker(1_000)), "its turn comes");
    }
}
