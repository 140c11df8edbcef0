//! Which EIDs of a registered EID-prefix are registered elsewhere: told to whoever has the EID-prefix, by the Map-Notifies that it would have
//! got when they went there.
//!
//! It is told when the EID-prefix comes, and when it asks for its own EID-prefix: an xTR that died without a word has forgotten who had left
//! its site, but its registration stands still, so nothing else tells that it is a new one. Whoever asks in its name makes it hear the same
//! once more, at the pace of [`INTERVAL`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::eid::EidPrefix;
use crate::resolver::Lookup;

use super::MapServer;
use super::registry::{Registrant, Registration};

/// More-specifics that are elsewhere, of which the ETR of an EID-prefix is told at once.
const MAX_ELSEWHERE: usize = 4_096;
/// Between two times that the same ETR is told for the asking.
const INTERVAL: Duration = Duration::from_secs(10);
/// Who was told lately; more are told when there is room.
const MAX_TOLD: usize = 4_096;

/// A registered EID-prefix, and who has registered it.
type Asker = (EidPrefix, Registrant);

/// Who was told for the asking lately.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    /// Whether they have asked again since.
    told: BTreeMap<Asker, bool>,
    due: BTreeSet<(Instant, Asker)>,
}

impl Elsewhere {
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Whether to tell them at once; if not, [`Self::take_due`] says when.
    fn ask(&mut self, now: Instant, asker: Asker) -> bool {
        if let Some(again) = self.told.get_mut(&asker) {
            *again = true;
            return false;
        }
        if self.told.len() >= MAX_TOLD {
            return false;
        }
        self.told.insert(asker, false);
        self.due.insert((now + INTERVAL, asker));
        true
    }

    /// The next one to be told now.
    fn take_due(&mut self, now: Instant) -> Option<Asker> {
        while let Some(&(due, asker)) = self.due.first()
            && due <= now
        {
            self.due.pop_first();
            if self.told.remove(&asker) == Some(true) {
                self.ask(now, asker);
                return Some(asker);
            }
        }
        None
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
        if self.elsewhere.ask(now, (*prefix, registrant)) {
            self.tell_what_is_elsewhere(now, *prefix, registrant);
        }
    }

    /// Tells those who asked too soon.
    pub(super) fn handle_due_askers(&mut self, now: Instant) {
        while let Some((prefix, registrant)) = self.elsewhere.take_due(now) {
            self.tell_what_is_elsewhere(now, prefix, registrant);
        }
    }

    /// An EID-prefix has come, or come back: its ETR learns which EIDs of it are elsewhere, as it would have when they went there.
    pub(super) fn tell_what_is_elsewhere(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        registrant: Registrant,
    ) {
        let Some(entry) = self.registry.get(&prefix) else { return };
        let is_new = |one: &&Registration| one.registrant == registrant;
        let told: Vec<Registration> =
            entry.registrations().iter().filter(is_new).cloned().collect();
        let mut elsewhere = Vec::new();
        for (found, entry) in self.registry.more_specifics(&prefix).take(MAX_ELSEWHERE) {
            let is_part = self.registry.parent(&found).is_some_and(|(parent, _)| parent == prefix)
                && self
                    .sites
                    .configured(&found)
                    .is_some_and(|configured| configured.covers(&prefix));
            let theirs = entry.registrations();
            if let Some(other) =
                theirs.first().filter(|_| is_part && !theirs.iter().any(|one| is_new(&one)))
            {
                elsewhere.push((found, other.registrant));
            }
        }
        for (found, other) in elsewhere {
            self.notify_others(now, found, other, &told);
        }
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
    fn dy_02_who_was_told_is_remembered_in_bounds() {
        let (now, mut elsewhere) = (Instant::now(), Elsewhere::default());
        let told = (0..MAX_TOLD as u32 + 10).filter(|&number| elsewhere.ask(now, asker(number)));
        assert_eq!(told.count(), MAX_TOLD);
        assert_eq!((elsewhere.told.len(), elsewhere.due.len()), (MAX_TOLD, MAX_TOLD));
    }
}
