//! Rows 7b, 7c and 8: those who send to a VM that says nothing. What is seen of it at its new place is what its hypervisor says for it:
//! gratuitous ARP and unsolicited Neighbor Advertisements.

use std::io;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::plan::{VM, XTR};
use super::{AFTER, Bed, FAMILIES, LIMIT, SECOND, SOLICITED, Site, Streams, ms, wire};
use crate::lab::addresses::host;
use crate::lab::capture::Frame;
use crate::lab::network::wait_for;
use crate::lab::pressure::patiently;
use crate::lab::probe::announce::announce;
use crate::lab::report::Checks;
use crate::lab::topology::HOST_LINK;

/// A hypervisor says it more than once.
const ANNOUNCEMENTS: usize = 2;
const BETWEEN_ANNOUNCEMENTS: Duration = Duration::from_millis(50);
/// Between two SMRs to one RLOC: 3 s (RFC 9301 §6.1), of which the capture may see a little less.
const SMR_INTERVAL: Duration = Duration::from_millis(2_950);

impl Bed<'_> {
    /// Says for the VM where it is.
    pub(super) fn announce(&self) -> io::Result<()> {
        for _ in 0..ANNOUNCEMENTS {
            announce(&self.vm, HOST_LINK, &VM)?;
            thread::sleep(BETWEEN_ANNOUNCEMENTS);
        }
        Ok(())
    }

    /// Row 8, and with the same site, to which the VM never says a word, row 7b.
    pub(super) fn asks_late(&mut self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        let streams = Streams::one_way(self, &self.d)?;
        thread::sleep(Duration::from_millis(500));
        let seen = streams.finish()?;
        let frames = self.core.since(mark);
        for (n, (name, seen)) in seen.into_iter().enumerate() {
            let (vm, d) = (VM[n], self.d.rloc);
            let replies = wire::replies(&frames, d, host(vm), false);
            let replies: Vec<Vec<IpAddr>> = replies.into_iter().map(|(_, rlocs)| rlocs).collect();
            let direct = replies.iter().all(|rlocs| *rlocs == [XTR[self.at]]);
            checks.that(
                format!("a new site asks for {vm}: Map-Replies with exactly it"),
                format!("at least 1, with {}", XTR[self.at]),
                format!("{}, {replies:?}", replies.len()),
                !replies.is_empty() && direct,
            );
            let here = wire::data(&frames, d, XTR[self.at], vm).len();
            let former = wire::data(&frames, d, XTR[1 - self.at], vm).len();
            checks.that(
                format!("its packets, {name}"),
                "none lost, none by way of the former site",
                format!("{here} straight, {former} by way of it, {} lost", seen.lost()),
                here > 0 && former == 0 && seen.lost() == 0,
            );
        }
        // Back to DC1, and then from there as the use case has it.
        for _ in 0..2 {
            patiently(checks, |checks| self.silent_move(checks))?;
        }
        if self.at == 0 {
            self.move_vm()?;
            self.announce()?;
            self.settled(checks, "and back")?;
        }
        Ok(())
    }

    /// Row 7b.
    fn silent_move(&mut self, checks: &mut Checks) -> io::Result<()> {
        let former = self.at;
        let streams = Streams::one_way(self, &self.d)?;
        thread::sleep(Duration::from_millis(300));
        let mark = self.core.mark();
        let begin = self.move_vm()?;
        self.announce()?;
        for vm in VM {
            let (prefix, rloc) = (host(vm).to_string(), XTR[self.at].to_string());
            let learned = wait_for(SOLICITED + LIMIT, || Ok(self.d.knows(&prefix)? == rloc))?;
            checks.that(
                format!(
                    "silent VM now in {}: the mapping of {vm} at the site that sends",
                    self.place()
                ),
                &rloc,
                format!("{} after {}", self.d.knows(&prefix)?, ms(begin.elapsed())),
                learned,
            );
        }
        thread::sleep(AFTER.saturating_sub(begin.elapsed()));
        let text = format!("of a silent VM, now in {}", self.place());
        self.outages(checks, &text, streams.finish()?, (begin, SECOND));
        let frames = self.core.since(mark);
        let mut smrs: Vec<SystemTime> = Vec::new();
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let prefix = host(vm);
            let told = wire::notifies(&frames, XTR[former], prefix).first().map(|(time, _)| *time);
            let first = told.and_then(|told| {
                let data = wire::data(&frames, self.d.rloc, XTR[former], vm);
                data.into_iter().find(|time| *time >= told)
            });
            let of_it = wire::solicitations(&frames, self.d.rloc, prefix);
            let of_it = of_it.into_iter().filter(|(_, from)| *from == XTR[former]);
            let of_it: Vec<SystemTime> = of_it.map(|(time, _)| time).collect();
            let after = wire::between(first, of_it.first().copied());
            // While an SMR waits for its turn, the former site's answer to a probe may say it.
            let answers = wire::replies(&frames, self.d.rloc, prefix, true);
            let answered = answers.iter().find(|(_, rlocs)| *rlocs == [XTR[self.at]]);
            let answered = wire::between(first, answered.map(|(time, _)| *time));
            checks.that(
                format!("SMRs of the former site, for data that still came, {family}"),
                "at least 1, or its answer to a probe",
                format!(
                    "{}, the first {} after such a packet; in answers to probes {} after it",
                    of_it.len(),
                    after.map_or("not".to_owned(), ms),
                    answered.map_or("not".to_owned(), ms)
                ),
                !of_it.is_empty() || answered.is_some(),
            );
            smrs.extend(of_it);
        }
        smrs.sort_unstable();
        let apart = smrs.windows(2).filter_map(|pair| pair[1].duration_since(pair[0]).ok()).min();
        checks.that(
            "the least time between two of them",
            "3 s",
            apart.map_or("only one".to_owned(), ms),
            apart.is_none_or(|apart| apart >= SMR_INTERVAL),
        );
        let said = self.said_to(&frames, self.d.addresses);
        checks.equal("packets of the VM to that site meanwhile", 0, said);
        Ok(())
    }

    /// Encapsulated packets of the data centres to hosts.
    fn said_to(&self, frames: &[Frame], hosts: [IpAddr; 2]) -> usize {
        let to = |site: &Site| {
            let pairs = XTR.into_iter().flat_map(|xtr| hosts.map(|host| (xtr, host)));
            pairs.map(|(xtr, host)| wire::data(frames, xtr, site.rloc, host).len()).sum::<usize>()
        };
        to(&self.d) + to(&self.e)
    }

    /// Row 7c: first with nothing under way, then with packets all the time.
    pub(super) fn published(&mut self, checks: &mut Checks) -> io::Result<()> {
        let streams = Streams::one_way(self, &self.e)?;
        thread::sleep(Duration::from_millis(300));
        for (name, seen) in streams.finish()? {
            checks.equal(format!("lost of the first packets, {name}"), 0, seen.lost());
        }
        patiently(checks, |checks| self.published_to_the_idle(checks))?;
        patiently(checks, |checks| self.published_to_the_busy(checks))?;
        if self.at == 0 {
            self.move_vm()?;
            self.announce()?;
            self.settled(checks, "and back")?;
        }
        Ok(())
    }

    fn published_to_the_idle(&mut self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        let begin = Instant::now();
        self.move_vm()?;
        self.announce()?;
        let rloc = XTR[self.at].to_string();
        for vm in VM {
            let prefix = host(vm).to_string();
            wait_for(SECOND, || Ok(self.e.knows(&prefix)? == rloc))?;
            checks.that(
                format!("a subscriber that sends nothing: its mapping of {vm}"),
                format!("{rloc} within 1 s"),
                format!("{}, {} after the move", self.e.knows(&prefix)?, ms(begin.elapsed())),
                self.e.knows(&prefix)? == rloc,
            );
        }
        let frames = self.core.since(mark);
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let prefix = host(vm);
            let register = wire::registers(&frames, XTR[self.at], prefix).first().copied();
            let published = wire::notifies(&frames, self.e.rloc, prefix);
            let right = published.iter().find(|(_, rlocs)| *rlocs == [XTR[self.at]]);
            let after = wire::between(register, right.map(|(time, _)| *time));
            checks.that(
                format!("Map-Notify to the subscriber after the Map-Register, {family}"),
                "at most 1 s",
                after.map_or("none".to_owned(), ms),
                after.is_some_and(|after| after <= SECOND),
            );
            // Whoever sent something lately is solicited too; a subscriber knows by then.
            let smrs = wire::solicitations(&frames, self.e.rloc, prefix);
            let first = smrs.first().map(|(time, _)| *time);
            let told = right.map(|(time, _)| *time);
            checks.that(
                format!("that Map-Notify came before any SMR, {family}"),
                "yes",
                match wire::between(told, first) {
                    Some(after) => format!("yes, the SMR {} later", ms(after)),
                    None => format!("{} SMRs", smrs.len()),
                },
                told.is_some() && first.is_none_or(|first| told.is_some_and(|told| told <= first)),
            );
        }
        let mark = self.core.mark();
        let streams = Streams::one_way(self, &self.e)?;
        thread::sleep(Duration::from_millis(200));
        let seen = streams.finish()?;
        let frames = self.core.since(mark);
        for (n, (name, seen)) in seen.into_iter().enumerate() {
            let former = wire::data(&frames, self.e.rloc, XTR[1 - self.at], VM[n]).len();
            checks.that(
                format!("what it sends then, {name}"),
                "none lost, none to the former site",
                format!("{} lost, {former} to the former site", seen.lost()),
                seen.lost() == 0 && former == 0,
            );
        }
        Ok(())
    }

    fn published_to_the_busy(&mut self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        let streams = Streams::one_way(self, &self.e)?;
        thread::sleep(Duration::from_millis(300));
        let begin = self.move_vm()?;
        self.announce()?;
        thread::sleep(AFTER.saturating_sub(begin.elapsed()));
        let text = format!("of a subscriber, VM now in {}", self.place());
        self.outages(checks, &text, streams.finish()?, (begin, SECOND));
        let frames = self.core.since(mark);
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let published = wire::notifies(&frames, self.e.rloc, host(vm));
            let right = published.iter().find(|(_, rlocs)| *rlocs == [XTR[self.at]]);
            let published = right.map(|(time, _)| *time);
            let former = wire::data(&frames, self.e.rloc, XTR[1 - self.at], vm);
            // From the publication on nothing goes to the former site, but for what was under way.
            let after = wire::between(published, former.last().copied()).unwrap_or_default();
            let text =
                format!("the last packet to the former site after the publication, {family}");
            let shown = published.map_or("no publication".to_owned(), |_| ms(after));
            checks.that(text, "at most 1 s", shown, published.is_some() && after <= SECOND);
        }
        Ok(())
    }
}
