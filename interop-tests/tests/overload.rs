//! Ten times the load a Map-Server takes from strangers, from a million spoofed sources: those it knows get their answers still.
//!
//! `OVERLOAD_SECONDS=60` makes it last longer.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use interop_tests::daemon::Daemon;
use interop_tests::load::flood::Flood;
use interop_tests::load::messages::{Plan, SECRET};
use interop_tests::load::meter::{cpu_time, percentile, resident, waiting_time};
use interop_tests::load::senders::{Outcome, Pace, Senders};
use mapping::admin::Query;
use mapping::config::Algorithm;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, Uid};

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const ETR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 2));
const ITR: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 3));
/// Spoofed sources, and the ITR-RLOCs of their requests.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const SOURCES: u32 = 1_000_000;
/// Packets per second: ten times what the Map-Server takes from all strangers together. A build without optimisation needs
/// many times the time for each, so it gets less, which is more than it could answer too.
const FLOOD_RATE: f64 = if cfg!(debug_assertions) { 1.5 } else { 10.0 }
    * mapping::timers::STRANGERS_REQUESTS_PER_SECOND as f64;
/// The part of the time that the daemon may wait for its core.
const BUSY: u32 = 5;
/// Messages per second of each honest peer.
const HONEST_RATE: f64 = 100.0;
/// Octets that the flood may add to the daemon's memory.
const MEMORY_BOUND: u64 = 32 << 20;

#[test]
fn ms_23_known_peers_are_served_during_a_flood_from_a_million_spoofed_sources() {
    if !Uid::effective().is_root() {
        println!("SKIP: making a network namespace needs root");
        return;
    }
    let seconds = std::env::var("OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(8));
    overload(duration).expect("everything can be set up");
}

fn overload(duration: Duration) -> io::Result<()> {
    let namespace = host()?;
    let plan = plan(vec![ETR, ITR]);
    let daemon = Daemon::start(&namespace, "mapping", &plan.configuration(SERVER.into(), true))?;
    apart(daemon.id());
    let mut etr = bind(&namespace, ETR)?;
    let mut itr = bind(&namespace, ITR)?;
    // Before the flood: the sites register, the ITR asks now and then.
    let registers = plan_of(ETR).registers(0..plan.registrations as u64);
    let outcome = etr.run(&registers, 0, Pace::Window(64))?;
    assert_eq!(outcome.answered, plan.registrations, "registered before the flood");
    let asked = (HONEST_RATE * 3.0) as u64;
    let outcome = itr.run(&plan_of(ITR).lookups(0..asked), 0, Pace::Rate(HONEST_RATE))?;
    assert_eq!(outcome.answered as u64, asked, "answered before the flood");

    let before = Seen::by(&daemon)?;
    let mut flood = namespace.run(flood)??;
    let sent = thread::spawn(move || flood.run(duration, FLOOD_RATE));
    let messages = (HONEST_RATE * duration.as_secs_f64() * 0.9) as u64;
    let first = u64::from(u32::MAX);
    let registering = thread::spawn(move || {
        let registers = plan_of(ETR).registers(first..first + messages);
        etr.run(&registers, first, Pace::Rate(HONEST_RATE))
    });
    let lookups = plan_of(ITR).lookups(first..first + messages);
    let asking = itr.run(&lookups, first, Pace::Rate(HONEST_RATE))?;
    let registering = registering.join().expect("the ETR")?;
    let sent = sent.join().expect("the flood")?;
    let after = Seen::at_rest(&daemon)?;

    let received = after.received - before.received;
    let dropped = after.queue_drops - before.queue_drops;
    println!(
        "{} s: {sent} sent ({:.0}/s), {received} received, {dropped} dropped by the kernel; {:.0} ns of CPU each, {} KiB more memory",
        duration.as_secs(),
        sent as f64 / duration.as_secs_f64(),
        (after.cpu - before.cpu).as_nanos() as f64 / received as f64,
        after.resident.saturating_sub(before.resident) >> 10,
    );
    print("lookups", &asking);
    print("registrations", &registering);
    println!("{}", daemon.ask(&Query::Drops)?);
    for name in ["receive_bursts", "receive_bursts_full", "send_bursts", "messages_sent"] {
        println!("{name} {}", daemon.counter(name)?);
    }
    assert!(sent > 0, "that was no flood");
    let (all, seen) = (sent + 2 * messages, received + dropped);
    // The loopback link has a queue of its own.
    assert!(seen <= all && seen * 100 >= all * 99, "{all} sent, {seen} seen");
    let waited = after.waited - before.waited;
    if waited > duration / BUSY {
        // Whoever has no core serves nobody: that says nothing about the daemon.
        println!("not judged: the machine is busy, the daemon waited {waited:.1?} for its core");
    } else {
        for outcome in [&asking, &registering] {
            assert!(outcome.answered * 100 >= outcome.sent * 95, "known peers were not served");
        }
    }
    assert!(after.resident < before.resident + MEMORY_BOUND, "memory grew");
    Ok(())
}

/// A namespace with the addresses of everybody, spoofed ones too: what is sent to those ends here.
fn host() -> io::Result<Namespace> {
    let namespace = Namespace::create("overload")?;
    link::up(&namespace, "lo")?;
    for address in ["198.51.100.1/32", "198.51.100.2/32", "198.51.100.3/32", "10.0.0.1/8"] {
        link::address(&namespace, "lo", address.parse().map_err(io::Error::other)?)?;
    }
    Ok(namespace)
}

fn plan(senders: Vec<IpAddr>) -> Plan {
    Plan {
        sites: 10,
        registrations: 2_000,
        train: 1,
        senders,
        secret: SECRET.to_owned(),
        algorithm: Algorithm::HmacSha256,
    }
}

fn plan_of(sender: IpAddr) -> Plan {
    plan(vec![sender])
}

/// The daemon on one core, this process on the others.
fn apart(daemon: u32) {
    let mut cores = [CpuSet::new(), CpuSet::new()];
    let count = thread::available_parallelism().map_or(1, usize::from);
    if count < 2 {
        return;
    }
    for core in 0..count {
        // A core that is not there is no obstacle.
        let _ = cores[usize::from(core == count - 1)].set(core);
    }
    let _ = sched_setaffinity(Pid::this(), &cores[0]);
    let _ = sched_setaffinity(Pid::from_raw(daemon as i32), &cores[1]);
}

fn bind(namespace: &Namespace, address: IpAddr) -> io::Result<Senders> {
    namespace.run(move || Senders::bind(&[address], SERVER.into()))?
}

/// Lookups, forged Map-Registers of real sites, and what is no message at all.
fn flood() -> io::Result<Flood> {
    let itrs: Vec<IpAddr> = (0..1_000).map(|n| Ipv4Addr::from(0x0aff_0000 + n).into()).collect();
    let mut forger = plan(itrs.clone());
    forger.secret = "not the secret".to_owned();
    let (lookups, forged) = (plan(itrs).lookups(0..2_000), forger.registers(0..2_000));
    let messages: Vec<Vec<u8>> = (0..2_000)
        .flat_map(|at| {
            let range = at..at + 1;
            let noise = vec![0x30 | at as u8, at as u8, 0, 1, 2, 3];
            [lookups.octets(range.clone()).to_vec(), forged.octets(range).to_vec(), noise]
        })
        .collect();
    Flood::new(SERVER, &messages, FIRST_SOURCE, SOURCES)
}

fn print(work: &str, outcome: &Outcome) {
    let [p50, p99] = [0.5, 0.99].map(|share| percentile(&outcome.latencies, share).as_micros());
    let Outcome { sent, answered, .. } = outcome;
    println!("{work}: {answered} of {sent} answered, p50 {p50} us, p99 {p99} us");
}

/// What the daemon and the kernel say of it.
#[derive(Clone, Debug)]
struct Seen {
    received: u64,
    queue_drops: u64,
    resident: u64,
    cpu: Duration,
    waited: Duration,
}

impl Seen {
    fn by(daemon: &Daemon) -> io::Result<Self> {
        Ok(Self {
            received: daemon.counter("messages_received")?,
            queue_drops: daemon.counter("receive_queue_drops")?,
            resident: resident(daemon.id())?,
            cpu: cpu_time(daemon.id())?,
            waited: waiting_time(daemon.id())?,
        })
    }

    /// Once nothing more comes.
    fn at_rest(daemon: &Daemon) -> io::Result<Self> {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut last = Self::by(daemon)?;
        while Instant::now() < deadline {
            thread::sleep(Duration::from_millis(200));
            let seen = Self::by(daemon)?;
            if seen.received == last.received {
                return Ok(seen);
            }
            last = seen;
        }
        Err(io::Error::other("the daemon never came to rest"))
    }
}
