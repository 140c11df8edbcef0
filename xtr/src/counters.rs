//! Counters that one worker writes and anyone reads.
use crate::drops::DropReason;
use std::collections::BTreeMap;
use std::ops::{Add, AddAssign};
use std::sync::atomic::{AtomicU64, Ordering};

/// Packets and octets (inner) sent to one locator for one EID-prefix.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    /// Packets.
    pub packets: AtomicU64,
    /// Inner octets.
    pub octets: AtomicU64,
}

impl TrafficCounters {
    /// Counts traffic; several workers may do so at once.
    pub fn add_shared(&self, packets: u64, octets: u64) {
        self.packets.fetch_add(packets, Ordering::Relaxed);
        self.octets.fetch_add(octets, Ordering::Relaxed);
    }

    fn add(&self, traffic: Traffic) {
        add(&self.packets, traffic.packets);
        add(&self.octets, traffic.octets);
    }

    fn snapshot(&self) -> Traffic {
        Traffic {
            packets: self.packets.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
        }
    }
}

/// What arrived at one worker, by own EID-prefix and own RLOC: that worker alone writes, without locked instructions.
#[derive(Debug, Default)]
pub struct Arrivals {
    rlocs: usize,
    lines: Box<[ArrivalLine]>,
}

/// Counters on cache lines that no other worker writes.
#[derive(Debug, Default)]
#[repr(align(128))]
struct ArrivalLine([TrafficCounters; ArrivalLine::LEN]);

impl ArrivalLine {
    const LEN: usize = 8;
}

impl Arrivals {
    /// Nothing arrived yet for any of `prefixes` EID-prefixes on any of `rlocs` RLOCs.
    pub fn new(prefixes: usize, rlocs: usize) -> Self {
        let lines = (prefixes * rlocs).div_ceil(ArrivalLine::LEN);
        Self { rlocs, lines: std::iter::repeat_with(ArrivalLine::default).take(lines).collect() }
    }

    /// Packets for the own EID-prefix number `prefix` arrived on the own RLOC number `rloc`.
    #[inline]
    pub fn count(&self, prefix: u32, rloc: usize, traffic: Traffic) {
        if let Some(counters) = self.counters(prefix as usize, rloc) {
            counters.add(traffic);
        }
    }

    /// What was counted so far.
    pub fn get(&self, prefix: usize, rloc: usize) -> Traffic {
        self.counters(prefix, rloc).map(TrafficCounters::snapshot).unwrap_or_default()
    }

    #[inline]
    fn counters(&self, prefix: usize, rloc: usize) -> Option<&TrafficCounters> {
        let place = prefix * self.rlocs + rloc;
        self.lines.get(place / ArrivalLine::LEN).map(|line| &line.0[place % ArrivalLine::LEN])
    }
}

/// Which family is inside which: the index of a counter by families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Families(usize);

impl Families {
    /// How many there are.
    pub const COUNT: usize = 4;
    /// Their names, in the order of their index.
    pub const NAMES: [&'static str; Self::COUNT] =
        ["ipv4_in_ipv4", "ipv4_in_ipv6", "ipv6_in_ipv4", "ipv6_in_ipv6"];

    /// An IPv6 packet, or an IPv4 one, in an IPv6 packet, or an IPv4 one.
    #[inline]
    pub const fn of(inner_is_ipv6: bool, outer_is_ipv6: bool) -> Self {
        Self(((inner_is_ipv6 as usize) << 1) | outer_is_ipv6 as usize)
    }

    /// Of what a LISP datagram holds; what is no IPv6 packet counts as IPv4.
    #[inline]
    pub fn of_datagram(datagram: &[u8], outer_is_ipv6: bool) -> Self {
        let first = datagram.get(crate::packet::lisp::HEADER_LEN);
        Self::of(first.is_some_and(|octet| octet >> 4 == 6), outer_is_ipv6)
    }

    /// From 0 to [`Self::COUNT`] - 1.
    pub const fn index(self) -> usize {
        self.0
    }
}

/// The counters of one worker: that worker alone writes, without locked instructions; alone on its cache lines.
///
/// Every packet that comes in leaves, is dropped for one reason, or is held:
/// `native_in + core_in + fragments_created = native_out + core_out + control_in_data + drops + held`. A super-packet counts as its segments.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WorkerCounters {
    native_in: TrafficCounters,
    native_out: TrafficCounters,
    /// By families.
    core_in: [TrafficCounters; Families::COUNT],
    core_out: TrafficCounters,
    /// By families.
    encapsulated: [AtomicU64; Families::COUNT],
    decapsulated: AtomicU64,
    /// By families.
    reencapsulated: [AtomicU64; Families::COUNT],
    held: AtomicU64,
    core_bursts: AtomicU64,
    native_writes: AtomicU64,
    ring_frames: AtomicU64,
    icmp_errors: AtomicU64,
    icmp_suppressed: AtomicU64,
    fragments_created: AtomicU64,
    path_mtu_lowered: AtomicU64,
    ecn_unused_combination: AtomicU64,
    control_in_data: AtomicU64,
    drops: DropCounters,
}

#[derive(Debug)]
struct DropCounters([AtomicU64; DropReason::COUNT]);

impl Default for DropCounters {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::COUNT])
    }
}

impl WorkerCounters {
    /// Packets that came in from the TUN.
    pub fn native_in(&self, traffic: Traffic) {
        self.native_in.add(traffic);
    }

    /// Packets written to the TUN.
    pub fn native_out(&self, traffic: Traffic) {
        self.native_out.add(traffic);
    }

    /// LISP packets that came in.
    #[inline]
    pub fn core_in(&self, families: Families, traffic: Traffic) {
        self.core_in[families.0].add(traffic);
    }

    /// LISP packets handed to the kernel.
    pub fn core_out(&self, traffic: Traffic) {
        self.core_out.add(traffic);
    }

    /// One system call's worth of LISP packets was handed to the kernel.
    pub fn core_burst(&self) {
        add(&self.core_bursts, 1);
    }

    /// One write to the TUN, of a packet or a super-packet.
    pub fn native_write(&self) {
        add(&self.native_writes, 1);
    }

    /// A packet or super-packet was taken from the ring of a native interface, not from the TUN.
    pub fn ring_frame(&self) {
        add(&self.ring_frames, 1);
    }

    /// Packets that got a LISP header on their way from the native side.
    #[inline]
    pub fn encapsulated(&self, families: Families, packets: u64) {
        add(&self.encapsulated[families.0], packets);
    }

    /// Packets that lost theirs and go to the native side.
    pub fn decapsulated(&self, packets: u64) {
        add(&self.decapsulated, packets);
    }

    /// Packets that came in encapsulated and leave so (RTR).
    #[inline]
    pub fn reencapsulated(&self, families: Families, packets: u64) {
        add(&self.reencapsulated[families.0], packets);
    }

    /// The packets held for a mapping right now.
    pub fn set_held(&self, packets: u64) {
        self.held.store(packets, Ordering::Relaxed);
    }

    /// An ICMP error was handed to the control plane.
    pub fn icmp_error(&self) {
        add(&self.icmp_errors, 1);
    }

    /// An ICMP error was due but rate-limited or not allowed (MT-19, MT-20).
    pub fn icmp_suppressed(&self) {
        add(&self.icmp_suppressed, 1);
    }

    /// Packets that exist only because one was split: pieces less one, per split.
    pub fn fragments_created(&self, packets: u64) {
        add(&self.fragments_created, packets);
    }

    /// A report from the path lowered the MTU of a locator (MT-11).
    pub fn path_mtu_lowered(&self) {
        add(&self.path_mtu_lowered, 1);
    }

    /// A combination of outer and inner ECN that RFC 6040 Figure 4 marks as unused (DE-14).
    pub fn ecn_unused_combination(&self) {
        add(&self.ecn_unused_combination, 1);
    }

    /// A control message behind a LISP header was handed to the control plane.
    pub fn control_in_data(&self) {
        add(&self.control_in_data, 1);
    }

    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason, packets: u64) {
        if let Some(counter) = self.drops.0.get(reason as usize) {
            add(counter, packets);
        }
    }

    /// The worker is no more: what it still had is dropped.
    pub fn write_off(&self) {
        self.set_held(0);
        let lost = self.snapshot().unaccounted();
        self.dropped(DropReason::WorkerFailed, lost);
    }

    /// The values now; each is exact, together they may be some packets apart while the worker runs.
    pub fn snapshot(&self) -> CounterSnapshot {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let received = self.core_in.each_ref().map(TrafficCounters::snapshot);
        let encapsulated = self.encapsulated.each_ref().map(load);
        let reencapsulated = self.reencapsulated.each_ref().map(load);
        CounterSnapshot {
            native_in: self.native_in.snapshot(),
            native_out: self.native_out.snapshot(),
            core_in: received.iter().fold(Traffic::default(), |sum, one| sum + *one),
            core_out: self.core_out.snapshot(),
            encapsulated: encapsulated.iter().sum(),
            decapsulated: load(&self.decapsulated),
            reencapsulated: reencapsulated.iter().sum(),
            received,
            sent: std::array::from_fn(|at| encapsulated[at] + reencapsulated[at]),
            held: load(&self.held),
            core_bursts: load(&self.core_bursts),
            native_writes: load(&self.native_writes),
            ring_frames: load(&self.ring_frames),
            icmp_errors: load(&self.icmp_errors),
            icmp_suppressed: load(&self.icmp_suppressed),
            fragments_created: load(&self.fragments_created),
            path_mtu_lowered: load(&self.path_mtu_lowered),
            ecn_unused_combination: load(&self.ecn_unused_combination),
            control_in_data: load(&self.control_in_data),
            drops: std::array::from_fn(|reason| load(&self.drops.0[reason])),
        }
    }
}

/// Packets and octets of the inner packets; a super-packet counts as its segments, headers and all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

impl Traffic {
    /// One packet.
    pub const fn packet(octets: usize) -> Self {
        Self { packets: 1, octets: octets as u64 }
    }
}

impl Add for Traffic {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// The data plane's counters at one moment; add those of all workers up with `+=`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// From the TUN.
    pub native_in: Traffic,
    /// To the TUN.
    pub native_out: Traffic,
    /// LISP packets received.
    pub core_in: Traffic,
    /// LISP packets sent.
    pub core_out: Traffic,
    /// Packets from the native side that were encapsulated.
    pub encapsulated: u64,
    /// Packets that were decapsulated for the native side.
    pub decapsulated: u64,
    /// Packets re-encapsulated (RTR).
    pub reencapsulated: u64,
    /// `core_in` by [`Families`].
    pub received: [Traffic; Families::COUNT],
    /// `encapsulated` and `reencapsulated` together, by [`Families`].
    pub sent: [u64; Families::COUNT],
    /// Packets held for a mapping right now.
    pub held: u64,
    /// Sends that took `core_out`: packets per send tell how well bursts form.
    pub core_bursts: u64,
    /// Writes that took `native_out`.
    pub native_writes: u64,
    /// Packets and super-packets in `native_in` that came by the ring of an interface, not by the TUN.
    pub ring_frames: u64,
    /// ICMP errors handed to the control plane.
    pub icmp_errors: u64,
    /// ICMP errors not sent: rate limit, or MT-19 forbids one.
    pub icmp_suppressed: u64,
    /// Pieces beyond the first, over all split packets.
    pub fragments_created: u64,
    /// Reports from the path that lowered the MTU of a locator.
    pub path_mtu_lowered: u64,
    /// Unused ECN combinations seen (RFC 6040 Figure 4).
    pub ecn_unused_combination: u64,
    /// Control messages that came behind LISP headers and were handed to the control plane.
    pub control_in_data: u64,
    /// By [`DropReason`] number.
    pub drops: [u64; DropReason::COUNT],
}

impl Default for CounterSnapshot {
    fn default() -> Self {
        WorkerCounters::default().snapshot()
    }
}

impl CounterSnapshot {
    /// Packets dropped for `reason`.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.get(reason as usize).copied().unwrap_or_default()
    }

    /// Packets dropped for any reason.
    pub fn dropped_total(&self) -> u64 {
        self.drops.iter().sum()
    }

    /// Whether every packet is accounted for; exact while the workers stand still.
    pub fn is_conserved(&self) -> bool {
        self.came() == self.went()
    }

    /// Packets that came in and are neither out nor dropped nor held: those the workers have in hand.
    fn unaccounted(&self) -> u64 {
        self.came().saturating_sub(self.went())
    }

    fn came(&self) -> u64 {
        self.native_in.packets + self.core_in.packets + self.fragments_created
    }

    fn went(&self) -> u64 {
        let out = self.native_out.packets + self.core_out.packets + self.control_in_data;
        out + self.dropped_total() + self.held
    }

    /// By name, for `show counters` and the metrics; drops are named `drop_` and the reason.
    pub fn by_name(&self) -> BTreeMap<String, u64> {
        let traffic = [
            ("native_in", self.native_in),
            ("native_out", self.native_out),
            ("core_in", self.core_in),
            ("core_out", self.core_out),
        ];
        let plain = [
            ("encapsulated", self.encapsulated),
            ("decapsulated", self.decapsulated),
            ("reencapsulated", self.reencapsulated),
            ("held", self.held),
            ("core_bursts", self.core_bursts),
            ("native_writes", self.native_writes),
            ("ring_frames", self.ring_frames),
            ("icmp_errors", self.icmp_errors),
            ("icmp_suppressed", self.icmp_suppressed),
            ("fragments_created", self.fragments_created),
            ("path_mtu_lowered", self.path_mtu_lowered),
            ("ecn_unused_combination", self.ecn_unused_combination),
            ("control_in_data", self.control_in_data),
        ];
        let mut names: BTreeMap<String, u64> =
            plain.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        for (name, traffic) in traffic {
            names.insert(format!("{name}_packets"), traffic.packets);
            names.insert(format!("{name}_octets"), traffic.octets);
        }
        for (at, families) in Families::NAMES.iter().enumerate() {
            names.insert(format!("received_{families}_packets"), self.received[at].packets);
            names.insert(format!("received_{families}_octets"), self.received[at].octets);
            names.insert(format!("sent_{families}_packets"), self.sent[at]);
        }
        for &reason in DropReason::ALL {
            names.insert(format!("drop_{}", reason.name()), self.dropped(reason));
        }
        names
    }
}

impl AddAssign<&Self> for CounterSnapshot {
    fn add_assign(&mut self, other: &Self) {
        self.native_in += other.native_in;
        self.native_out += other.native_out;
        self.core_in += other.core_in;
        self.core_out += other.core_out;
        self.encapsulated += other.encapsulated;
        self.decapsulated += other.decapsulated;
        self.reencapsulated += other.reencapsulated;
        for at in 0..Families::COUNT {
            self.received[at] += other.received[at];
            self.sent[at] += other.sent[at];
        }
        self.held += other.held;
        self.core_bursts += other.core_bursts;
        self.native_writes += other.native_writes;
        self.ring_frames += other.ring_frames;
        self.icmp_errors += other.icmp_errors;
        self.icmp_suppressed += other.icmp_suppressed;
        self.fragments_created += other.fragments_created;
        self.path_mtu_lowered += other.path_mtu_lowered;
        self.ecn_unused_combination += other.ecn_unused_combination;
        self.control_in_data += other.control_in_data;
        for (mine, theirs) in self.drops.iter_mut().zip(&other.drops) {
            *mine += theirs;
        }
    }
}

/// One writer per counter: a plain load and store, no locked instruction.
fn add(counter: &AtomicU64, value: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn de_28_every_reason_has_its_own_counter() {
        let counters = WorkerCounters::default();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            counters.dropped(reason, index as u64 + 1);
        }
        let snapshot = counters.snapshot();
        for (index, &reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(snapshot.dropped(reason), index as u64 + 1);
            assert_eq!(snapshot.by_name()[&format!("drop_{}", reason.name())], index as u64 + 1);
        }
    }

    #[test]
    fn what_a_failed_worker_had_in_hand_is_counted_as_dropped() {
        let counters = WorkerCounters::default();
        counters.native_in(Traffic { packets: 9, octets: 900 });
        counters.core_out(Traffic { packets: 2, octets: 200 });
        counters.set_held(3);
        counters.write_off();
        let snapshot = counters.snapshot();
        assert_eq!(snapshot.dropped(DropReason::WorkerFailed), 7);
        assert!(snapshot.is_conserved());
    }

    #[test]
    fn op_01_packets_are_counted_by_inner_and_outer_family() {
        let counters = WorkerCounters::default();
        let mut datagram = [0; 28];
        for (version, outer_is_ipv6, packets) in
            [(4, false, 1), (4, true, 2), (6, false, 3), (6, true, 4)]
        {
            datagram[8] = version << 4;
            let families = Families::of_datagram(&datagram, outer_is_ipv6);
            counters.core_in(families, Traffic { packets, octets: 10 * packets });
            counters.encapsulated(families, 10 * packets);
            counters.reencapsulated(families, 100 * packets);
        }
        // Too short to hold a packet.
        counters.core_in(Families::of_datagram(&[0; 8], true), Traffic::packet(0));
        let names = counters.snapshot().by_name();
        let of = |name: &str| Families::NAMES.map(|f| names[&name.replace('*', f)]);
        assert_eq!(of("received_*_packets"), [1, 3, 3, 4]);
        assert_eq!(of("received_*_octets"), [10, 20, 30, 40]);
        assert_eq!(of("sent_*_packets"), [110, 220, 330, 440]);
        assert_eq!((names["core_in_packets"], names["core_in_octets"]), (11, 100));
        assert_eq!((names["encapsulated"], names["reencapsulated"]), (100, 1_000));
    }

    #[test]
    fn snapshots_add_up() {
        let counters = WorkerCounters::default();
        counters.native_in(Traffic { packets: 3, octets: 300 });
        counters.core_out(Traffic { packets: 2, octets: 200 });
        counters.set_held(1);
        let mut sum = counters.snapshot();
        sum += &counters.snapshot();
        assert_eq!(sum.native_in, Traffic { packets: 6, octets: 600 });
        assert_eq!(sum.held, 2);
        assert!(sum.is_conserved());
        sum.held = 0;
        assert!(!sum.is_conserved());
    }
}
