//! A gateway whose host scans EID space as fast as it can: what is known is forwarded, what keeps the gateway in the mapping system goes on,
//! and the mapping system is asked no more than it should be.
//!
//! ```text
//!   192.0.2.80, 192.0.2.81 [gateway] 198.51.100.1 --- 198.51.100.11 [xTR] 203.0.113.1
//!                                                     198.51.100.2 [Map-Server, Map-Resolver]
//! ```
//! The ETR of what is scanned, 10.0.0.0/8, is registered but dead: nobody answers, every packet is a miss.
//! `ISTHMUS_OVERLOAD_SECONDS=60` makes it last longer.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::Daemon;
use interop_tests::load::meter::{resident, waiting_time};
use interop_tests::site::{Hosts, or_skip, wait_for_registrations};
use mapping::admin::Query;
use mapping::timers;

/// Hits per second.
const HITS: u32 = 200;
/// Octets that a flood may add to the gateway's memory: its map-cache and its lookups are bounded.
const MEMORY_BOUND: u64 = 64 << 20;

const MAPPING: &str = r#"
[mapping]
name = "ms"
listen = ["198.51.100.2"]
[[site]]
name = "a"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = ["203.0.113.0/26"]
[[site]]
name = "b"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = ["10.0.0.0/8"]
"#;

const XTR: &str = r#"
[xtr]
name = "a"
rlocs = { core = { address = "198.51.100.11", priority = 1, weight = 100 } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
registration-interval = "10s"
[[eid]]
prefix = "203.0.113.0/26"
"#;

const DEAD: &str = r#"
[xtr]
name = "b"
rlocs = { core = { address = "198.51.100.12", priority = 1, weight = 100 } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
proxy-reply = false
[[eid]]
prefix = "10.0.0.0/8"
"#;

const GATEWAY: &str = r#"
[gateway]
name = "pxtr"
rlocs = ["198.51.100.1"]
map-resolvers = ["198.51.100.2"]
probe = { idle-interval = "10s" }
[pitr]
eid-aggregates = ["203.0.113.0/24", "10.0.0.0/8"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24"], eids = ["203.0.113.0/24"] }
"#;

struct Site {
    gateway: Daemon,
    xtr: Daemon,
    _mapping: Daemon,
    native: Namespace,
    site: Namespace,
}

impl Site {
    fn build() -> io::Result<Self> {
        let hosts = ["192.0.2.80/32", "192.0.2.81/32"];
        let rlocs = ["198.51.100.11/24", "198.51.100.12/24", "198.51.100.2/24"];
        let Hosts { native, site } = Hosts::build(&hosts, &rlocs)?;
        let mapping = Daemon::start(&site, "mapping", MAPPING)?;
        let dead = Daemon::start(&site, "xtr", DEAD)?;
        wait_for_registrations(&mapping, 1)?;
        drop(dead);
        let xtr = Daemon::start(&site, "xtr", XTR)?;
        wait_for_registrations(&mapping, 2)?;
        let gateway = Daemon::start(&native, "gateway", GATEWAY)?;
        Ok(Self { gateway, xtr, _mapping: mapping, native, site })
    }

    /// A socket of a host on the native side.
    fn host(&self, address: &'static str) -> io::Result<UdpSocket> {
        let socket = self.native.run(move || UdpSocket::bind((address, 5000)))??;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        Ok(socket)
    }
}

#[test]
fn rq_23_a_scan_of_eid_space_costs_neither_hits_nor_probes_nor_registrations() {
    let Some(site) = or_skip(Site::build()) else { return };
    scan(&site).expect("everything answers");
}

fn scan(site: &Site) -> io::Result<()> {
    let seconds = std::env::var("ISTHMUS_OVERLOAD_SECONDS").ok().and_then(|text| text.parse().ok());
    let duration = Duration::from_secs(seconds.unwrap_or(12));
    let echo = site.site.run(|| UdpSocket::bind("203.0.113.1:7000"))??;
    echo.set_read_timeout(Some(Duration::from_millis(50)))?;
    let (host, scanner) = (site.host("192.0.2.80")?, site.host("192.0.2.81")?);
    host.send_to(b"first", "203.0.113.1:7000")?;
    assert_eq!(echo.recv(&mut [0; 100]).or_else(|_| echo.recv(&mut [0; 100]))?, 5);
    let before = Seen::by(site)?;
    let stop = AtomicBool::new(false);
    let (scanned, received, sent) = thread::scope(|scope| {
        let scanning = scope.spawn(|| scan_until(&stop, &scanner));
        let receiving = scope.spawn(|| count_until(&stop, &echo));
        let sent = hits(&host, duration);
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        (scanning.join().expect("scanned"), receiving.join().expect("counted"), sent)
    });
    let after = Seen::by(site)?;
    let elapsed = duration.as_secs_f64();
    let requests = after.requests - before.requests;
    println!(
        "{scanned} EIDs scanned ({:.0}/s); {received} of {sent} hits arrived; {requests} Map-Requests ({:.0}/s); {} probes answered, {} registrations; {} KiB more memory",
        scanned as f64 / elapsed,
        requests as f64 / elapsed,
        after.probes - before.probes,
        after.registrations - before.registrations,
        after.resident.saturating_sub(before.resident) >> 10,
    );
    println!("{}", site.gateway.ask(&Query::Drops)?);
    let limit = f64::from(timers::MAP_REQUESTS_PER_SECOND);
    assert!(requests as f64 <= limit * (elapsed + 2.0), "more Map-Requests than RFC 9301 §9 wants");
    assert!(after.registrations > before.registrations, "the xTR does not register any more");
    assert!(after.probes > before.probes, "no RLOC-probe is answered any more");
    assert!(after.resident < before.resident + MEMORY_BOUND, "memory grew");
    let waited = after.waited - before.waited;
    if waited > duration / 5 {
        println!("not judged: the machine is busy, the gateway waited {waited:.1?} for its core");
    } else {
        assert!(received * 1000 >= sent * 990, "hits are lost");
    }
    recovered(site, &host, &echo)
}

/// The very next second.
fn recovered(site: &Site, host: &UdpSocket, echo: &UdpSocket) -> io::Result<()> {
    let stop = AtomicBool::new(false);
    let (received, sent) = thread::scope(|scope| {
        let receiving = scope.spawn(|| count_until(&stop, echo));
        let sent = hits(host, Duration::from_secs(1));
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        (receiving.join().expect("counted"), sent)
    });
    println!("the next second: {received} of {sent}");
    assert!(received * 100 >= sent * 99, "{}", site.gateway.ask(&Query::Drops)?);
    Ok(())
}

/// What the daemons say of themselves.
struct Seen {
    requests: u64,
    probes: u64,
    registrations: u64,
    resident: u64,
    waited: Duration,
}

impl Seen {
    fn by(site: &Site) -> io::Result<Self> {
        Ok(Self {
            requests: site.gateway.counter("map_requests_sent")?,
            probes: site.gateway.counter("probe_replies_received")?,
            registrations: site.xtr.counter("map_notifies_received")?,
            resident: resident(site.gateway.id())?,
            waited: waiting_time(site.gateway.id())?,
        })
    }
}

/// One packet to every address of 10.0.0.0/8, again and again.
fn scan_until(stop: &AtomicBool, scanner: &UdpSocket) -> u64 {
    let mut number = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let address = Ipv4Addr::from_bits(0x0a00_0001 + (number % 0x00ff_ffff) as u32);
        // The kernel may be out of buffers.
        let _ = scanner.send_to(&[0; 16], (address, 7000));
        number += 1;
        if number.is_multiple_of(64) {
            // A scan, not a test of how the cores are shared.
            thread::sleep(Duration::from_micros(200));
        }
    }
    number
}

fn count_until(stop: &AtomicBool, socket: &UdpSocket) -> u64 {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        count += u64::from(socket.recv(&mut [0; 100]).is_ok());
    }
    count
}

fn hits(host: &UdpSocket, duration: Duration) -> u64 {
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < duration {
        host.send_to(b"hit", "203.0.113.1:7000").expect("sent");
        sent += 1;
        let due = Duration::from_secs(1) * sent / HITS;
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    sent.into()
}
