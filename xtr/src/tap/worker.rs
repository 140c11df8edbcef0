//! The tap in a worker's forwarding path: takes notes around the very same calls.
use super::filter::Facts;
use super::record::{OuterRecord, Record};
use super::session::Session;
use crate::counters::Traffic;
use crate::drops::DropReason;
use crate::forward::{Outer, Output, Step};
use crate::packet::{Inner, OuterFields};
use mapping::admin::{Direction, Side, TapVerdict};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

/// What one worker notes for a running session.
#[derive(Debug)]
pub(crate) struct Tap {
    session: Arc<Session>,
    /// Which queue of the session is this worker's.
    worker: usize,
    /// Packets matched so far.
    matched: u64,
    came: Record,
    left: Record,
}

impl Tap {
    pub(crate) fn new(session: Arc<Session>, worker: usize, now: Instant) -> Self {
        Self {
            session,
            worker,
            matched: 0,
            came: Record::new(now, Side::Native, Direction::In),
            left: Record::new(now, Side::Core, Direction::Out),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.session.generation()
    }

    /// A packet came in from the native side.
    pub(crate) fn begin_native(&mut self, now: Instant, packet: &[u8]) {
        self.begin(now, Side::Native);
        self.came.keep([packet, &[]]);
    }

    /// A LISP packet came in.
    pub(crate) fn begin_core(
        &mut self,
        now: Instant,
        remote: IpAddr,
        fields: OuterFields,
        datagram: &[u8],
    ) {
        self.begin(now, Side::Core);
        self.came.rloc = Some(remote);
        self.came.outer =
            Some(OuterRecord { own_rloc: None, remote, port: None, translated: None, fields });
        self.came.keep([datagram, &[]]);
    }

    /// A packet without its outer header goes on after it waited.
    pub(crate) fn begin_held(&mut self, now: Instant, side: Side, packet: &[u8]) {
        self.begin(now, side);
        self.came.waited = true;
        self.came.inner = Inner::parse(packet).ok();
        self.came.keep([packet, &[]]);
    }

    /// A packet of which nothing more is known came in.
    pub(crate) fn begin(&mut self, now: Instant, side: Side) {
        let came = &mut self.came;
        (came.at, came.side, came.verdict) = (now, side, TapVerdict::Dropped);
        (came.reason, came.waited, came.inner) = (None, false, None);
        (came.rloc, came.outer, came.pieces) = (None, None, 0);
        came.keep([&[], &[]]);
    }

    /// It was dropped outside the path.
    pub(crate) fn dropped(&mut self, reason: DropReason) {
        (self.came.verdict, self.came.reason) = (TapVerdict::Dropped, Some(reason));
    }

    /// All is known: records the packet if it is wanted.
    pub(crate) fn end(&mut self) {
        let came = &self.came;
        let inner = came.inner.as_ref();
        let facts = Facts { side: came.side, inner, rloc: came.rloc, dropped: came.reason };
        if !self.session.filter().matches(&facts) {
            return;
        }
        let taken = self.matched.is_multiple_of(self.session.sample());
        self.matched += 1;
        if !taken {
            return;
        }
        self.session.push(self.worker, came.clone());
        if self.session.wants_outputs() && came.pieces > 0 {
            self.left.pieces = came.pieces;
            self.session.push(self.worker, self.left.clone());
        }
    }

    fn step(&mut self, step: &Step<'_>) {
        match step {
            Step::Parsed(inner) => self.came.inner = Some(**inner),
            Step::Unwrapped { inner, .. } => self.came.inner = Some(**inner),
            Step::Chosen { adjacency, .. } if self.came.side == Side::Native => {
                self.came.rloc = Some(adjacency.destination);
            }
            Step::Punted => self.came.verdict = TapVerdict::Punted,
            Step::Held => self.came.verdict = TapVerdict::Held,
            Step::Dropped(reason) => self.dropped(*reason),
            _ => {}
        }
    }

    /// A packet left; the first of several is kept.
    fn leave(
        &mut self,
        side: Side,
        verdict: TapVerdict,
        outer: Option<OuterRecord>,
        parts: [&[u8]; 2],
    ) {
        let came = &mut self.came;
        came.pieces += 1;
        if came.reason.is_none() {
            came.verdict = verdict;
        }
        if came.pieces > 1 || !self.session.wants_outputs() {
            return;
        }
        let left = &mut self.left;
        (left.at, left.side, left.verdict) = (came.at, side, verdict);
        (left.inner, left.outer) = (came.inner, outer);
        left.rloc = outer.map_or(came.rloc, |outer| Some(outer.remote));
        left.waited = came.waited;
        left.keep(parts);
    }
}

/// An output with a tap on it.
pub(crate) struct Tapped<'a, O> {
    out: &'a mut O,
    tap: &'a mut Tap,
}

impl<'a, O: Output> Tapped<'a, O> {
    pub(crate) fn new(out: &'a mut O, tap: &'a mut Tap) -> Self {
        Self { out, tap }
    }
}

impl<O: Output> Output for Tapped<'_, O> {
    const IS_LIVE: bool = O::IS_LIVE;

    fn step(&mut self, step: Step<'_>) {
        self.tap.step(&step);
        self.out.step(step);
    }

    fn encapsulated(
        &mut self,
        outer: &Outer,
        headers: &[u8],
        payload: &[u8],
    ) -> Result<(), DropReason> {
        self.out.encapsulated(outer, headers, payload)?;
        let verdict = match self.tap.came.side {
            Side::Native => TapVerdict::Encapsulated,
            Side::Core => TapVerdict::Reencapsulated,
        };
        let record = OuterRecord {
            own_rloc: Some(outer.own_rloc),
            remote: outer.destination,
            // A packet that may be fragmented leaves from a socket of its own, on the first port.
            port: Some(if outer.may_fragment { 0 } else { outer.port }),
            translated: outer.translated,
            fields: outer.fields,
        };
        self.tap.leave(Side::Core, verdict, Some(record), [headers, payload]);
        Ok(())
    }

    fn forwarded(&mut self, frame: &[u8], traffic: Traffic) -> Result<(), DropReason> {
        self.out.forwarded(frame, traffic)?;
        let packet = frame.get(crate::forward::HEADROOM..).unwrap_or_default();
        self.tap.leave(Side::Native, TapVerdict::ForwardedNatively, None, [packet, &[]]);
        Ok(())
    }

    fn delivered(
        &mut self,
        flow_hash: u64,
        inner: &Inner,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        self.out.delivered(flow_hash, inner, packet)?;
        self.tap.leave(Side::Native, TapVerdict::Delivered, None, [packet, &[]]);
        Ok(())
    }
}
