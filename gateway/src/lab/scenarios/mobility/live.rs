//! Rows 1 to 7a and 9: a VM that talks while it moves.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use super::configuration::RANGES;
use super::plan::{CLIENT, MS, NEIGHBOUR, STRANGER, VM, XTR, XTR_C};
use super::{AFTER, Bed, FAMILIES, FIRST_LIMIT, LIMIT, SECOND, Streams, ms, wire};
use crate::lab::addresses::host;
use crate::lab::capture::{Frame, Mark};
use crate::lab::decode::Control;
use crate::lab::network::wait_for;
use crate::lab::pressure::patiently;
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::ping;
use crate::lab::probe::session::Session;
use crate::lab::relay::Way;
use crate::lab::report::Checks;

/// As long as the use case asks for.
const STEADY: Duration = Duration::from_secs(30);
const MOVES: usize = 10;
/// What a VM waits for an answer that it does not need.
const SAID: Duration = Duration::from_millis(50);

impl Bed<'_> {
    /// Rows 1 and 2.
    pub(super) fn first_packets(&self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            let answer = ping(&self.c.host, Header::new(client, vm), 100, FIRST_LIMIT)?;
            checks.that(format!("the very first ping to {vm}"), "reply", answer, answer.is_reply());
        }
        for prefix in RANGES {
            let rlocs = self.c.knows(prefix)?;
            checks.equal(format!("the client's mapping of {prefix}"), XTR[0].to_string(), rlocs);
        }
        let packets = self.core.datagrams_since(mark);
        let stray = packets.iter().filter(|packet| {
            packet.lisp().is_some()
                && ![(XTR_C, XTR[0]), (XTR[0], XTR_C)]
                    .contains(&(packet.source, packet.destination))
        });
        checks.equal("LISP packets between any others", 0, stray.count());
        patiently(checks, |checks| {
            let streams = Streams::start(self)?;
            thread::sleep(STEADY);
            for (name, seen) in streams.finish()? {
                let text = format!("lost in {} s, {name}", STEADY.as_secs());
                checks.that(
                    text,
                    0,
                    format!("{} of {}", seen.lost(), seen.sent.len()),
                    seen.lost() == 0,
                );
            }
            Ok(())
        })
    }

    /// Rows 3 to 7a.
    pub(super) fn first_move(&mut self, checks: &mut Checks) -> io::Result<()> {
        patiently(checks, |checks| self.timed_move(checks))?;
        if self.at == 0 {
            // The figures were taken again an even number of times.
            self.move_vm()?;
            self.speak()?;
            self.settled(checks, "once more")?;
        }
        for (prefix, family) in RANGES.into_iter().zip(FAMILIES) {
            let sources = self.registered(prefix)?;
            checks.equal(
                format!("the aggregate is as it was, {family}"),
                XTR[0].to_string(),
                sources,
            );
        }
        Ok(())
    }

    fn timed_move(&mut self, checks: &mut Checks) -> io::Result<()> {
        let sessions = [0, 1].map(|n| Session::start((&self.c.host, CLIENT[n]), (&self.vm, VM[n])));
        let streams = Streams::start(self)?;
        thread::sleep(Duration::from_millis(300));
        let to = 1 - self.at;
        let (mark, lan_mark) = (self.core.mark(), self.lan_captures[to].mark());
        let begin = self.move_vm()?;
        self.settled(checks, "after the move")?;
        thread::sleep(AFTER.saturating_sub(begin.elapsed()));
        let limit = Duration::from_millis(50);
        self.outages(checks, "at RTT ~0", streams.finish()?, (begin, limit));
        let frames = self.core.since(mark);
        self.registered_at_once(checks, &frames, lan_mark);
        self.notified(checks, &frames);
        self.solicited(checks, &frames);
        for (session, family) in sessions.into_iter().zip(FAMILIES) {
            let survived = session?.finish();
            let passed = survived.is_ok();
            let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
            let text = format!("the TCP session lives on, {family}");
            checks.that(text, "every record", shown, passed);
        }
        Ok(())
    }

    /// The VM says something in both families, so that it is seen; it does not wait long for an answer to one before the other, lest its former
    /// site gives that up.
    pub(super) fn speak(&self) -> io::Result<()> {
        for (client, vm) in CLIENT.into_iter().zip(VM).cycle().take(2 * CLIENT.len()) {
            ping(&self.vm, Header::new(vm, client), 100, SAID)?;
        }
        Ok(())
    }

    /// Row 4: from the VM's first frame at its new place to the Map-Register in the core.
    fn registered_at_once(&self, checks: &mut Checks, frames: &[Frame], lan_mark: Mark) {
        let first = self.lan_captures[self.at].since(lan_mark).first().map(|frame| frame.time);
        let registers = VM.map(|vm| wire::registers(frames, XTR[self.at], host(vm)));
        let register = registers.iter().flatten().min().copied();
        let after = wire::between(first, register);
        let shown = after.map_or("none".to_owned(), ms);
        let passed = after.is_some_and(|after| after <= Duration::from_millis(10));
        checks.that("Map-Register after the VM's first frame", "at most 10 ms", shown, passed);
    }

    /// Rows 5 and 6: the former site was told, said so, and sends on what still comes.
    fn notified(&self, checks: &mut Checks, frames: &[Frame]) {
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let prefix = host(vm);
            let register = wire::registers(frames, XTR[self.at], prefix).first().copied();
            let whom = [("former", XTR[1 - self.at]), ("new", XTR[self.at])];
            for (which, rloc) in whom {
                let notify = wire::notifies(frames, rloc, prefix).into_iter().find(|(_, rlocs)| {
                    // The acknowledgement of a Map-Register repeats it.
                    rlocs.contains(&XTR[self.at])
                });
                let after = wire::between(register, notify.map(|(time, _)| time));
                let shown = after.map_or("none".to_owned(), ms);
                let passed = after.is_some_and(|after| after <= Duration::from_millis(50));
                let text =
                    format!("Map-Notify to the {which} site after the Map-Register, {family}");
                checks.that(text, "at most 50 ms", shown, passed);
            }
        }
        let acks = wire::acknowledgements(frames, XTR[1 - self.at]);
        let text = "Map-Notify-Acks of the former site on the wire";
        checks.that(text, "at least 1", acks, acks >= 1);
        let old = &self.xtrs[1 - self.at];
        let away = old.counter("dynamic_eids_moved_away").unwrap_or_default();
        checks.that("EIDs that the former site knows to be away", "2", away, away >= 2);
    }

    /// Row 7a.
    fn solicited(&self, checks: &mut Checks, frames: &[Frame]) {
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let prefix = host(vm);
            let smrs = wire::solicitations(frames, XTR_C, prefix);
            let lookups = wire::lookups(frames, XTR_C, prefix);
            let text = format!("the client's router was solicited and asked, {family}");
            let shown = format!("{} SMRs, {lookups} Map-Requests", smrs.len());
            checks.that(text, "at least 1 of each", shown, !smrs.is_empty() && lookups >= 1);
        }
    }

    /// Row 3: a source outside the range.
    pub(super) fn refused(&self, checks: &mut Checks) -> io::Result<()> {
        let reason = "dyn_eid_not_allowed";
        let router = &self.xtrs[self.at];
        let before = router.drops(reason)?;
        let packet = craft::udp(&Header::new(STRANGER, CLIENT[0]), (7, 7), b"stranger", true);
        craft::send(&self.vm, packet, CLIENT[0])?;
        wait_for(LIMIT, || Ok(router.drops(reason)? > before))?;
        checks.equal(
            format!("a packet from {STRANGER} dropped as {reason}"),
            1,
            router.drops(reason)? - before,
        );
        Ok(())
    }

    /// Hosts of one subnet in two data centres, which ask their links for each other.
    pub(super) fn across(&self, checks: &mut Checks) -> io::Result<()> {
        for (stays, vm) in NEIGHBOUR.into_iter().zip(VM) {
            let answer = ping(&self.stays, Header::new(stays, vm), 100, FIRST_LIMIT)?;
            checks.that(
                format!("{stays}, which stayed, pings {vm}"),
                "reply",
                answer,
                answer.is_reply(),
            );
            let answer = ping(&self.vm, Header::new(vm, stays), 100, FIRST_LIMIT)?;
            checks.that(format!("{vm} pings {stays}"), "reply", answer, answer.is_reply());
        }
        Ok(())
    }

    /// There and back over long wires.
    pub(super) fn with_delay(
        &mut self,
        checks: &mut Checks,
        delay: Duration,
        limit: Duration,
    ) -> io::Result<()> {
        self.relays.iter().for_each(|relay| relay.delay(delay));
        let text = format!("at {} ms one way", delay.as_millis());
        patiently(checks, |checks| {
            let streams = Streams::start(self)?;
            thread::sleep(Duration::from_millis(300) + 4 * delay);
            let begin = self.move_vm()?;
            thread::sleep(AFTER);
            self.outages(checks, &text, streams.finish()?, (begin, limit));
            self.settled(checks, &text)
        })?;
        self.relays.iter().for_each(|relay| relay.delay(Duration::ZERO));
        Ok(())
    }

    /// Row 9.
    pub(super) fn ten_moves(&mut self, checks: &mut Checks) -> io::Result<()> {
        let session = Session::start((&self.c.host, CLIENT[0]), (&self.vm, VM[0]))?;
        let streams = Streams::start(self)?;
        let begin = Instant::now();
        for number in 1..=MOVES {
            self.move_vm()?;
            let next = begin + SECOND * number as u32;
            thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        self.settled(checks, "after ten moves at 1/s")?;
        for (name, seen) in streams.finish()? {
            let outage = seen.outage_between(begin, begin + SECOND * MOVES as u32);
            let shown = format!("{}, {} lost", ms(outage), seen.lost());
            let text = format!("longest outage of ten moves, {name}");
            checks.that(text, "below 1 s", shown, outage < SECOND);
        }
        let survived = session.finish();
        let passed = survived.is_ok();
        let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
        checks.that("the TCP session lives on", "every record", shown, passed);
        for xtr in &self.xtrs {
            checks.equal(
                format!("packets that went round until their TTL was out, {}", xtr.name),
                0,
                xtr.drops("hop_limit_exceeded")?,
            );
        }
        Ok(())
    }

    /// Row 5: the Map-Server says it again.
    pub(super) fn notify_lost(&mut self, checks: &mut Checks) -> io::Result<()> {
        let old = self.at;
        let is_notify = move |way: Way, packet: &crate::lab::decode::Datagram| {
            way == Way::ToMember
                && packet.source == MS
                && matches!(packet.control(), Some(Control::MapNotify { .. }))
        };
        let before = self.xtrs[old].counter("dynamic_eids_moved_away")?;
        let loss = self.relays[old].lose(1, is_notify);
        self.move_vm()?;
        self.speak()?;
        let told = wait_for(Duration::from_secs(5), || {
            Ok(self.xtrs[old].counter("dynamic_eids_moved_away")? >= before + 2)
        })?;
        let shown = format!("lost: {}, told all the same: {told}", loss.happened());
        let passed = loss.happened() && told;
        checks.that("a lost Map-Notify is sent again", "lost once, then told", shown, passed);
        self.settled(checks, "after that")
    }
}
