//! More packets than can be forwarded, misses without end, and a control plane that does nothing: hits go on as if nothing were.
//!
//! `cargo test` tries it for a second each with what any machine can do. `ISTHMUS_OVERLOAD_SECONDS=60 cargo test --release -p xtr --test
//! overload -- --nocapture` measures; only a machine that does nothing else is judged by the exact figures.
use load::ONE_SUBNET;
use load::{
    Host, Peer, Sender, Targets, UNKNOWN, cores, device_drops, fairness, flood, flood_both, learn,
    mapping, packets, pin, prefer, resident, stolen, worker_waited, workers,
};
use namespace::Namespace;
use nix::unistd::gettid;
use node::{Addresses, Node, TUN, config, host_len, non_zero};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use xtr::config::DataConfig;
use xtr::counters::CounterSnapshot;
use xtr::drops::DropReason;
use xtr::fib::FibUpdate;
use xtr::policy::Onward;

mod books;
mod load;
#[path = "../engine/namespace.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod namespace;
#[path = "../engine/node.rs"]
#[allow(dead_code, reason = "shared with tests that need more of it")]
mod node;

/// IPv6 EIDs over an IPv4 core.
fn addresses() -> Addresses {
    Addresses::new(false, true)
}

/// How long each load lasts, and whether it is a measurement.
fn duration() -> (Duration, bool) {
    let seconds = std::env::var("ISTHMUS_OVERLOAD_SECONDS").ok();
    match seconds.and_then(|text| text.parse().ok()) {
        Some(seconds) => (Duration::from_secs(seconds), true),
        None => (Duration::from_secs(1), false),
    }
}

/// A node whose worker has a core of its own while something is measured.
fn node(onward: Onward) -> Option<Node> {
    let addresses = addresses();
    let Some((of_worker, _)) = cores().filter(|_| duration().1) else {
        return Node::alone_with(addresses, onward);
    };
    let namespace = Namespace::new()?;
    let rlocs = [addresses.own_rloc, addresses.peer_rloc];
    namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
    let config = DataConfig { cpus: vec![of_worker], ..config(addresses, 1) };
    let node = Node::start(namespace, addresses, config, onward);
    workers().into_iter().for_each(prefer);
    Some(node)
}

/// For a thread that sends: on the other core.
fn apart() {
    if let Some((_, of_senders)) = cores().filter(|_| duration().1) {
        pin(of_senders);
    }
}

/// One load at a time.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

const ONE: Targets = Targets { subnet: ONE_SUBNET, count: 16 };
const ONE_MISS: Targets = Targets { subnet: UNKNOWN, count: 1 };
const MANY_MISSES: Targets = Targets { subnet: UNKNOWN, count: 1_000_000 };

/// Hits, and what else is sent meanwhile.
struct Outcome {
    sent: u64,
    lost: u64,
    /// What the TUN's queue had no room for, of hits and misses: the worker was not there for longer than it lasts.
    queue_drops: u64,
    /// How long the worker was ready to run and got no core.
    waited: Duration,
    /// What another machine took of this one's cores.
    stolen: Duration,
    per_second: f64,
    /// The worker did not get its core.
    is_busy: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, queue_drops, waited, stolen, per_second, .. } = self;
        write!(
            f,
            "{lost} of {sent} hits lost, {per_second:.0} hits/s; {queue_drops} dropped before the worker, which waited {waited:.1?} for its core; {stolen:?} stolen"
        )
    }
}

impl Outcome {
    fn loss(&self) -> f64 {
        self.lost as f64 / self.sent as f64
    }
}

/// Hits at `rate`, beside misses at `miss_rate`.
fn beside_misses(
    node: &mut Node,
    senders: &mut (impl Sender, impl Sender),
    rates: (f64, f64),
    misses: Targets,
    time: Duration,
) -> Outcome {
    let is_measured = duration().1;
    let traffic = learn(node, ONE.subnet);
    let (waited, start) = (worker_waited(), Instant::now());
    let (queue_drops, was_stolen) = (device_drops(&node.namespace, TUN), stolen());
    let senders = (&mut senders.0, &mut senders.1);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(move || {
            apart();
            if is_measured {
                prefer(gettid());
            }
            flood_both(senders, (ONE, misses), rates, time)
        });
        sending.join().expect("sent")
    });
    let per_second = packets(&traffic) as f64 / start.elapsed().as_secs_f64();
    settled(node);
    let waited = worker_waited() - waited;
    let is_busy = waited > time / 5;
    Outcome {
        sent,
        // On a busy machine some of what was sent before comes out now.
        lost: sent.saturating_sub(packets(&traffic)),
        queue_drops: device_drops(&node.namespace, TUN) - queue_drops,
        waited,
        stolen: stolen().saturating_sub(was_stolen),
        per_second,
        is_busy,
    }
}

/// Nothing moves any more, and the books balance.
fn settled(node: &Node) -> CounterSnapshot {
    let mut last = node.engine().counters();
    loop {
        thread::sleep(Duration::from_millis(50));
        let next = node.engine().counters();
        if next == last {
            return node.settled(|_| true);
        }
        last = next;
    }
}

/// What is forwarded of a flood of hits, per second.
fn capacity(node: &mut Node, sender: &mut impl Sender) -> f64 {
    // Another subnet than what is measured later: some of this may come out then.
    let other = Targets { subnet: 9, count: 16 };
    let traffic = learn(node, other.subnet);
    let start = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            apart();
            flood(sender, other, None, Duration::from_secs(1))
        });
    });
    let capacity = packets(&traffic) as f64 / start.elapsed().as_secs_f64();
    settled(node);
    capacity
}

/// Half of the capacity in misses beside hits, for one intake.
fn half_of_the_capacity<S: Sender>(name: &str, onward: Onward, make: impl Fn(&Node, u8) -> S) {
    let Some(mut node) = node(onward) else { return };
    let _peer = node.peer_socket();
    let (duration, is_measured) = duration();
    let mut senders = (make(&node, 1), make(&node, 2));
    let full = capacity(&mut node, &mut senders.0);
    // A machine with other work to do has less to give.
    let share = if is_measured { 1.0 } else { 0.1 };
    let (hits, misses) = (0.4 * full * share, 0.5 * full * share);
    let baseline = beside_misses(&mut node, &mut senders, (hits, 0.0), ONE_MISS, duration);
    println!("{name}: {full:.0} packets/s at most; hits alone: {baseline}");
    for (which, targets) in [("one EID", ONE_MISS), ("a million EIDs", MANY_MISSES)] {
        let memory = resident();
        let outcome = beside_misses(&mut node, &mut senders, (hits, misses), targets, duration);
        let grown = resident().saturating_sub(memory);
        println!(
            "{name}, {misses:.0} misses/s to {which}: loss {:.4} %, speed {:.2} % of that alone, {} KiB more memory; {outcome}",
            100.0 * outcome.loss(),
            100.0 * outcome.per_second / baseline.per_second,
            grown >> 10,
        );
        assert!(grown < 32 << 20, "memory grew by {grown} octets");
        if outcome.is_busy || baseline.is_busy {
            println!("not judged: the machine is busy");
            continue;
        }
        let (loss, speed) = if is_measured { (0.001, 0.95) } else { (0.01, 0.80) };
        // What hits alone lose too is not the misses' doing.
        assert!(outcome.loss() <= baseline.loss() + loss, "hits are lost");
        assert!(outcome.per_second >= speed * baseline.per_second, "hits are slower");
    }
    let counters = settled(&node);
    assert!(counters.dropped(DropReason::MapCacheMissHoldFull) > 0, "{:?}", non_zero(&counters));
}

#[test]
fn misses_at_half_the_capacity_cost_hits_from_the_site_nothing() {
    let _turn = alone();
    half_of_the_capacity("from the TUN", Onward::Deliver, |node, _| Host::new(node));
}

#[test]
fn misses_at_half_the_capacity_cost_hits_from_the_core_nothing() {
    let _turn = alone();
    half_of_the_capacity("re-encapsulated", Onward::Reencapsulate, Peer::new);
}

#[test]
fn twice_the_capacity_is_shared_fairly_and_forgotten_at_once() {
    let _turn = alone();
    let Some(mut node) = node(Onward::Reencapsulate) else { return };
    let _peer = node.peer_socket();
    let (duration, is_measured) = duration();
    let mut peers: Vec<Peer> = (1..=5).map(|number| Peer::new(&node, number)).collect();
    let full = capacity(&mut node, &mut peers[0]);
    let memory = resident();
    let traffic: Vec<_> = (1..=4).map(|subnet| learn(&mut node, subnet)).collect();
    // Four peers with hits and one with misses, all of them as fast as they can.
    let sent: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = peers
            .iter_mut()
            .zip([(1, 16), (2, 16), (3, 16), (4, 16), (UNKNOWN, 1_000_000)])
            .map(|(peer, (subnet, count))| {
                let targets = Targets { subnet, count };
                scope.spawn(move || {
                    apart();
                    flood(peer, targets, None, duration)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("sent")).collect()
    });
    // What waits in the socket's buffer, a second of nothing else.
    let start = Instant::now();
    settled(&node);
    let drained = start.elapsed();
    let shares: Vec<u64> = traffic.iter().map(|traffic| packets(traffic)).collect();
    // As fractions of what each really sent: a busy machine does not let all send alike.
    let parts: Vec<u64> =
        shares.iter().zip(&sent).map(|(share, sent)| share * 1_000_000 / sent.max(&1)).collect();
    let grown = resident().saturating_sub(memory);
    println!(
        "{full:.0} packets/s at most, {:.1} times that offered; sent {sent:?}, forwarded {shares:?} in {duration:?}: fairness {:.4}, {} KiB more memory",
        sent.iter().sum::<u64>() as f64 / full / duration.as_secs_f64(),
        fairness(&parts),
        grown >> 10
    );
    assert!(grown < 64 << 20, "memory grew by {grown} octets");
    assert!(fairness(&parts) > if is_measured { 0.98 } else { 0.7 }, "{parts:?}");
    let mut senders = (peers.remove(0), peers.remove(0));
    let second = Duration::from_secs(1);
    let rate = full * if is_measured { 0.5 } else { 0.1 };
    let after = beside_misses(&mut node, &mut senders, (rate, 0.0), ONE_MISS, second);
    println!(
        "{drained:?} to drain the queues; the next second: loss {:.4} %, {after}",
        100.0 * after.loss()
    );
    if after.is_busy {
        println!("not judged: the machine is busy");
    } else {
        assert!(drained < Duration::from_secs(if is_measured { 1 } else { 30 }));
        assert!(after.loss() <= if is_measured { 0.001 } else { 0.01 }, "it does not recover");
    }
    assert!(settled(&node).dropped_total() > 0);
}

#[test]
fn a_control_plane_that_stands_still_costs_hits_nothing() {
    let _turn = alone();
    let Some(mut node) = node(Onward::Deliver) else { return };
    let _peer = node.peer_socket();
    let (duration, is_measured) = duration();
    let duration = if is_measured { duration } else { 3 * duration };
    let mut senders = (Host::new(&node), Host::new(&node));
    // Nobody takes the punts: their queue is full from the first moment on.
    let rates = (2_000.0, 4_000.0);
    let outcome = beside_misses(&mut node, &mut senders, rates, MANY_MISSES, duration);
    let counters = settled(&node);
    let kernel = device_drops(&node.namespace, TUN);
    println!("{duration:?} without a control plane: {outcome}, {kernel} dropped before the engine");
    assert!(counters.dropped(DropReason::PuntQueueFull) > 0, "{:?}", non_zero(&counters));
    if kernel > 0 {
        println!(
            "not judged: the worker did not get its core for longer than the TUN's queue lasts"
        );
    } else {
        assert_eq!(outcome.lost, 0, "{:?}", non_zero(&counters));
    }
}

#[test]
fn a_hundred_changes_of_the_table_a_second_lose_no_packet() {
    let _turn = alone();
    let Some(mut node) = Node::alone(addresses()) else { return };
    let _peer = node.peer_socket();
    let (duration, _) = duration();
    let (mut first, mut second) = (Host::new(&node), Host::new(&node));
    let (steady, changing) = (ONE, Targets { subnet: 2, count: 16 });
    let kept = learn(&mut node, steady.subnet);
    let stop = AtomicBool::new(false);
    let (mut swaps, mut went) = (0, Vec::new());
    let sent = thread::scope(|scope| {
        let threads = [
            scope.spawn(|| flood(&mut first, steady, Some(2_000.0), duration)),
            scope.spawn(|| flood(&mut second, changing, Some(2_000.0), duration)),
        ];
        let (stop, node, went, swaps) = (&stop, &mut node, &mut went, &mut swaps);
        let start = Instant::now();
        while !stop.load(Ordering::Relaxed) && threads.iter().any(|thread| !thread.is_finished()) {
            let (insert, traffic) = mapping(node, changing.subnet);
            let FibUpdate::Insert(prefix, _) = &insert else { unreachable!() };
            // Gone and there again in one change, as after a Map-Reply with other prefixes.
            node.fib.apply([FibUpdate::Remove(*prefix), insert]);
            node.engine().wake();
            went.push(traffic);
            *swaps += 1;
            thread::sleep((Duration::from_millis(10) * *swaps).saturating_sub(start.elapsed()));
        }
        threads.map(|thread| thread.join().expect("sent"))
    });
    thread::sleep(Duration::from_millis(50));
    let counters = settled(&node);
    let arrived = [packets(&kept), went.iter().map(|traffic| packets(traffic)).sum()];
    let kernel = device_drops(&node.namespace, TUN);
    println!(
        "{swaps} changes of the table: sent {sent:?}, forwarded {arrived:?}, {kernel} dropped before the engine"
    );
    let lost = sent.iter().sum::<u64>() - arrived.iter().sum::<u64>() - kernel;
    // What came before the first mapping is held, and goes with it.
    assert_eq!((lost, counters.dropped_total()), (0, 0), "{:?}", non_zero(&counters));
}
