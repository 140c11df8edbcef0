//! Millions of damaged packets through the forwarding path: none makes it panic, everything that comes out is of the right size with
//! right headers, no octet of payload is lost, and after every single packet the books balance.
//!
//! `cargo test` replays a short run. `ISTHMUS_FUZZ_PACKETS=10000000 cargo test -p xtr --profile fuzz --test fuzz -- --nocapture` is the
//! long one, optimised but with debug assertions and overflow checks; `ISTHMUS_FUZZ_SEED` starts it elsewhere.
use craft::{Flow, damage, ip, length, mend};
use machine::Machine;
use merge::Mergers;
use random::Random;
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Instant;
use xtr::counters::CounterSnapshot;
use xtr::packet::OuterFields;

mod check;
mod craft;
mod judge;
mod machine;
mod merge;
mod random;

/// Packets of a run in `cargo test`.
const SHORT: u64 = 200_000;
/// Super-packets of such a run: each becomes many packets.
const SHORT_SUPER: u64 = 60_000;
/// Between two changes of the table.
const FLAP_EVERY: u64 = 512;

#[test]
fn ten_million_mutated_outer_packets() {
    let mut packets = Packets::new(0x0043_4100, SHORT);
    let mut mergers = Mergers::new();
    let (mut datagram, mut train) = (Vec::new(), Train::any(&mut packets.random));
    packets.run("mutated outer packets", |random, machine| {
        if train.left == 0 {
            train = Train::any(random);
        }
        train.next(random, &mut datagram);
        let (source, fields, is_last) = (train.source, train.fields, train.left == 0);
        let before = datagram.clone();
        let result = catch_unwind(AssertUnwindSafe(|| {
            machine.core(source, fields, &mut datagram);
            judge::datagram(machine, source, fields, &before);
            mergers.take(machine, is_last);
        }));
        result.map_err(|panic| (panic, before))
    });
    println!("  merged {} packets into {} writes", mergers.packets, mergers.writes);
    assert!(mergers.packets > mergers.writes, "something was merged");
}

#[test]
fn ten_million_mutated_tun_super_packets() {
    let mut packets = Packets::new(0x7475_6e00, SHORT_SUPER);
    let mut frame = Vec::new();
    packets.run("mutated TUN super-packets", |random, machine| {
        tun_frame(random, &mut frame);
        let before = frame.clone();
        let result = catch_unwind(AssertUnwindSafe(|| {
            machine.native(&mut frame);
            judge::frame(machine, &before, false);
        }));
        result.map_err(|panic| (panic, before))
    });
}

/// LISP packets of one flow, so that there is something to merge.
struct Train {
    flow: Flow,
    header: [u8; 8],
    source: IpAddr,
    fields: OuterFields,
    len: usize,
    left: usize,
    is_damaged: bool,
}

impl Train {
    fn any(random: &mut Random) -> Self {
        let header = match random.below(8) {
            0..4 => [0; 8],
            4 | 5 => [8, 0, 0, 0, 0xab, 0xcd, 0xef, 0],
            6 => [0xe8, 1, 2, 3, 0xab, 0xcd, 0xef, 0xff],
            _ => random.next().to_be_bytes(),
        };
        let source = match random.below(32) {
            0 => "198.51.100.66",
            1 => "224.0.0.1",
            2 => "198.51.100.1",
            3..16 => "198.51.100.2",
            _ => "2001:db8:c0::2",
        };
        Self {
            flow: Flow::any(random),
            header,
            source: ip(source),
            fields: OuterFields {
                ttl: random.pick(&[64, 64, 64, 255, 2, 1, 0]),
                tos: random.pick(&[0, 0, 0, 1, 2, 3, 0xb8, 0xbb]),
            },
            len: length(random, 1500),
            left: 1 + random.below(8),
            is_damaged: random.below(8) > 0,
        }
    }

    /// A LISP header, a packet, perhaps another LISP packet around it, and damage.
    fn next(&mut self, random: &mut Random, out: &mut Vec<u8>) {
        self.left -= 1;
        let len = if self.left == 0 { length(random, 9000) } else { self.len };
        out.clear();
        out.extend(self.header);
        if random.one_in(24) {
            self.nested(len, out);
        } else {
            self.flow.packet(len, out);
        }
        self.flow.sequence = self.flow.sequence.wrapping_add(len as u32);
        self.flow.id = self.flow.id.wrapping_add(1);
        if self.is_damaged && random.below(4) > 0 {
            let transport = if self.flow.v6 { 40 } else { 20 };
            let fields = [8, 11, 12, 13, 20, 21].map(|at| 8 + transport + at);
            damage(random, out, &[&FIELDS[..], &fields].concat());
            if random.one_in(2) && out.len() > 8 {
                mend(&mut out[8..], transport);
            }
        }
    }

    /// In a LISP packet to an own RLOC.
    fn nested(&self, len: usize, out: &mut Vec<u8>) {
        let Flow { tos, ttl, .. } = self.flow;
        out.extend([
            0x45, tos, 0, 0, 0, 1, 0x40, 0, ttl, 17, 0, 0, 198, 51, 100, 2, 198, 51, 100, 1,
        ]);
        out.extend([0xc0, 0, 0x10, 0xf5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        self.flow.packet(len, out);
        let total = ((out.len() - 8) as u16).to_be_bytes();
        out[10..12].copy_from_slice(&total);
        mend(&mut out[8..], 20);
    }
}

/// Of a LISP header and the IP header behind it.
const FIELDS: [usize; 16] = [0, 1, 8, 9, 10, 11, 12, 14, 15, 16, 17, 20, 24, 31, 48, 49];

/// A virtio-net header and a packet as the kernel gives them, and damage to either.
fn tun_frame(random: &mut Random, out: &mut Vec<u8>) {
    out.clear();
    out.resize(10, 0);
    let mut flow = Flow::any(random);
    let segmented = random.below(4) > 0;
    if segmented {
        flow.protocol = random.pick(&[6, 6, 17]);
    }
    let len =
        if segmented && random.one_in(12) { random.below(65_000) } else { length(random, 65_000) };
    flow.packet(len, out);
    let transport = if flow.v6 { 40 } else { 20 };
    let gso_type = match (segmented, flow.protocol) {
        (false, _) => 0,
        (true, 17) => 5,
        (true, _) => {
            if flow.v6 {
                4
            } else {
                1
            }
        }
    };
    let needs_checksum = segmented || random.one_in(4);
    let mut size = random.pick(&[1400, 1400, 1200, 1380, 1440, 8900, 536, 100, 8, 1, 65_000]);
    if random.one_in(4) {
        size = random.below(3000);
    }
    if len / size.max(1) > 128 && !random.one_in(64) {
        size = len / 64;
    }
    out[0] = u8::from(needs_checksum);
    out[1] = gso_type | if random.one_in(8) { 0x80 } else { 0 };
    out[2..4].copy_from_slice(&(transport as u16 + 20).to_ne_bytes());
    out[4..6].copy_from_slice(&(size as u16).to_ne_bytes());
    out[6..8].copy_from_slice(&(transport as u16).to_ne_bytes());
    out[8..10].copy_from_slice(&(if flow.protocol == 6 { 16u16 } else { 6 }).to_ne_bytes());
    if !random.one_in(4) {
        let fields = [
            0,
            1,
            2,
            4,
            5,
            6,
            7,
            8,
            9,
            10,
            11,
            12,
            13,
            14,
            16,
            17,
            18,
            19,
            30,
            50,
            51,
            10 + transport,
            13 + transport,
            14 + transport,
            22 + transport,
            23 + transport,
        ];
        if random.one_in(3) {
            out[1] = random.pick(&[0, 1, 3, 4, 5, 0x81, 0x84, random.clone().octet()]);
        }
        damage(random, out, &fields);
        if random.one_in(2) && out.len() > 10 {
            mend(&mut out[10..], transport);
        }
    }
}

type Failure = (Box<dyn std::any::Any + Send>, Vec<u8>);

struct Packets {
    seed: u64,
    count: u64,
    random: Random,
}

impl Packets {
    fn new(salt: u64, short: u64) -> Self {
        let number =
            |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let seed = number("ISTHMUS_FUZZ_SEED").unwrap_or(1) ^ salt;
        let count = number("ISTHMUS_FUZZ_PACKETS").unwrap_or(short);
        Self { seed, count, random: Random::new(seed) }
    }

    /// Feeds packet after packet, half of the run with an output that refuses some.
    fn run(
        &mut self,
        what: &str,
        mut feed: impl FnMut(&mut Random, &mut Machine) -> Result<(), Failure>,
    ) {
        let started = Instant::now();
        let mut totals = Vec::new();
        for refuse_every in [0, 7] {
            let mut machine = Machine::new(refuse_every);
            for number in 0..self.count / 2 {
                machine.tick();
                if let Err((panic, octets)) = feed(&mut self.random, &mut machine) {
                    println!(
                        "seed {}, refusing {refuse_every}, packet {number}: {octets:02x?}",
                        self.seed
                    );
                    resume_unwind(panic);
                }
                conserved(&machine.counters(), number);
                while let Some((destination, message)) = machine.icmp_error() {
                    judge::icmp(destination, &message);
                }
                if number % FLAP_EVERY == 0 {
                    machine.flap();
                }
                self.released(&mut machine, number);
            }
            machine.wait();
            self.released(&mut machine, self.count);
            let counters = machine.counters();
            assert_eq!(counters.held, 0, "nothing is held for ever");
            assert!(machine.misses > 0 && machine.icmp_errors > 0);
            totals.push(counters);
        }
        report(what, self.count, started, &totals);
    }

    /// Takes what need not wait any longer.
    fn released(&mut self, machine: &mut Machine, number: u64) {
        loop {
            machine.forget();
            let Some(frame) = machine.release() else { return };
            judge::frame(machine, &frame, true);
            conserved(&machine.counters(), number);
        }
    }
}

#[track_caller]
fn conserved(counters: &CounterSnapshot, number: u64) {
    assert!(counters.is_conserved(), "packet {number}: {counters:#?}");
}

fn report(what: &str, count: u64, started: Instant, totals: &[CounterSnapshot]) {
    let mut sum = CounterSnapshot::default();
    totals.iter().for_each(|counters| sum += counters);
    println!("{count} {what} in {:.1} s: 0 panics, 0 wrong sizes", started.elapsed().as_secs_f64());
    for (name, value) in sum.by_name().into_iter().filter(|(_, value)| *value > 0) {
        println!("  {name} {value}");
    }
}
