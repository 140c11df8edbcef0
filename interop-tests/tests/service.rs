//! The daemon as a service: what it tells its manager, what a restart costs those who send, as whom it runs, what it finds wrong with a host.
//!
//! ```text
//!   192.0.2.80 [gateway] 198.51.100.1 --- 198.51.100.11 [xTR] 203.0.113.1
//!                                         198.51.100.2 [Map-Server, Map-Resolver]
//! ```

use std::fs::Permissions;
use std::io;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::{Daemon, program};
use interop_tests::manager::Service;
use interop_tests::site::{Hosts, or_skip, wait_for_registrations};
use mapping::admin::Query;
use nix::sys::signal::Signal;
use serde_json::Value;

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
    xtr: Service,
    native: Namespace,
    site: Namespace,
}

impl World {
    fn build() -> io::Result<Self> {
        let rlocs = ["198.51.100.11/24", "198.51.100.2/24"];
        let Hosts { native, site } = Hosts::build(&["192.0.2.80/32"], &rlocs)?;
        let mapping = Daemon::start(&site, "mapping", MAPPING)?;
        let mut xtr = Service::new("xtr", XTR)?;
        xtr.start(&site)?;
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

/// The end of the traffic.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Traffic in both directions while `act` is done; in, then out.
fn under_traffic(
    world: &mut World,
    act: impl FnOnce(&mut World) -> io::Result<()>,
) -> io::Result<[Stream; 2]> {
    let eid = world.site.run(|| UdpSocket::bind("203.0.113.1:7000"))??;
    let host = world.native.run(|| UdpSocket::bind("192.0.2.80:5000"))??;
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let inward = scope.spawn(|| stream(&host, &eid, "203.0.113.1:7000", &goes_on));
        let outward = scope.spawn(|| stream(&eid, &host, "192.0.2.80:5000", &goes_on));
        thread::sleep(Duration::from_secs(2));
        // Also if `act` panics: nobody would end them otherwise.
        let ends = Ends(&goes_on);
        let done = act(world);
        thread::sleep(Duration::from_secs(4));
        drop(ends);
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
    report("undisturbed", &under_traffic(world, |_| Ok(()))?);
    let before = tun_index(&world.native)?;
    let streams = under_traffic(world, |World { gateway, native, .. }| {
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
    let streams = under_traffic(world, |World { gateway, native, .. }| {
        gateway.end(Signal::SIGKILL)?;
        // Nobody keeps what a dead process had.
        await_no_tun(native)?;
        thread::sleep(RESTART_AFTER);
        gateway.start(native)
    })?;
    report("kill -9", &streams);
    assert!(streams.iter().all(|one| one.longest_gap < OUTAGE), "too long");
    let streams = under_traffic(world, |World { gateway, native, .. }| {
        assert!(gateway.stop()?.success());
        await_no_tun(native)?;
        gateway.start(native)
    })?;
    report("stop and start", &streams);
    Ok(())
}

#[test]
fn a_service_tells_its_manager_what_it_does() {
    let Some(hosts) = or_skip(Hosts::build(&[], &[])) else { return };
    let service = Service::new("gateway", GATEWAY).expect("files");
    let mut service = service.with_watchdog(Duration::from_secs(3));
    notify(&mut service, &hosts.native)
        .unwrap_or_else(|error| panic!("{error}\n{}", service.log()));
}

fn notify(service: &mut Service, native: &Namespace) -> io::Result<()> {
    service.start(native)?;
    assert!(service.told().iter().any(|line| line == "STATUS=working"), "{:?}", service.told());
    service.wait_for("WATCHDOG=1")?;
    // A process that does not go on does not say that it lives.
    service.signal(Signal::SIGSTOP)?;
    let stopped = Instant::now();
    let mut last = stopped;
    while stopped.elapsed() < Duration::from_secs(4) {
        if service.listen()?.iter().any(|line| line == "WATCHDOG=1") {
            last = Instant::now();
        }
    }
    assert!(last - stopped < Duration::from_secs(1), "it was stopped");
    service.signal(Signal::SIGCONT)?;
    service.wait_for("WATCHDOG=1")?;
    service.configure(&GATEWAY.replace("203.0.113.0/24", "203.0.113.0/25"))?;
    service.signal(Signal::SIGHUP)?;
    service.wait_for("RELOADING=1")?;
    assert!(service.told().iter().any(|line| line.starts_with("MONOTONIC_USEC=")));
    service.wait_for("READY=1")?;
    let told = service.told().len();
    assert!(service.stop()?.success());
    let last = service.told()[told..].to_vec();
    assert!(last.iter().any(|line| line == "STOPPING=1"), "{last:?}");
    assert!(last.iter().any(|line| line == "STATUS=draining"), "{last:?}");
    Ok(())
}

/// A user that every host has, and that owns nothing.
const NOBODY: &str = "nobody";
const NET_ADMIN_AND_RAW: &str = "0000000000003000";

#[test]
fn a_daemon_started_as_root_keeps_two_capabilities_of_another_user() {
    let Some(mut world) = or_skip(World::build()) else { return };
    privileges(&mut world).unwrap_or_else(|error| panic!("{error}\n{}", world.gateway.log()));
}

fn privileges(world: &mut World) -> io::Result<()> {
    world.gateway.stop()?;
    let mut gateway = Service::new("gateway", GATEWAY)?.with_arguments(&["--user", NOBODY]);
    gateway.give_to(NOBODY)?;
    gateway.start(&world.native)?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id()))?;
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim().to_owned()
    };
    println!(
        "{}",
        status
            .lines()
            .filter(|l| l.starts_with("Cap") || l.contains("id:"))
            .collect::<Vec<_>>()
            .join("; ")
    );
    assert_eq!(line("CapEff:"), NET_ADMIN_AND_RAW);
    assert_eq!(line("CapPrm:"), NET_ADMIN_AND_RAW);
    assert_eq!((line("CapInh:"), line("CapAmb:")), ("0".repeat(16), "0".repeat(16)));
    assert_eq!(line("NoNewPrivs:"), "1");
    let nobody = nix::unistd::User::from_name(NOBODY)?.ok_or(io::ErrorKind::NotFound)?;
    let all_of_them = |id: u32| vec![id.to_string(); 4].join("\t");
    assert_eq!(line("Uid:"), all_of_them(nobody.uid.as_raw()));
    assert_eq!(line("Gid:"), all_of_them(nobody.gid.as_raw()));
    world.gateway = gateway;
    let streams = under_traffic(world, |World { gateway, native, .. }| {
        // What it may do suffices for a reload and for giving way, too.
        gateway.configure(&format!("{GATEWAY}[log]\nlevel = \"debug\"\n"))?;
        gateway.ask(&Query::Reload)?;
        assert!(gateway.restart(native)?.success());
        Ok(())
    })?;
    report("restart of another user's process", &streams);
    assert!(streams.iter().all(|one| one.longest_gap < OUTAGE), "too long");
    let log = world.gateway.log();
    assert!(log.contains("the tunnel device of the process before is taken over"), "{log}");
    assert!(!log.contains("Cannot set"), "{log}");
    Ok(())
}

/// As in a container: an ordinary user whose program may have two capabilities, out of a bounding set of these two.
#[test]
fn an_image_needs_two_capabilities_and_a_device_and_a_map_server_none() {
    let Some(mut world) = or_skip(World::build()) else { return };
    contained(&mut world).unwrap_or_else(|error| panic!("{error}\n{}", world.gateway.log()));
}

fn contained(world: &mut World) -> io::Result<()> {
    world.gateway.stop()?;
    // What udev does on a host, and `--device` in a container.
    std::fs::set_permissions("/dev/net/tun", Permissions::from_mode(0o666))?;
    let mut gateway = Service::new("gateway", GATEWAY)?.contained("+net_admin,+net_raw")?;
    gateway.give_to(NOBODY)?;
    gateway.start(&world.native)?;
    let of = |service: &Service| -> io::Result<Vec<String>> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", service.id()))?;
        let wanted = |line: &&str| line.starts_with("CapEff") || line.starts_with("CapBnd");
        Ok(status.lines().filter(wanted).map(|line| line[8..].to_owned()).collect())
    };
    assert_eq!(of(&gateway)?, [NET_ADMIN_AND_RAW, NET_ADMIN_AND_RAW]);
    world.gateway = gateway;
    let streams = under_traffic(world, |_| Ok(()))?;
    report("in a container", &streams);
    assert!(streams.iter().all(|one| one.received > 0));
    let config = MAPPING.replace("198.51.100.2", "127.0.0.1");
    let mut mapping = Service::new("mapping", &config)?.contained("")?;
    mapping.give_to(NOBODY)?;
    mapping.start(&world.native)?;
    assert_eq!(of(&mapping)?, ["0".repeat(16), "0".repeat(16)]);
    assert!(mapping.stop()?.success());
    Ok(())
}

#[test]
fn the_doctor_finds_what_is_wrong_and_names_what_mends_it() {
    let Some(hosts) = or_skip(Hosts::build(&[], &["198.51.100.2/24"])) else { return };
    doctor(&hosts.native).unwrap_or_else(|error| panic!("{error}"));
}

/// What stands in the way of a gateway in `native`; the findings of one kind, and whether the exit status says that it cannot work.
fn examine(native: &Namespace, service: &Service, check: &str) -> io::Result<(Vec<Value>, bool)> {
    let mut command = Command::new(program()?);
    command.args(["doctor", "--json", "--config"]).arg(service.path("daemon.toml"));
    command.stdout(Stdio::piped());
    let output = native.start(command)?.wait_with_output()?;
    let reports: Value = serde_json::from_slice(&output.stdout)?;
    let findings = reports[0]["findings"].as_array().into_iter().flatten();
    let found = findings.filter(|finding| finding["check"] == check).cloned().collect();
    Ok((found, !output.status.success()))
}

/// Runs a command of the doctor's.
fn mend(native: &Namespace, finding: &Value) -> io::Result<()> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(finding["mend"].as_str().unwrap_or_default()).stdout(Stdio::null());
    match native.start(command)?.wait()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("{finding} does not work"))),
    }
}

fn set(native: &Namespace, switch: &'static str, value: &'static str) -> io::Result<()> {
    native.run(move || std::fs::write(format!("/proc/sys/net/{switch}"), value))?
}

fn doctor(native: &Namespace) -> io::Result<()> {
    let service = Service::new("gateway", GATEWAY)?;
    set(native, "ipv4/ip_forward", "1")?;
    set(native, "ipv4/conf/all/rp_filter", "0")?;
    let (_, stopped) = examine(native, &service, "ports")?;
    assert!(!stopped, "{:?}", examine(native, &service, "ports"));
    // Each is made true, found, mended as is said, and found no longer.
    for (check, switch, bad, stops) in [
        ("forwarding", "ipv4/ip_forward", "0", true),
        ("rp-filter", "ipv4/conf/all/rp_filter", "1", false),
    ] {
        set(native, switch, bad)?;
        let (found, stopped) = examine(native, &service, check)?;
        assert_eq!((found.len(), stopped), (1, stops), "{check}: {found:?}");
        println!("{}: {}; mend: {}", found[0]["severity"], found[0]["what"], found[0]["mend"]);
        mend(native, &found[0])?;
        assert!(examine(native, &service, check)?.0.is_empty(), "{check}");
    }
    let taker = native.run(|| UdpSocket::bind("198.51.100.1:4341"))??;
    let (found, stopped) = examine(native, &service, "ports")?;
    assert!(
        stopped && found[0]["what"].as_str().is_some_and(|what| what.contains("is taken by ")),
        "{found:?}"
    );
    println!("{}", found[0]["what"]);
    drop(taker);
    let mut down = Command::new("ip");
    down.args(["link", "set", "core0", "mtu", "1300", "down"]);
    assert!(native.start(down)?.wait()?.success());
    let (found, stopped) = examine(native, &service, "routes")?;
    assert!(stopped && found[0]["severity"] == "error", "{found:?}");
    let (found, _) = examine(native, &service, "interfaces")?;
    mend(native, &found[0])?;
    // A link has its carrier, and with it its routes, a moment later.
    let start = Instant::now();
    while examine(native, &service, "routes")?.1 {
        assert!(start.elapsed() < Duration::from_secs(10), "it is not mended");
        thread::sleep(Duration::from_millis(50));
    }
    let (found, _) = examine(native, &service, "mtu")?;
    assert_eq!(found.len(), 1, "{found:?}");
    println!("{}: {}", found[0]["what"], found[0]["means"]);
    Ok(())
}

#[test]
fn op_04_an_xtr_that_restarts_stays_registered() {
    let Some(mut world) = or_skip(World::build()) else { return };
    restart_xtr(&mut world).unwrap_or_else(|error| panic!("{error}\n{}", world.xtr.log()));
}

fn restart_xtr(world: &mut World) -> io::Result<()> {
    let before = tun_index(&world.site)?;
    let streams = under_traffic(world, |World { xtr, site, mapping, .. }| {
        assert!(xtr.end(Signal::SIGUSR2)?.success());
        let registered = mapping.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len);
        assert_eq!(registered, 1, "it will be back");
        xtr.start(site)
    })?;
    report("restart of the site's router", &streams);
    assert!(streams.iter().all(|one| one.longest_gap < OUTAGE), "too long");
    assert_eq!(tun_index(&world.site)?, before);
    assert!(world.xtr.stop()?.success());
    let registered = world.mapping.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len);
    assert_eq!(registered, 0, "a stop is a stop");
    Ok(())
}

/// The kernel takes a process apart for a moment after its end.
fn await_no_tun(namespace: &Namespace) -> io::Result<()> {
    let start = Instant::now();
    while tun_index(namespace).is_ok() {
        if start.elapsed() > OUTAGE {
            return Err(io::Error::other("the tunnel device stays"));
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn tun_index(namespace: &Namespace) -> io::Result<u32> {
    namespace.run(|| nix::net::if_::if_nametoindex("isthmus0"))?.map_err(io::Error::from)
}
