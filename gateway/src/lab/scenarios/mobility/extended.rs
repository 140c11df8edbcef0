//! The subnet is extended: a link joins both data centres' bridges, and lets no frame of the gateway pass that both have (as FHRP isolation
//! does). Only a packet that the VM sends to its gateway says on which side it is.

use std::io;
use std::thread;
use std::time::Duration;

use super::configuration::{self, Keys};
use super::plan::{BRIDGE, CLIENT, EXTENSION, NEIGHBOUR, VM, VM_PORT, XTR, leases};
use super::{AFTER, Bed, FAMILIES, FIRST_LIMIT, LIMIT, Streams, wire};
use crate::lab::addresses::host;
use crate::lab::link;
use crate::lab::network::wait_for;
use crate::lab::pressure::patiently;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::probe::session::Session;
use crate::lab::report::Checks;

impl Bed<'_> {
    pub(super) fn extended(&mut self, checks: &mut Checks) -> io::Result<()> {
        self.extend()?;
        link::up(&self.fabric, VM_PORT)?;
        self.move_vm()?;
        self.announce()?;
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            let answer = ping(&self.c.host, Header::new(client, vm), 100, FIRST_LIMIT)?;
            let text = format!("extended subnet: the first ping to {vm}, home in DC1");
            checks.that(text, "reply", answer, answer.is_reply());
        }
        for _ in 0..2 {
            patiently(checks, |checks| self.extended_move(checks))?;
        }
        if self.at == 0 {
            self.move_vm()?;
            self.announce()?;
            self.speak()?;
        }
        self.direct(checks)
    }

    /// Both routers anew with `extended-subnet = true`, and the link between the data centres.
    fn extend(&self) -> io::Result<()> {
        for lan in ["dc1", "dc2"] {
            let lan = self.network.namespace(lan)?;
            link::plug(&lan, EXTENSION, BRIDGE)?;
        }
        let keys = Keys::of(self.network);
        for (at, xtr) in self.xtrs.iter().enumerate() {
            let text = configuration::data_centre(&keys, at, &leases(self.network, at), true);
            self.network.daemons().stop(xtr)?;
            self.network.daemons().configure(xtr, &text)?;
            self.network.daemons().restart(xtr, &self.routers[at])?;
        }
        self.network.wait_for_registrations(&self.ms, configuration::REGISTRATIONS)
    }

    fn extended_move(&mut self, checks: &mut Checks) -> io::Result<()> {
        let session = Session::start((&self.c.host, CLIENT[0]), (&self.vm, VM[0]))?;
        let streams = Streams::start(self)?;
        thread::sleep(Duration::from_millis(300));
        let begin = self.move_vm()?;
        self.announce()?;
        thread::sleep(AFTER.saturating_sub(begin.elapsed()));
        let text = format!("in an extended subnet, VM now in {}", self.place());
        self.outages(checks, &text, streams.finish()?, (begin, Duration::from_millis(50)));
        self.settled(checks, "in an extended subnet")?;
        let survived = session.finish();
        let passed = survived.is_ok();
        let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
        checks.that("the TCP session lives on", "every record", shown, passed);
        Ok(())
    }

    /// Hosts of the subnet reach each other by the link, which no router takes part in, and what all hear says nothing of where it is.
    fn direct(&self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        for (stays, vm) in NEIGHBOUR.into_iter().zip(VM) {
            let answer = ping(&self.stays, Header::new(stays, vm), 100, FIRST_LIMIT)?;
            let text = format!("{stays} in DC1 pings {vm} in {}", self.place());
            checks.that(text, "reply", answer, answer.is_reply());
        }
        let frames = self.core.since(mark);
        let pairs = VM.into_iter().chain(NEIGHBOUR);
        let between = pairs.map(|eid| {
            wire::data(&frames, XTR[0], XTR[1], eid).len()
                + wire::data(&frames, XTR[1], XTR[0], eid).len()
        });
        checks.equal("packets of theirs in the core", 0, between.sum());
        let answers: u64 = self
            .xtrs
            .iter()
            .map(|xtr| xtr.counter("proxy_answers_sent"))
            .sum::<io::Result<u64>>()?;
        checks.equal("answers that routers gave for other hosts", 0, answers);
        self.announce()?;
        thread::sleep(Duration::from_millis(200));
        for (vm, family) in VM.into_iter().zip(FAMILIES) {
            let prefix = host(vm).to_string();
            let rloc = XTR[self.at].to_string();
            wait_for(LIMIT, || Ok(self.registered(&prefix)? == rloc))?;
            let text = format!("announced to both data centres, {family}: registered by");
            checks.equal(text, rloc, self.registered(&prefix)?);
        }
        Ok(())
    }
}
