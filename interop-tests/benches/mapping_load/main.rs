//! What a Map-Server can do: `cargo bench -p interop-tests --bench mapping_load -- --help`.
//!
//! One generator, pinned to one core, loads `isthmus mapping`, pinned to another, in a network namespace of its own; with `--peer`
//! the same load goes to another Map-Server too, in the same run. Messages are made and signed before the clock starts. Measured:
//! answers per second, CPU time of the server per operation, and at half the rate (`--load`) how long answers take.
//!
//! How long an answer took counts from when the train of its question was due, whether it left in time or not. Other programs and kernel
//! threads take the same cores: "without a core" says for how long the server's first thread and the generator had to wait for theirs,
//! and the p99 of most quarter seconds is the median of the quarters, which a stall of the machine now and then does not move. What the
//! machine itself takes, `--control` shows: a server that knows nothing and works as long on each message.
#![allow(clippy::print_stderr, reason = "a program for people")]

mod arguments;
mod control;

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use arguments::{Arguments, Peer};
use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use interop_tests::daemon::Daemon;
use interop_tests::load::messages::{Messages, Plan, SECRET};
use interop_tests::load::meter::{cpu_time, first_waiting_time, percentile, resident};
use interop_tests::load::senders::{Outcome, Pace, Senders};
use mapping::config::Algorithm;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::{Pid, Uid};

/// Messages outstanding at full load: fewer than the server's receive queue holds.
const WINDOW: usize = 2_048;
/// Messages made at a time.
const ROUND: u64 = 200_000;
const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const INTERFACE: &str = "rloc0";

fn main() -> ExitCode {
    if let [_, serve, address, work] = &std::env::args().collect::<Vec<_>>()[..]
        && serve == control::SERVE
    {
        return ended(control::serve(address, work));
    }
    let arguments = match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(text) => {
            println!("{text}");
            return ExitCode::from(2);
        }
    };
    if !Uid::effective().is_root() {
        println!("SKIP: making a network namespace needs root");
        return ExitCode::SUCCESS;
    }
    ended(run(&arguments))
}

fn ended(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mapping_load: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<()> {
    let plan = Plan {
        sites: arguments.sites,
        registrations: arguments.registrations,
        train: arguments.train,
        senders: (0..arguments.senders).map(|at| sender(10, at)).collect(),
        secret: SECRET.to_owned(),
        algorithm: Algorithm::HmacSha256,
    };
    println!(
        "{} registrations of {} sites from {} senders, {} messages in a row from each",
        plan.registrations, plan.sites, arguments.senders, plan.train
    );
    let namespace = stage("ours")?;
    let configuration = plan.configuration(SERVER, arguments.durable);
    let daemon = Daemon::start(&namespace, "mapping", &configuration)?;
    measure("isthmus", daemon.id(), &plan, bind(&namespace, &plan)?, arguments)?;
    println!("{}", counters(&daemon)?);
    drop(daemon);
    if let Some(work) = arguments.control {
        measure_control(work, &plan, arguments)?;
    }
    if let Some(program) = &arguments.oor {
        measure_oor(program, &plan, arguments)?;
    }
    if let Some(peer) = &arguments.peer {
        measure_peer(peer, plan, arguments)?;
    }
    Ok(())
}

/// The same messages in the same rhythm, sent back by a server that knows nothing and works for `work` on each.
fn measure_control(work: Duration, plan: &Plan, arguments: &Arguments) -> io::Result<()> {
    let namespace = stage("control")?;
    let mut process = namespace.start(control::command(SERVER, work)?)?;
    // Until it has its socket.
    std::thread::sleep(Duration::from_millis(200));
    let result = bind(&namespace, plan).and_then(|mut senders| {
        pin(0, Pid::this())?;
        pin(1, Pid::from_raw(process.id() as i32))?;
        let (server, seconds) = (process.id(), arguments.seconds);
        let mut bench = Bench { server, senders: &mut senders, next: 1, seconds };
        bench.measure("control", "sent back", plan, Plan::registers, arguments.load)
    });
    process.kill()?;
    process.wait()?;
    result
}

/// A namespace with a Map-Server's address, where the addresses of the senders are too.
fn stage(name: &'static str) -> io::Result<Namespace> {
    let namespace = Namespace::create(name)?;
    link::up(&namespace, "lo")?;
    link::connect(1_500, (&namespace, INTERFACE), (&namespace, "rloc1"))?;
    for (interface, address) in [(INTERFACE, "198.51.100.1/24"), ("lo", "10.0.0.1/8")] {
        link::address(&namespace, interface, address.parse().map_err(io::Error::other)?)?;
    }
    link::up(&namespace, INTERFACE)?;
    link::up(&namespace, "rloc1")?;
    Ok(namespace)
}

fn bind(namespace: &Namespace, plan: &Plan) -> io::Result<Senders> {
    let addresses = plan.senders.clone();
    namespace.run(move || Senders::bind(&addresses, SERVER))?
}

fn measure_oor(program: &Path, plan: &Plan, arguments: &Arguments) -> io::Result<()> {
    let (secret, algorithm) = ("isthmus".to_owned(), Algorithm::HmacSha1);
    let plan = Plan { secret, algorithm, ..plan.clone() };
    let namespace = stage("oor")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("oor.conf");
    std::fs::write(&file, plan.oor_configuration(INTERFACE))?;
    let mut command = Command::new(program);
    command.arg("-f").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = namespace.start(command)?;
    // It does not say when it is ready.
    std::thread::sleep(Duration::from_secs(5));
    let senders = bind(&namespace, &plan);
    let result =
        senders.and_then(|senders| measure("OOR", process.id(), &plan, senders, arguments));
    process.kill()?;
    process.wait()?;
    result
}

fn measure_peer(peer: &Peer, plan: Plan, arguments: &Arguments) -> io::Result<()> {
    let senders = (0..arguments.senders).map(|at| sender(127, at)).collect();
    let plan = Plan { senders, secret: peer.key.clone(), algorithm: peer.algorithm, ..plan };
    let senders = Senders::bind(&plan.senders, peer.address)?;
    measure("peer", peer.process, &plan, senders, arguments)
}

/// Sender number `at`, in a network that begins with `network`.
fn sender(network: u8, at: usize) -> IpAddr {
    let [.., high, low] = (at as u32 + 1).to_be_bytes();
    Ipv4Addr::new(network, 1, high, low).into()
}

fn measure(
    name: &str,
    server: u32,
    plan: &Plan,
    mut senders: Senders,
    arguments: &Arguments,
) -> io::Result<()> {
    pin(0, Pid::this())?;
    pin(1, Pid::from_raw(server as i32))?;
    let empty = resident(server)?;
    let seconds = arguments.seconds;
    let mut bench = Bench { server, senders: &mut senders, next: 1, seconds };
    let load = bench.registrations(plan)?;
    load.print(name, "register+notify, new");
    let full = resident(server)?;
    println!(
        "{name:8} {} registrations take {} octets each",
        plan.registrations,
        full.saturating_sub(empty) / plan.registrations as u64
    );
    for (work, make) in [
        ("register+notify", Plan::registers as fn(&Plan, std::ops::Range<u64>) -> Messages),
        ("proxy map-reply", Plan::lookups),
        ("negative map-reply", Plan::vain_lookups),
    ] {
        bench.measure(name, work, plan, make, arguments.load)?;
    }
    Ok(())
}

/// A server under load.
struct Bench<'a> {
    server: u32,
    senders: &'a mut Senders,
    /// The next nonce.
    next: u64,
    seconds: u64,
}

/// Several runs together.
#[derive(Default)]
struct Total {
    outcome: Outcome,
    cpu: Duration,
    /// How long the server's first thread, and this program, were ready to run and had no core.
    waits: [Duration; 2],
}

impl Bench<'_> {
    /// Registers everything once.
    fn registrations(&mut self, plan: &Plan) -> io::Result<Total> {
        let mut total = Total::default();
        // Number n is about EID-prefix n modulo the registrations.
        self.next = self.next.next_multiple_of(plan.registrations as u64);
        let end = self.next + plan.registrations as u64;
        while self.next < end {
            let last = (self.next + ROUND).min(end);
            total.add(self.round(plan.registers(self.next..last), Pace::Window(WINDOW))?);
        }
        Ok(total)
    }

    /// The most per second, and at `load` percent of it how long answers take.
    fn measure(
        &mut self,
        name: &str,
        work: &str,
        plan: &Plan,
        make: fn(&Plan, std::ops::Range<u64>) -> Messages,
        load: u8,
    ) -> io::Result<()> {
        let most = self.full_load(plan, make)?;
        most.print(name, work);
        let rate = most.rate() * f64::from(load) / 100.0;
        self.part_load(plan, make, rate)?.print_latency(name, work);
        Ok(())
    }

    fn full_load(
        &mut self,
        plan: &Plan,
        make: fn(&Plan, std::ops::Range<u64>) -> Messages,
    ) -> io::Result<Total> {
        let mut total = Total::default();
        while total.outcome.elapsed < Duration::from_secs(self.seconds) {
            let messages = make(plan, self.next..self.next + ROUND);
            total.add(self.round(messages, Pace::Window(WINDOW))?);
        }
        Ok(total)
    }

    fn part_load(
        &mut self,
        plan: &Plan,
        make: fn(&Plan, std::ops::Range<u64>) -> Messages,
        rate: f64,
    ) -> io::Result<Total> {
        let count = (rate as u64 * self.seconds).clamp(1, 4 * ROUND);
        let messages = make(plan, self.next..self.next + count);
        let mut total = Total::default();
        total.add(self.round(messages, Pace::Rate(rate))?);
        total.outcome.latencies.sort_unstable();
        Ok(total)
    }

    fn round(&mut self, messages: Messages, pace: Pace) -> io::Result<Total> {
        let before = cpu_time(self.server)?;
        let waited = self.waits()?;
        let outcome = self.senders.run(&messages, self.next, pace)?;
        let cpu = cpu_time(self.server)?.saturating_sub(before);
        let waits = self.waits()?;
        self.next += messages.len() as u64;
        Ok(Total { outcome, cpu, waits: [0, 1].map(|at| waits[at].saturating_sub(waited[at])) })
    }

    fn waits(&self) -> io::Result<[Duration; 2]> {
        Ok([first_waiting_time(self.server)?, first_waiting_time(std::process::id())?])
    }
}

impl Total {
    fn add(&mut self, other: Self) {
        self.outcome.sent += other.outcome.sent;
        self.outcome.answered += other.outcome.answered;
        self.outcome.elapsed += other.outcome.elapsed;
        self.outcome.latencies.extend(other.outcome.latencies);
        self.outcome.quarters.extend(other.outcome.quarters);
        self.cpu += other.cpu;
        for (wait, other) in self.waits.iter_mut().zip(other.waits) {
            *wait += other;
        }
    }

    fn rate(&self) -> f64 {
        self.outcome.answered as f64 / self.outcome.elapsed.as_secs_f64()
    }

    fn print(&self, name: &str, work: &str) {
        let cpu = self.cpu.as_nanos() as f64 / self.outcome.answered.max(1) as f64;
        println!(
            "{name:8} {work:22} {:8.0}/s  {cpu:6.0} ns of CPU each  {:8.0}/s per core  {} of {} lost",
            self.rate(),
            1e9 / cpu,
            self.outcome.sent - self.outcome.answered,
            self.outcome.sent,
        );
    }

    fn print_latency(&self, name: &str, work: &str) {
        let [p50, p99, p999] =
            [0.5, 0.99, 0.999].map(|share| percentile(&self.outcome.latencies, share));
        let mut quarters = self.outcome.quarters.clone();
        quarters.sort_unstable();
        let usual = percentile(&quarters, 0.5);
        println!(
            "{name:8} {work:22} {:8.0}/s  p50 {} us, p99 {} us, p99.9 {} us, p99 of most quarter seconds {} us  \
             {} of {} lost  without a core: server {} ms, generator {} ms",
            self.rate(),
            p50.as_micros(),
            p99.as_micros(),
            p999.as_micros(),
            usual.as_micros(),
            self.outcome.sent - self.outcome.answered,
            self.outcome.sent,
            self.waits[0].as_millis(),
            self.waits[1].as_millis(),
        );
    }
}

/// Keeps a process, and what it starts later, on one core.
fn pin(core: usize, process: Pid) -> io::Result<()> {
    let mut cores = CpuSet::new();
    cores.set(core)?;
    Ok(sched_setaffinity(process, &cores)?)
}

/// Counters above zero.
fn counters(daemon: &Daemon) -> io::Result<String> {
    let view = daemon.ask(&mapping::admin::Query::Counters)?;
    let drops = daemon.ask(&mapping::admin::Query::Drops)?;
    let shown =
        view.as_object().into_iter().flatten().filter(|(_, count)| count.as_u64() > Some(0));
    let text: Vec<String> = shown.map(|(name, count)| format!("{name} {count}")).collect();
    Ok(format!("{}\ndrops {drops}", text.join(", ")))
}
