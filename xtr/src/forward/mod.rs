//! PURE. What happens to one packet between the TUN and the core: no I/O, no clock, no lock.
//!
//! ```text
//! native -> parse -> martians -> policy -> FIB -> MTU -> LISP header -> Output::encapsulated
//!                                           |  \-> Native -> Output::forwarded
//!                                           \-> Miss -> hold, punt once
//! core -> LISP header -> parse -> martians -> policy -> marks -> ECN, TTL, DSCP -> Output::delivered
//!                                                  \-> (RTR) FIB, as above
//! ```
//! Every packet is counted exactly once on each side: see [`WorkerCounters`].
//!
//! Nobody can make a hit wait. What a worker shares with others it reads or writes without a lock: the table (left-right: a reader only
//! announces itself), the path MTUs (arc-swap), its counters and those of a locator (atomics). A punt goes into a bounded lock-free queue
//! that is never waited for; only waking a control plane that sleeps takes the short lock of its waker, and a hit punts nothing.
//! Memory is asked for only by what is rare and bounded: a packet that is held, an ICMP error. `tests/no_alloc` counts.
use crate::counters::{Arrivals, Families, Traffic, WorkerCounters};
use crate::drops::DropReason;
use crate::fib::{FibView, Verdict};
use crate::packet::{
    FlowHasher, IcmpError, IcmpLimiter, Inner, Marking, Offload, OuterFields, Segments,
    VirtioNetHeader, decapsulate, icmp, icmp::Rate, lisp, martian,
};
use crate::policy::{Onward, Policy, PolicyFollower};
use crate::punt::{Punt, PuntSender};
use crate::tap::{Switch, Tap, Tapped};
use hold::Waits;
use mapping::admin::Side;
use mapping::eid::{Eid, InstanceId};
use memo::Memo;
use registered::Arrival;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use zerocopy::{FromBytes, IntoBytes};

mod encapsulate;
mod follow;
mod heard;
mod hold;
mod marks;
mod memo;
mod nat;
mod notices;
mod output;
mod path_mtu;
mod rate_limit;
mod registered;
mod reports;
mod step;
mod train;

pub use heard::HEARD_AGAIN;
pub use hold::{Held, HoldLimits};
pub use output::{Outer, Output};
pub use path_mtu::{PathMtus, PathReport, Reported};
pub use rate_limit::RateLimits;
pub use step::Step;

/// Octets that must lie before every packet: a virtio-net header on the native side, a LISP header on the core side fits as well.
pub const HEADROOM: usize = VirtioNetHeader::LEN;

/// What forwarding depends on besides the table.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Own RLOCs; [`Outer::own_rloc`] indexes them.
    pub rlocs: Vec<IpAddr>,
    /// Source ports in the pool, at least 1.
    pub source_ports: u16,
    /// How DSCP and ECN cross the tunnel.
    pub marking: Marking,
    /// Bounds of the packets that wait for a mapping.
    pub hold: HoldLimits,
    /// Key of the flow hash; the same for all workers.
    pub seed: [u8; 32],
    /// ICMP errors this worker may cause (MT-20).
    pub icmp_rate: Rate,
    /// The zero of the coarse clock.
    pub started: Instant,
    /// Control messages may come behind LISP headers of Instance ID 0xFFFFFF (NT-08).
    pub control_in_data: bool,
}

/// The forwarding path of one worker.
#[derive(Debug)]
pub struct Forwarder<P> {
    policy: Arc<P>,
    /// What the policy said of packets from the native side, and of those from the core.
    admitted_native: Memo<(IpAddr, IpAddr), Native>,
    admitted: Memo<(IpAddr, InstanceId, IpAddr, IpAddr), Onward>,
    /// Where the policy is replaced, if it can be.
    follower: Option<PolicyFollower<P>>,
    /// What arrived for own EID-prefixes.
    arrivals: Arc<Arrivals>,
    /// The own RLOC, by number, that the packets at hand came to.
    arrived_at: usize,
    settings: Settings,
    hasher: FlowHasher,
    counters: Arc<WorkerCounters>,
    path_mtus: Arc<PathMtus>,
    punts: PuntSender,
    icmp_limiter: IcmpLimiter,
    hints: reports::Hints,
    /// Who sends for own EIDs.
    heard: heard::Heard,
    hold: hold::Hold,
    /// Who may send what, if that is checked.
    sources: Option<registered::Sources>,
    limiter: Option<Box<rate_limit::Limiter>>,
    /// In a trusted core.
    trusted: Option<Box<marks::Trusted>>,
    /// Whole seconds since the start, plus 1.
    clock: u32,
    scratch: encapsulate::Scratch,
    tap_switch: Arc<Switch>,
    /// Which worker this is to the tap.
    worker: usize,
    /// While somebody taps.
    tap: Option<Box<Tap>>,
    /// The host that the control plane was told of last, and when.
    spoke: Option<(Eid, Instant)>,
    /// Who was told of lately that still sends for hosts that are elsewhere.
    left: Box<notices::Notices<LEFT_PER_SECOND>>,
    /// How the last packet from the core went to the native side, since this was last emptied; nothing if it did not.
    went: Option<Onward>,
}

/// How often the control plane is told of the same host.
const SPOKE_AGAIN: Duration = Duration::from_millis(100);
/// Senders per second that a worker tells the control plane of because a host is elsewhere.
const LEFT_PER_SECOND: usize = 256;

/// What is known of packets from the native side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Native {
    /// Where their destination is looked up.
    instance_id: InstanceId,
    /// Their source is a host that comes and goes, and was not here when the table last changed.
    is_news: bool,
}

/// What a LISP header came behind.
#[derive(Clone, Copy)]
struct Carrier {
    /// Source of the datagram as the network delivered it.
    sender: IpAddr,
    /// Source of the header right before this LISP header; another one than `sender` in a nested packet.
    source: IpAddr,
    fields: OuterFields,
}

/// A packet on its way to the table: it starts at `start` in `frame`, at least 8 octets in.
struct Work<'a> {
    frame: &'a mut [u8],
    start: usize,
    inner: Inner,
    virtio: VirtioNetHeader,
    /// What it stands for: itself, or the segments of a super-packet.
    traffic: Traffic,
    from_core: bool,
    /// On whose share it waits: who sent it, which in a packet from the core its inner source may lie about.
    payer: IpAddr,
}

impl Work<'_> {
    fn packet(&self) -> &[u8] {
        &self.frame[self.start..self.start + self.inner.total_len]
    }

    fn packet_mut(&mut self) -> &mut [u8] {
        &mut self.frame[self.start..self.start + self.inner.total_len]
    }
}

impl<P: Policy> Forwarder<P> {
    /// A path with nothing held.
    pub fn new(
        settings: Settings,
        policy: Arc<P>,
        counters: Arc<WorkerCounters>,
        path_mtus: Arc<PathMtus>,
        punts: PuntSender,
    ) -> Self {
        Self {
            policy,
            admitted_native: Memo::default(),
            admitted: Memo::default(),
            follower: None,
            arrivals: Arc::default(),
            arrived_at: 0,
            hasher: FlowHasher::new(settings.seed),
            counters,
            path_mtus,
            punts,
            icmp_limiter: IcmpLimiter::new(settings.icmp_rate, settings.seed),
            hints: reports::Hints::default(),
            heard: heard::Heard::default(),
            hold: hold::Hold::new(settings.hold),
            sources: None,
            limiter: None,
            trusted: None,
            clock: 1,
            scratch: encapsulate::Scratch::default(),
            tap_switch: Arc::default(),
            worker: 0,
            tap: None,
            spoke: None,
            left: Box::new(notices::Notices::new()),
            went: None,
            settings,
        }
    }

    /// Follows `switch` as worker number `worker`: it looks there once per batch, in [`Self::handle_timeout`].
    pub fn with_tap(self, switch: Arc<Switch>, worker: usize) -> Self {
        Self { tap_switch: switch, worker, ..self }
    }

    /// Takes the policy from `follower`, now and whenever it is replaced: it looks there once per batch, in [`Self::handle_timeout`].
    pub fn with_policy_of(mut self, follower: PolicyFollower<P>) -> Self {
        self.follower = Some(follower);
        self.follow_policy();
        self
    }

    /// What comes from the core next has come to the own RLOC number `rloc`.
    pub fn set_arrival(&mut self, rloc: usize) {
        self.arrived_at = rloc;
    }

    fn follow_policy(&mut self) {
        if let Some((policy, arrivals)) = self.follower.as_mut().and_then(PolicyFollower::follow) {
            (self.policy, self.arrivals) = (policy, arrivals);
            self.admitted_native.forget();
            self.admitted.forget();
        }
    }

    /// A frame read from the TUN: virtio-net header and packet, perhaps a super-packet.
    pub fn from_native(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        frame: &mut [u8],
        out: &mut impl Output,
    ) {
        let Some(mut tap) = self.take_tap() else {
            return self.native_to_table(now, fib, frame, out);
        };
        tap.begin_native(now, frame.get(HEADROOM..).unwrap_or_default());
        self.native_to_table(now, fib, frame, &mut Tapped::new(out, &mut tap));
        self.put_tap(tap);
    }

    fn native_to_table(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        frame: &mut [u8],
        out: &mut impl Output,
    ) {
        let work = match self.admit_native(frame) {
            Ok(work) => work,
            Err(reason) => return self.drop_unparsed(reason, out),
        };
        self.counters.native_in(work.traffic);
        let inner = &work.inner;
        out.step(Step::Parsed(inner));
        if inner.ttl == 0 {
            self.answer(now, &work, IcmpError::HopLimitExceeded, out);
            return self.discard(DropReason::HopLimitExceeded, work.traffic.packets, out);
        }
        let admitted = martian::inner_destination(inner.destination, &[])
            .and_then(|()| martian::inner_source(inner.source, &[]))
            .and_then(|()| {
                out.step(Step::NotMartian);
                let Self { policy, admitted_native, .. } = self;
                let ask = || {
                    let instance_id = policy.admit_native(inner.source, inner.destination)?;
                    let is_news = policy.roams(inner.source)
                        && !matches!(fib.lookup(instance_id, inner.source), Verdict::Native);
                    Ok(Native { instance_id, is_news })
                };
                admitted_native.get_or((inner.source, inner.destination), ask)
            });
        match admitted {
            Ok(Native { instance_id, is_news }) => {
                out.step(Step::Admitted(instance_id));
                if is_news {
                    self.host_spoke(now, Eid::new(instance_id, inner.source));
                }
                self.look_up(now, fib, instance_id, work, out);
            }
            Err(reason) => self.discard(reason, work.traffic.packets, out),
        }
    }

    /// A host that comes and goes, and is not known to be here, has sent a packet: the control plane learns of it (DY-01).
    #[cold]
    fn host_spoke(&mut self, now: Instant, host: Eid) {
        let is_told = self.spoke.is_some_and(|(last, at)| last == host && now < at + SPOKE_AGAIN);
        // If there is no room, the next packet tells.
        if !is_told && self.punts.send(Punt::HostSpoke { source: host.address }).is_ok() {
            self.spoke = Some((host, now));
        }
    }

    /// Where [`Self::from_native`] will look the destination of this packet up, if it will.
    pub fn destination(&self, packet: &[u8]) -> Option<(InstanceId, IpAddr)> {
        let inner = Inner::parse(packet).ok()?;
        let instance_id = self.policy.admit_native(inner.source, inner.destination).ok()?;
        Some((instance_id, inner.destination))
    }

    /// A datagram received on port 4341 of an own RLOC: `datagram` is its UDP payload, `outer` what was in the outer header.
    pub fn from_core(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        outer_source: IpAddr,
        outer: OuterFields,
        datagram: &mut [u8],
        out: &mut impl Output,
    ) {
        let Some(mut tap) = self.take_tap() else {
            return self.core_to_site(now, fib, outer_source, outer, datagram, out);
        };
        tap.begin_core(now, outer_source, outer, datagram);
        let tapped = &mut Tapped::new(out, &mut tap);
        self.core_to_site(now, fib, outer_source, outer, datagram, tapped);
        self.put_tap(tap);
    }

    fn core_to_site(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        outer_source: IpAddr,
        outer: OuterFields,
        datagram: &mut [u8],
        out: &mut impl Output,
    ) {
        let octets = datagram.len().saturating_sub(lisp::HEADER_LEN);
        let families = Families::of_datagram(datagram, outer_source.is_ipv6());
        self.counters.core_in(families, Traffic::packet(octets));
        let carrier = Carrier { sender: outer_source, source: outer_source, fields: outer };
        if let Err(reason) = self.decapsulate(now, fib, carrier, datagram, 1, out) {
            self.discard(reason, 1, out);
        }
    }

    /// A datagram that could not be received whole, or without its outer fields.
    pub fn drop_from_core(&mut self, now: Instant, reason: DropReason) {
        // Nobody knows what it was.
        self.counters.core_in(Families::of(false, false), Traffic::packet(0));
        self.counters.dropped(reason, 1);
        self.show_unreadable(now, Side::Core, reason);
    }

    /// A packet of which nothing is left to show but that it was there.
    fn show_unreadable(&mut self, now: Instant, side: Side, reason: DropReason) {
        if let Some(tap) = &mut self.tap {
            tap.begin(now, side);
            tap.dropped(reason);
            tap.end();
        }
    }

    /// A packet from the native side that did not become a frame, or was not received whole.
    pub fn drop_from_native(&mut self, now: Instant, reason: DropReason) {
        self.counters.native_in(Traffic::packet(0));
        self.counters.dropped(reason, 1);
        self.show_unreadable(now, Side::Native, reason);
    }

    /// The table changed: packets whose mapping came are to be taken with [`Self::next_released`].
    pub fn handle_fib_change(&mut self) {
        // A host may have come, or gone.
        self.admitted_native.forget();
        self.hold.renew_budget();
        self.hold.table_changed();
        if let Some(sources) = &mut self.sources {
            sources.waiting.renew_budget();
            sources.waiting.table_changed();
        }
    }

    /// The next packet that need not wait any longer; give it to [`Self::resume`]. Take them all after a change of the table and
    /// after every buffer, before the next: later packets of their flows must not overtake them.
    pub fn next_released(&mut self, fib: &mut FibView<'_>) -> Option<Held> {
        self.hold.release(|eid| !fib.lookup(eid.instance_id, eid.address).is_miss());
        let held = match self.hold.pop_released() {
            Some(held) => held,
            None => self.sources.as_mut()?.next_released()?,
        };
        self.counters.set_held(self.held());
        Some(held)
    }

    /// Forwards a packet that was held; `held.frame` moved to where [`Output`] can point into it.
    pub fn resume(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        held: Resumed,
        frame: &mut [u8],
        out: &mut impl Output,
    ) {
        let Some(mut tap) = self.take_tap() else {
            return self.held_to_table(now, fib, held, frame, out);
        };
        let side = if held.from_core { Side::Core } else { Side::Native };
        tap.begin_held(now, side, frame.get(HEADROOM..).unwrap_or_default());
        self.held_to_table(now, fib, held, frame, &mut Tapped::new(out, &mut tap));
        self.put_tap(tap);
    }

    fn held_to_table(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        held: Resumed,
        frame: &mut [u8],
        out: &mut impl Output,
    ) {
        let Resumed { eid, traffic, from_core, arrival, payer } = held;
        let Some((virtio, packet)) = split(frame) else {
            return self.discard(DropReason::InnerMalformed, traffic.packets, out);
        };
        match Inner::parse(packet) {
            Ok(inner) => {
                let work =
                    Work { frame, start: HEADROOM, inner, virtio, traffic, from_core, payer };
                match arrival {
                    Some(arrival) => self.pass(now, fib, &arrival, work, false, out),
                    None if self.would_return(fib, eid, &work) => {
                        self.discard(DropReason::FollowedToSender, traffic.packets, out);
                    }
                    None => self.dispatch(now, fib, eid, work, out),
                }
            }
            Err(reason) => self.discard(reason, traffic.packets, out),
        }
    }

    /// When [`Self::handle_timeout`] is next to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let holds = || {
            [Some(&self.hold), self.sources.as_ref().map(|sources| &sources.waiting)]
                .into_iter()
                .flatten()
        };
        if holds().any(hold::Hold::is_rechecking) {
            return Some(self.settings.started);
        }
        holds().filter_map(hold::Hold::poll_timeout).min()
    }

    /// Moves the coarse clock and throws out what was held too long. Call it before every batch.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.tap_switch.follow(now, self.worker, &mut self.tap);
        self.follow_policy();
        let seconds = now.saturating_duration_since(self.settings.started).as_secs();
        self.clock = u32::try_from(seconds + 1).unwrap_or(u32::MAX);
        self.hold.renew_budget();
        let mut expired = self.hold.expire(now);
        if let Some(sources) = &mut self.sources {
            sources.waiting.renew_budget();
            expired.append(&mut sources.waiting.expire(now));
        }
        if !expired.is_empty() {
            let packets = expired.iter().map(|held| held.traffic.packets).sum();
            self.counters.dropped(DropReason::MapCacheMissTimeout, packets);
            self.counters.set_held(self.held());
            self.show_expired(now, &expired);
        }
    }

    #[cold]
    fn show_expired(&mut self, now: Instant, expired: &[Held]) {
        let Some(tap) = &mut self.tap else { return };
        for held in expired {
            let side = if held.from_core { Side::Core } else { Side::Native };
            tap.begin_held(now, side, held.frame.get(HEADROOM..).unwrap_or_default());
            tap.dropped(DropReason::MapCacheMissTimeout);
            tap.end();
        }
    }

    #[inline(always)]
    fn take_tap(&mut self) -> Option<Box<Tap>> {
        // Almost always nothing to take, and then nothing is written.
        if self.tap.is_some() { self.tap.take() } else { None }
    }

    #[cold]
    fn put_tap(&mut self, mut tap: Box<Tap>) {
        tap.end();
        self.tap = Some(tap);
    }

    /// Throws out everything that is held, because nobody will be here to send it.
    pub fn give_up(&mut self) {
        let unverified = self.sources.as_mut().map_or(0, |sources| sources.waiting.clear());
        let lost = self.hold.clear() + unverified;
        self.counters.dropped(DropReason::MapCacheMissTimeout, lost);
        self.counters.set_held(0);
    }

    // Two outputs, the tapped one among them, share it: left to itself it becomes a call with a large result.
    #[inline(always)]
    fn admit_native<'a>(&self, frame: &'a mut [u8]) -> Result<Work<'a>, DropReason> {
        let (virtio, packet) = split(frame).ok_or(DropReason::InnerMalformed)?;
        let inner = Inner::parse(packet)?;
        let mut traffic = Traffic::packet(inner.total_len);
        if Offload::of(&virtio) == Offload::Segment {
            let segments = Segments::new(&packet[..inner.total_len], &inner, &virtio)?;
            traffic.packets = segments.remaining() as u64;
            traffic.octets += (traffic.packets - 1) * segments.headers_len() as u64;
        }
        let payer = inner.source;
        Ok(Work { frame, start: HEADROOM, inner, virtio, traffic, from_core: false, payer })
    }

    fn drop_unparsed(&self, reason: DropReason, out: &mut impl Output) {
        self.counters.native_in(Traffic::packet(0));
        self.discard(reason, 1, out);
    }

    fn discard(&self, reason: DropReason, packets: u64, out: &mut impl Output) {
        out.step(Step::Dropped(reason));
        self.counters.dropped(reason, packets);
    }

    /// `depth` counts the LISP headers taken off, this one included.
    fn decapsulate(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        carrier: Carrier,
        datagram: &mut [u8],
        depth: usize,
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        martian::outer_source(carrier.source, &self.settings.rlocs)?;
        if depth == 1 {
            self.limit_incoming(now, carrier.source)?;
        }
        let instance_id = lisp::parse(datagram)?;
        if instance_id.get() == nat::CONTROL && self.settings.control_in_data && depth == 1 {
            return self.punt_control(carrier.source, &datagram[lisp::HEADER_LEN..], out);
        }
        let marks = self.heeded_marks(carrier.source, depth, datagram);
        let mut inner = Inner::parse(&datagram[lisp::HEADER_LEN..])?;
        out.step(Step::Unwrapped { source: carrier.source, instance_id, inner: &inner, depth });
        let end = lisp::HEADER_LEN + inner.total_len;
        let packet = &mut datagram[lisp::HEADER_LEN..end];
        if lisp::is_data(&inner) && self.settings.rlocs.contains(&inner.destination) {
            if depth >= lisp::MAX_NESTING {
                return Err(DropReason::NestedTooDeep);
            }
            let applied =
                decapsulate::apply(packet, &mut inner, carrier.fields, self.settings.marking)?;
            if applied.unusual_ecn {
                self.counters.ecn_unused_combination();
            }
            let payload = inner.transport_offset + UDP_HEADER_LEN;
            let nested = packet.get_mut(payload..).ok_or(DropReason::LispHeaderTruncated)?;
            let fields = OuterFields { ttl: inner.ttl, tos: inner.tos };
            let carrier = Carrier { sender: carrier.sender, source: inner.source, fields };
            return self.decapsulate(now, fib, carrier, nested, depth + 1, out);
        }
        martian::inner_source(inner.source, &self.settings.rlocs)?;
        martian::inner_destination(inner.destination, &self.settings.rlocs)?;
        out.step(Step::NotMartian);
        let Self { policy, admitted, .. } = self;
        let (from, to) = (inner.source, inner.destination);
        let mut admit = |rloc| {
            let ask = || policy.admit_decapsulated(rloc, instance_id, from, to);
            admitted.get_or((rloc, instance_id, from, to), ask)
        };
        if depth > 1 {
            // What is inside the tunnel cannot vouch for whoever sent the packet.
            admit(carrier.sender)?;
        }
        let onward = admit(carrier.source)?;
        out.step(Step::Accepted(onward));
        if let Some(marks) = marks {
            self.heed(fib, &carrier, instance_id, &inner, &marks, out)?;
        }
        let applied =
            decapsulate::apply(packet, &mut inner, carrier.fields, self.settings.marking)?;
        if applied.unusual_ecn {
            self.counters.ecn_unused_combination();
        }
        let Carrier { source, sender, .. } = carrier;
        let arrival = Arrival { instance_id, onward, source, sender };
        let traffic = Traffic::packet(inner.total_len);
        let (start, virtio) = (lisp::HEADER_LEN, VirtioNetHeader::default());
        let frame = &mut datagram[..end];
        let work = Work { frame, start, inner, virtio, traffic, from_core: true, payer: sender };
        self.pass(now, fib, &arrival, work, true, out);
        Ok(())
    }

    /// Sends a decapsulated packet where it goes, if who sent it may; `is_new` unless it waited for that to be known.
    fn pass(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        arrival: &Arrival,
        work: Work<'_>,
        is_new: bool,
        out: &mut impl Output,
    ) {
        match self.verify_source(now, arrival, &work, is_new, out) {
            Ok(true) => {}
            Ok(false) => return,
            Err(reason) => return self.discard(reason, work.traffic.packets, out),
        }
        match arrival.onward {
            onward @ (Onward::Deliver | Onward::DeliverOwn(_)) => {
                if self.deliver(&work, out) {
                    self.went = Some(onward);
                    if let Onward::DeliverOwn(prefix) = onward {
                        self.arrivals.count(prefix, self.arrived_at, work.traffic);
                        self.hear(arrival, &work.inner);
                    }
                }
            }
            Onward::Reencapsulate => self.reencapsulate(now, fib, arrival.instance_id, work, out),
            Onward::Follow(prefix) => self.follow(now, fib, (arrival, prefix), work, out),
        }
    }

    /// Hands a packet from the core to the native side; whether it went.
    #[inline(always)]
    fn deliver(&self, work: &Work<'_>, out: &mut impl Output) -> bool {
        match out.delivered(self.hasher.hash(&work.inner), &work.inner, work.packet()) {
            Ok(()) => self.counters.decapsulated(1),
            Err(reason) => {
                self.discard(reason, 1, out);
                return false;
            }
        }
        true
    }

    /// Packets that wait, segments counted each.
    fn held(&self) -> u64 {
        let unverified = self.sources.as_ref().map_or(0, |sources| sources.waiting.packets());
        self.hold.packets() + unverified
    }

    fn reencapsulate(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        instance_id: InstanceId,
        mut work: Work<'_>,
        out: &mut impl Output,
    ) {
        let mut inner = work.inner;
        if let Err(reason) = decapsulate::decrement_ttl(work.packet_mut(), &mut inner) {
            self.answer(now, &work, IcmpError::HopLimitExceeded, out);
            return self.discard(reason, 1, out);
        }
        work.inner = inner;
        self.look_up(now, fib, instance_id, work, out);
    }

    fn look_up(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        instance_id: InstanceId,
        work: Work<'_>,
        out: &mut impl Output,
    ) {
        let eid = Eid::new(instance_id, work.inner.destination);
        if self.hold.is_waiting(&eid) {
            // Behind those that came before, even if the mapping is there by now.
            self.hold_back(now, eid, &work, out);
            if !fib.lookup(eid.instance_id, eid.address).is_miss() {
                self.hold.release_one(&eid);
            }
            return;
        }
        self.dispatch(now, fib, eid, work, out);
    }

    fn dispatch(
        &mut self,
        now: Instant,
        fib: &mut FibView<'_>,
        eid: Eid,
        work: Work<'_>,
        out: &mut impl Output,
    ) {
        let verdict = fib.lookup(eid.instance_id, eid.address);
        out.step(Step::LookedUp(eid, verdict));
        match verdict {
            Verdict::Encapsulate(set) => {
                self.encapsulate(now, set, eid.instance_id, work, out);
            }
            Verdict::Native => self.forward_natively(now, &work, out),
            Verdict::Drop(reason) => self.refuse(now, &work, *reason, out),
            Verdict::Miss => self.hold_back(now, eid, &work, out),
        }
    }

    fn forward_natively(&mut self, now: Instant, work: &Work<'_>, out: &mut impl Output) {
        let sent = self.policy.admit_native_forward().and_then(|()| {
            if work.from_core {
                out.delivered(self.hasher.hash(&work.inner), &work.inner, work.packet())
            } else {
                let end = work.start + work.inner.total_len;
                out.forwarded(&work.frame[work.start - HEADROOM..end], work.traffic)
            }
        });
        match sent {
            Ok(()) if work.from_core => self.counters.decapsulated(work.traffic.packets),
            Ok(()) => {}
            Err(reason) => self.refuse(now, work, reason, out),
        }
    }

    /// Drops a packet that its mapping leads nowhere; the source is told where EN-25, MC-13, PB-19 and PI-05 say so.
    fn refuse(&mut self, now: Instant, work: &Work<'_>, reason: DropReason, out: &mut impl Output) {
        let unreachable = matches!(
            reason,
            DropReason::NoCommonRlocFamily
                | DropReason::NoUsableLocator
                | DropReason::ActionDrop
                | DropReason::NativeWouldLoop
        );
        if unreachable {
            self.answer(now, work, IcmpError::HostUnreachable, out);
        }
        self.discard(reason, work.traffic.packets, out);
    }

    /// Punts the EID if that is due and holds the packet.
    fn hold_back(&mut self, now: Instant, eid: Eid, work: &Work<'_>, out: &mut impl Output) {
        let held = self.punt_miss(now, eid, work).and_then(|()| {
            let parts = [work.virtio.as_bytes(), work.packet()];
            let from = if work.from_core { Waits::FromCore } else { Waits::FromNative };
            self.hold.push(now, (eid, work.payer), parts, work.traffic, from)
        });
        match held {
            Ok(()) => {
                out.step(Step::Held);
                self.counters.set_held(self.held());
            }
            Err(reason) => self.discard(reason, work.traffic.packets, out),
        }
    }

    fn punt_miss(&mut self, now: Instant, eid: Eid, work: &Work<'_>) -> Result<(), DropReason> {
        if self.hold.punt_due(now, &eid, work.payer)? {
            self.punts
                .send(Punt::Miss { destination: eid, source: work.inner.source })
                .map_err(|_| DropReason::PuntQueueFull)?;
            self.hold.punted(now, eid, work.payer);
        }
        Ok(())
    }

    /// Has the control plane tell the source of a packet that is about to be dropped, if it may be told (MT-19, MT-20).
    #[cold]
    fn answer(&mut self, now: Instant, work: &Work<'_>, error: IcmpError, out: &mut impl Output) {
        let inner = &work.inner;
        let allowed = icmp::may_answer(error, inner, work.packet())
            && self.icmp_limiter.allow(now, inner.source);
        if !allowed {
            return self.counters.icmp_suppressed();
        }
        out.step(Step::Answered(error));
        let message = icmp::build(error, inner, work.packet());
        match self.punts.send(Punt::IcmpError { destination: inner.source, message }) {
            Ok(()) => self.counters.icmp_error(),
            Err(_) => self.counters.icmp_suppressed(),
        }
    }
}

/// What is known of a packet that was held, without its frame.
#[derive(Clone, Copy, Debug)]
pub struct Resumed {
    eid: Eid,
    traffic: Traffic,
    from_core: bool,
    arrival: Option<Arrival>,
    payer: IpAddr,
}

impl Resumed {
    /// Packets it stands for: itself, or the segments of a super-packet.
    pub const fn packets(&self) -> u64 {
        self.traffic.packets
    }
}

impl Held {
    /// The frame, to be put where it stays until it is sent, and the rest.
    pub fn into_parts(self) -> (Box<[u8]>, Resumed) {
        let Self { eid, frame, traffic, from_core, arrival, payer, .. } = self;
        (frame, Resumed { eid, traffic, from_core, arrival, payer })
    }
}

const UDP_HEADER_LEN: usize = crate::packet::headers::UdpHeader::LEN;

fn split(frame: &[u8]) -> Option<(VirtioNetHeader, &[u8])> {
    VirtioNetHeader::read_from_prefix(frame).ok()
}

#[cfg(test)]
mod tests;
