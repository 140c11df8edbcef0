//! The daemon as a service: what it tells its manager, what a restart costs those who send, as whom it runs, what it finds wrong with a host.
//!
//! ```text
//!   192.0.2.80 [gateway] 198.51.100.1 --- 198.51.100.11 [xTR] 203.0.113.1
//!                                         198.51.100.2 [Map-Server, Map-Resolver]
//! ```

use std::io;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::Daemon;
use interop_tests::manager::Service;
use interop_tests::site::{Hosts, or_skip, wait_for_registrations};
use mapping::admin::Query;
use nix::sys::signal::Signal;

const MAPPING: &str = r#"
[mapping]
name = "ms"
listen = ["198.51.100.2"]
[[site]]
name = "a"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = [{ prefix = "203.0.113.0/26", accept-more-specifics = true }]
"#;

const XTR: &str = r#"
[xtr]
name = "a"
rlocs = { core = { address = "198.51.100.11", priority = 1, weight = 100 } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
use-petr = [{ address = "198.51.100.1", weight = 100 }]
[[eid]]
prefix = "203.0.113.0/26"
"#;

const GATEWAY: &str = r#"
[gateway]
name = "pxtr"
rlocs = ["198.51.100.1"]
map-resolvers = ["198.51.100.2"]
state-dir = "STATE"
[pitr]
eid-aggregates = ["203.0.113.0/24"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24"], eids = ["203.0.113.0/24"] }
"#;

struct World {
    gateway: Service,
    mapping: Daemon,
    xtr: Daemon,
    native: Namespace,
    site: Namespace,
}

impl World {
    fn build() -> io::Result<Self> {
        let rlocs = ["198.51.100.11/24", "198.51.100.2/24"];
        let Hosts { native, site } = Hosts::build(&["192.0.2.80/32"], &rlocs)?;
        let mapping = Daemon::start(&site, "mapping", MAPPING)?;
        let xtr = Daemon::start(&site, "xtr", XTR)?;
        wait_for_registrations(&mapping, 1)?;
        let mut gateway = Service::new("gateway", GATEWAY)?;
        gateway.start(&native)?;
        Ok(Self { gateway, mapping, xtr, native, site })
    }
}

/// Packets one way, 1000 per second; what did not come, and the longest time in which none came.
struct Stream {
    sent: u64,
    received: u64,
    longest_gap: Duration,
}

const RATE: f64 = 1000.0;
/// What a restart may cost.
const OUTAGE: Duration = Duration::from_secs(1);
/// `RestartSec` of the unit.
const RESTART_AFTER: Duration = Duration::from_millis(100);

fn stream(
    from: &UdpSocket,
    to: &UdpSocket,
    address: &str,
    goes_on: &AtomicBool,
) -> io::Result<Stream> {
    to.set_read_timeout(Some(Duration::from_millis(20)))?;
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let start = Instant::now();
            let mut sent = 0_u64;
            while goes_on.load(Ordering::Relaxed) {
                while (sent as f64) < start.elapsed().as_secs_f64() * RATE {
                    let _ = from.send_to(&sent.to_be_bytes(), address);
                    sent += 1;
                }
                thread::sleep(Duration::from_micros(500));
            }
            sent
        });
        let (mut received, mut longest_gap, mut last) = (0, Duration::ZERO, Instant::now());
        let mut octets = [0; 100];
        loop {
            match to.recv(&mut octets) {
                Ok(_) => {
                    longest_gap = longest_gap.max(last.elapsed());
                    last = Instant::now();
                    received += 1;
                }
                Err(_) if !goes_on.load(Ordering::Relaxed) => break,
                Err(_) => {}
            }
        }
        longest_gap = longest_gap.max(last.elapsed().saturating_sub(Duration::from_millis(40)));
        let sent = sender.join().map_err(|_| io::Error::other("the sender failed"))?;
        Ok(Stream { sent, received, longest_gap })
    })
}

/// Traffic in both directions while `act` is done; in, then out.
fn under_traffic(
    world: &mut World,
    act: impl FnOnce(&mut Service, &Namespace) -> io::Result<()>,
) -> io::Result<[Stream; 2]> {
    let eid = world.site.run(|| UdpSocket::bind("203.0.113.1:7000"))??;
    let host = world.native.run(|| UdpSocket::bind("192.0.2.80:5000"))??;
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let inward = scope.spawn(|| stream(&host, &eid, "203.0.113.1:7000", &goes_on));
        let outward = scope.spawn(|| stream(&eid, &host, "192.0.2.80:5000", &goes_on));
        thread::sleep(Duration::from_secs(2));
        let done = act(&mut world.gateway, &world.native);
        thread::sleep(Duration::from_secs(4));
        goes_on.store(false, Ordering::Relaxed);
        let failed = |_| io::Error::other("a stream failed");
        let streams = [inward.join().map_err(failed)??, outward.join().map_err(failed)??];
        done.map(|()| streams)
    })
}

fn report(what: &str, streams: &[Stream; 2]) {
    let [inward, outward] = streams;
    println!(
        "{what}: to the site {} of {} packets lost, longest gap {:?}; from the site {} of {}, {:?}",
        inward.sent.saturating_sub(inward.received),
        inward.sent,
        inward.longest_gap,
        outward.sent.saturating_sub(outward.received),
        outward.sent,
        outward.longest_gap,
    );
}

#[test]
fn op_04_a_restart_costs_those_who_send_less_than_a_second() {
    let Some(mut world) = or_skip(World::build()) else { return };
    restart(&mut world).unwrap_or_else(|error| panic!("{error}\n{}", world.gateway.log()));
}

fn restart(world: &mut World) -> io::Result<()> {
    report("undisturbed", &under_traffic(world, |_, _| Ok(()))?);
    let before = tun_index(&world.native)?;
    let streams = under_traffic(world, |gateway, native| {
        assert!(gateway.restart(native)?.success());
        Ok(())
    })?;
    report("systemctl restart", &streams);
    assert!(streams.iter().all(|one| one.longest_gap < OUTAGE), "too long");
    assert_eq!(tun_index(&world.native)?, before, "the device, and with it the routes, stayed");
    let log = world.gateway.log();
    assert!(log.contains("the tunnel device of the process before is taken over"), "{log}");
    assert!(log.contains("the map-cache of before is used"), "{log}");
    assert_eq!(world.gateway.stored(), Vec::<&str>::new(), "from now on it goes with the process");
    let streams = under_traffic(world, |gateway, native| {
        gateway.end(Signal::SIGKILL)?;
        assert!(tun_index(native).is_err(), "nobody keeps what a dead process had");
        thread::sleep(RESTART_AFTER);
        gateway.start(native)
    })?;
    report("kill -9", &streams);
    assert!(streams.iter().all(|one| one.longest_gap < OUTAGE), "too long");
    let streams = under_traffic(world, |gateway, native| {
        assert!(gateway.stop()?.success());
        assert!(tun_index(native).is_err(), "a stop is a stop");
        gateway.start(native)
    })?;
    report("stop and start", &streams);
    Ok(())
}

fn tun_index(namespace: &Namespace) -> io::Result<u32> {
    namespace.run(|| nix::net::if_::if_nametoindex("isthmus0"))?.map_err(io::Error::from)
}
