//! Configurations come and go under traffic, and no packet is lost for it.
//!
//! ```text
//!   192.0.2.80 [gateway] 198.51.100.1 --- 198.51.100.11 [xTR] 203.0.113.1
//!                                         198.51.100.2 [Map-Server, Map-Resolver]
//! ```
//! `ISTHMUS_RELOADS=1000 ISTHMUS_RELOAD_PPS=100000 ISTHMUS_RELOAD_QUIET=30 ISTHMUS_RELOAD_PAUSE=30` (with a release build) is the long form: as many packets a
//! second, 30 s without any reload, which shows what the generator and the machine lose by themselves, 30 ms between reloads.

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::{Daemon, program};
use interop_tests::load::meter::waiting_time;
use interop_tests::site::{Hosts, or_skip, wait_for_registrations};
use mapping::admin::Query;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use serde_json::Value;

const SITE_A: &str = r#"
[[site]]
name = "a"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = [{ prefix = "203.0.113.0/26", accept-more-specifics = true }]
"#;

const SITE_B: &str = r#"
[[site]]
name = "b"
keys = [{ id = 7, file = "KEY" }]
eid-prefixes = ["10.0.0.0/8"]
"#;

/// Octets of a packet's payload: number and stamp of the test.
const PAYLOAD: usize = 16;
/// Datagrams that the receiver's kernel keeps while the receiver waits for its core.
const RECEIVE_BUFFER: usize = 64 << 20;
/// How long a lookup may take on a busy machine.
const LOOKUP: Duration = Duration::from_secs(20);
/// What is under way at the end has arrived by then.
const FLIGHT: Duration = Duration::from_secs(2);

/// The `number`-th configuration of each daemon; every one differs from the one before.
fn mapping(number: u32) -> String {
    let timeout = 180 + number % 2;
    let (first, second) = match number % 3 {
        0 => (SITE_A, ""),
        1 => (SITE_B, SITE_A),
        _ => (SITE_A, SITE_B),
    };
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"198.51.100.2\"]\nregistration-timeout = \"{timeout}s\"\n{first}{second}"
    )
}

fn xtr(number: u32) -> String {
    let (weight, interval) = (1 + number % 100, 10 + number % 2);
    let more = match number % 2 {
        0 => "",
        _ => "[[eid]]\nprefix = \"203.0.113.32/28\"\n",
    };
    format!(
        "[xtr]\nname = \"a\"\n\
         rlocs = {{ core = {{ address = \"198.51.100.11\", priority = 1, weight = {weight} }} }}\n\
         map-servers = [{{ address = \"198.51.100.2\", key-id = 1, key-file = \"KEY\" }}]\n\
         map-resolvers = [\"198.51.100.2\"]\nregistration-interval = \"{interval}s\"\n\
         use-petr = [{{ address = \"198.51.100.1\", weight = {weight} }}]\n\
         probe = {{ interval = \"{interval}s\" }}\n[[eid]]\nprefix = \"203.0.113.0/26\"\n{more}"
    )
}

fn gateway(number: u32) -> String {
    let (second, level) = match number % 2 {
        0 => ("", "warn"),
        _ => (", \"10.0.0.0/8\"", "error"),
    };
    let resolvers = match number % 3 {
        0 => "\"198.51.100.2\"",
        1 => "\"198.51.100.2\", \"198.51.100.3\"",
        _ => "\"198.51.100.3\", \"198.51.100.2\"",
    };
    format!(
        "[gateway]\nname = \"pxtr\"\nrlocs = [\"198.51.100.1\"]\nmap-resolvers = [{resolvers}]\n\
         probe = {{ interval = \"{}s\" }}\nmap-cache-limit = {}\n\
         [pitr]\neid-aggregates = [\"203.0.113.0/24\"{second}]\n\
         [petr]\naccept-from = {{ rlocs = [\"198.51.100.0/24\"], eids = [\"203.0.113.0/24\"{second}] }}\n\
         [log]\nlevel = \"{level}\"\n",
        5 + number % 5,
        1000 + number % 2,
    )
}

struct Site {
    gateway: Daemon,
    xtr: Daemon,
    mapping: Daemon,
    native: Namespace,
    site: Namespace,
}

impl Site {
    fn build() -> io::Result<Self> {
        let rlocs = ["198.51.100.11/24", "198.51.100.2/24"];
        let Hosts { native, site } = Hosts::build(&["192.0.2.80/32"], &rlocs)?;
        let mapping = Daemon::start(&site, "mapping", &self::mapping(0))?;
        let xtr = Daemon::start(&site, "xtr", &self::xtr(0))?;
        wait_for_registrations(&mapping, 1)?;
        let gateway = Daemon::start(&native, "gateway", &self::gateway(0))?;
        // A busy machine must not fill the queues of the kernel: what is lost there is not lost by a reload.
        lengthen_queue(&native)?;
        lengthen_queue(&site)?;
        Ok(Self { gateway, xtr, mapping, native, site })
    }

    fn daemons(&self) -> [&Daemon; 3] {
        [&self.gateway, &self.xtr, &self.mapping]
    }

    /// Packets that the kernel dropped because a queue was full, at either end.
    fn dropped_by_kernel(&self) -> io::Result<u64> {
        let mut dropped = 0;
        for daemon in [&self.gateway, &self.xtr] {
            dropped += daemon.counter("kernel_udp_buffer_errors")?;
            let interfaces = daemon.ask(&Query::Interfaces)?;
            for interface in interfaces.as_array().into_iter().flatten() {
                for way in ["received", "sent"] {
                    dropped += interface[way]["dropped"].as_u64().unwrap_or_default();
                }
            }
        }
        Ok(dropped)
    }

    fn waited(&self) -> io::Result<Duration> {
        Ok(waiting_time(self.gateway.id())? + waiting_time(self.xtr.id())?)
    }
}

/// Of the TUN.
fn lengthen_queue(namespace: &Namespace) -> io::Result<()> {
    let mut command = Command::new("ip");
    command.args(["link", "set", "isthmus0", "txqueuelen", "100000"]);
    match namespace.start(command)?.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other("ip link set isthmus0 txqueuelen")),
    }
}

fn from_environment(name: &str, usual: u32) -> u32 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn op_03_reloads_of_every_daemon_under_traffic_lose_no_packet() {
    let Some(site) = or_skip(Site::build()) else { return };
    run(&site)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", site.gateway.log(), site.xtr.log()));
}

#[test]
fn op_02_verbs_ask_and_change_what_runs() {
    let Some(site) = or_skip(Site::build()) else { return };
    ask(&site)
        .unwrap_or_else(|error| panic!("{error}\n{}\n{}", site.gateway.log(), site.xtr.log()));
}

fn ask(site: &Site) -> io::Result<()> {
    let host = site.native.run(|| UdpSocket::bind("192.0.2.80:5000"))??;
    host.send_to(&[0; PAYLOAD], "203.0.113.1:7000")?;
    let cached = || -> io::Result<usize> {
        Ok(site.gateway.ask(&Query::MapCache)?.as_array().map_or(0, Vec::len))
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while cached()? == 0 {
        assert!(Instant::now() < deadline, "no mapping");
        thread::sleep(Duration::from_millis(20));
    }
    let says = |namespace: &Namespace, daemon: &Daemon, args: &[&str]| -> io::Result<String> {
        let mut command = Command::new(program()?);
        command.args(args).arg("--socket").arg(daemon.socket()).stdout(Stdio::piped());
        let output = namespace.start(command)?.wait_with_output()?;
        assert!(output.status.success(), "{args:?}: {output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (native, gateway) = (&site.native, &site.gateway);
    let interfaces = says(native, gateway, &["show", "interfaces", "--json"])?;
    let interfaces: Value = serde_json::from_str(&interfaces)?;
    let used = |name: &str| {
        let all = interfaces.as_array().into_iter().flatten();
        let found = all.into_iter().find(|one| one["name"] == name);
        found.map(|one| (one["uses"][0].clone(), one["state"].clone()))
    };
    assert_eq!(used("isthmus0"), Some(("tun".into(), "up".into())), "{interfaces}");
    assert_eq!(used("core0"), Some(("rloc 198.51.100.1".into(), "up".into())), "{interfaces}");
    let text = says(native, gateway, &["show", "config"])?;
    assert!(text.contains("[pitr]\neid-aggregates = [\"203.0.113.0/24\"]\n"), "{text}");
    assert_eq!(
        says(native, gateway, &["clear", "map-cache", "203.0.113.1"])?,
        "1 entry forgotten\n"
    );
    assert_eq!(cached()?, 0);
    let own = says(&site.site, &site.xtr, &["lig", "self"])?;
    assert!(own.contains("self: registered, with a locator of this host"), "{own}");
    gateway.signal(Signal::SIGUSR1)?;
    site.xtr.reload(&xtr(1))?;
    wait_for_registrations(&site.mapping, 2)?;
    let own = says(&site.site, &site.xtr, &["lig", "self", "--json"])?;
    let own: Value = serde_json::from_str(&own)?;
    let verdicts: Vec<_> = own.as_array().into_iter().flatten().map(|one| &one["ok"]).collect();
    assert_eq!(verdicts, [true, true], "{own}");
    Ok(())
}

fn run(site: &Site) -> io::Result<()> {
    let echo = site.site.run(|| UdpSocket::bind("203.0.113.1:7000"))??;
    setsockopt(&echo.as_fd(), RcvBufForce, &RECEIVE_BUFFER)?;
    let host = site.native.run(|| UdpSocket::bind("192.0.2.80:5000"))??;
    // The first one waits in the gateway until its lookup is answered.
    echo.set_read_timeout(Some(LOOKUP))?;
    host.send_to(&[0; PAYLOAD], "203.0.113.1:7000")?;
    assert_eq!(echo.recv(&mut [0; 100])?, PAYLOAD);
    echo.set_read_timeout(Some(Duration::from_millis(50)))?;
    let quiet = Duration::from_secs(from_environment("ISTHMUS_RELOAD_QUIET", 1).into());
    let calm = under_traffic(site, (&host, &echo), "nothing changes", || {
        thread::sleep(quiet);
        Ok(())
    })?;
    let reloads = from_environment("ISTHMUS_RELOADS", 50);
    let what = format!("{reloads} reloads");
    let busy = under_traffic(site, (&host, &echo), &what, || change(site, reloads))?;
    for one in [&calm, &busy] {
        let drops = site.gateway.ask(&Query::Drops)?;
        assert!(one.lost() <= one.dropped, "{} lost: {drops}", one.lost());
    }
    if calm.dropped + busy.dropped > 0 {
        println!(
            "not judged: the kernel's queues were full, the machine is too slow for so many packets"
        );
    } else {
        assert_eq!([calm.lost(), busy.lost()], [0, 0]);
    }
    Ok(())
}

/// What became of the packets.
struct Outcome {
    sent: u64,
    received: u64,
    /// By full queues of the kernel.
    dropped: u64,
}

impl Outcome {
    fn lost(&self) -> u64 {
        self.sent - self.received
    }
}

/// Sends from the one to the other while `work` is done.
fn under_traffic(
    site: &Site,
    (host, echo): (&UdpSocket, &UdpSocket),
    what: &str,
    work: impl FnOnce() -> io::Result<()>,
) -> io::Result<Outcome> {
    let rate = from_environment("ISTHMUS_RELOAD_PPS", 20_000);
    let (dropped, waited) = (site.dropped_by_kernel()?, site.waited()?);
    let (sending, receiving) = (AtomicBool::new(true), AtomicBool::new(true));
    let start = Instant::now();
    let (sent, received, done, elapsed) = thread::scope(|scope| {
        let sender = scope.spawn(|| send(host, rate, &sending));
        let receiver = scope.spawn(|| receive(echo, &receiving));
        let done = work();
        sending.store(false, Ordering::Relaxed);
        let (sent, elapsed) = (sender.join().expect("sent"), start.elapsed());
        thread::sleep(FLIGHT);
        receiving.store(false, Ordering::Relaxed);
        (sent, receiver.join().expect("received"), done, elapsed)
    });
    done?;
    let outcome = Outcome { sent, received, dropped: site.dropped_by_kernel()? - dropped };
    println!(
        "{what}: {:.1} s under {:.0} packets/s: {sent} sent, {received} received, {} dropped by full queues of the kernel; \
         the daemons waited {:.1?} for their cores",
        elapsed.as_secs_f64(),
        sent as f64 / elapsed.as_secs_f64(),
        outcome.dropped,
        site.waited()? - waited,
    );
    Ok(outcome)
}

/// Reloads each daemon in turn, has each refuse something, and each try something that nobody confirms.
fn change(site: &Site, reloads: u32) -> io::Result<()> {
    let configure: [fn(u32) -> String; 3] = [gateway, xtr, mapping];
    let pause = Duration::from_millis(from_environment("ISTHMUS_RELOAD_PAUSE", 0).into());
    let mut numbers = [0; 3];
    for reload in 0..reloads {
        let which = reload as usize % 3;
        numbers[which] += 1;
        let changed = site.daemons()[which].reload(&configure[which](numbers[which]))?;
        assert!(!changed.is_empty(), "reload {reload}");
        thread::sleep(pause);
    }
    refuse(site, &configure, &numbers)?;
    try_out(site, &configure, &numbers)
}

fn text_of(daemon: &Daemon) -> io::Result<Value> {
    Ok(daemon.ask(&Query::Config)?["text"].clone())
}

fn refuse(site: &Site, configure: &[fn(u32) -> String; 3], numbers: &[u32; 3]) -> io::Result<()> {
    for ((daemon, configure), number) in site.daemons().into_iter().zip(configure).zip(numbers) {
        let before = text_of(daemon)?;
        let next = configure(number + 1);
        for bad in [
            format!("{next}[weather]\n"),
            next.replace("name = ", "nmae = "),
            next.replace("map-resolvers = [", "tun = { queues = 7 }\nmap-resolvers = [")
                .replace("\"198.51.100.2\"]\nreg", "\"198.51.100.2\"]\nstate-dir = \"STATE\"\nreg"),
        ] {
            let refused = daemon.reload(&bad).expect_err("bad");
            assert!(refused.to_string().contains("daemon.toml:"), "{refused}");
            assert_eq!(text_of(daemon)?, before);
        }
    }
    Ok(())
}

fn try_out(site: &Site, configure: &[fn(u32) -> String; 3], numbers: &[u32; 3]) -> io::Result<()> {
    let befores = site.daemons().map(text_of);
    for ((daemon, configure), number) in site.daemons().into_iter().zip(configure).zip(numbers) {
        let answer = daemon.try_out(&configure(number + 1), 1)?;
        assert_eq!(answer["unconfirmed_seconds"], 1, "{answer}");
    }
    for (daemon, before) in site.daemons().into_iter().zip(befores) {
        let (before, deadline) = (before?, Instant::now() + Duration::from_secs(20));
        while text_of(daemon)? != before {
            assert!(Instant::now() < deadline, "it does not return: {}", daemon.log());
            thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(())
}

/// So many packets per second, in bursts of a millisecond; how many.
fn send(host: &UdpSocket, rate: u32, goes_on: &AtomicBool) -> u64 {
    let start = Instant::now();
    let mut sent = 0_u64;
    while goes_on.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * f64::from(rate)) as u64;
        // What a busy machine made us miss is not made up for in one burst.
        let missing = due.saturating_sub(sent).min(u64::from(rate / 200).max(1));
        for _ in 0..missing {
            let mut payload = [0; PAYLOAD];
            payload[..8].copy_from_slice(&sent.to_be_bytes());
            // What the own kernel has no buffer for was not sent.
            if host.send_to(&payload, "203.0.113.1:7000").is_ok() {
                sent += 1;
            }
        }
        thread::sleep(Duration::from_millis(1));
    }
    sent
}

fn receive(echo: &UdpSocket, goes_on: &AtomicBool) -> u64 {
    let (mut received, mut buffer) = (0, [0; 100]);
    while goes_on.load(Ordering::Relaxed) {
        while echo.recv(&mut buffer).is_ok() {
            received += 1;
        }
    }
    received
}
