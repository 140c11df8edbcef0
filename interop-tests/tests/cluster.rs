//! Two Map-Servers and three members of etcd: whatever dies, nothing acknowledged is lost and no answer is wrong.
//!
//! ```text
//!   ETR -- Map-Registers --> ms 0 ---+--- etcd 0
//!                       \             X-- etcd 1      everything on addresses of 127/8
//!   ITR -- lookups -----> ms 1 ------+--- etcd 2
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use interop_tests::daemon::Daemon;
use interop_tests::etcd::{self, EtcdCluster};
use mapping::admin::Query;
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, LocatorRecord,
    MapNotify, MapRegister, MapReply, MapRequest, RequestedEid,
};

/// How long a client waits before it tries again, at the other Map-Server; and how often it tries.
const RETRY: Duration = Duration::from_secs(1);
const TRIES: usize = 3;
/// How long a registration may take from the Map-Server that acknowledged it to the other one.
const SPREAD: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(20);
const SECRET: &[u8] = b"a-secret-for-tests-only";
const PREFIXES: usize = 8;

/// An address of 127/8 that belongs to this test of this process: 40 hosts for each of six tests.
fn loopback(test: u8, host: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let octet = |value: u8| value % 250 + 2;
    Ipv4Addr::new(127, octet(high.rotate_left(3) ^ low), octet(low), test * 40 + host).into()
}

/// The machines of one test.
struct Lab {
    test: u8,
    etcd: EtcdCluster,
    servers: [Option<Daemon>; 2],
    timeout: &'static str,
}

fn server(test: u8, at: usize) -> SocketAddr {
    SocketAddr::new(loopback(test, 10 + at as u8), CONTROL_PORT)
}

fn prefix(number: usize) -> EidPrefix {
    let text = format!("2001:db8:e0{number:02x}::/48");
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("a prefix"))
}

impl Lab {
    fn start(test: u8, members: u8, timeout: &'static str) -> Option<Self> {
        if !etcd::installed() {
            return None;
        }
        let addresses: Vec<IpAddr> = (0..members).map(|host| loopback(test, host)).collect();
        let etcd = EtcdCluster::start(&addresses).expect("etcd starts");
        let mut lab = Self { test, etcd, servers: [None, None], timeout };
        for at in 0..2 {
            lab.start_server(at);
            lab.server(at).wait_until_ready().expect("the Map-Server starts");
        }
        Some(lab)
    }

    fn start_server(&mut self, at: usize) {
        let config = format!(
            "[mapping]\nlisten = [\"{}\"]\nregistration-timeout = \"{}\"\n\
             [cluster]\nendpoints = {:?}\n\
             [[site]]\nname = \"a\"\nkeys = [{{ id = 1, file = \"KEY\" }}]\n\
             eid-prefixes = [{{ prefix = \"2001:db8:e000::/36\", accept-more-specifics = true }}]\n",
            server(self.test, at).ip(),
            self.timeout,
            self.etcd.endpoints(),
        );
        self.servers[at] = Some(Daemon::start_here("mapping", &config).expect("it is built"));
    }

    fn server(&mut self, at: usize) -> &mut Daemon {
        self.servers[at].as_mut().expect("it runs")
    }

    /// Kills process `victim`: a Map-Server, or a member of etcd.
    fn kill(&mut self, victim: usize) {
        match victim {
            0 | 1 => self.servers[victim] = None,
            _ => self.etcd.kill(victim - 2).expect("it runs"),
        }
    }

    fn restart(&mut self, victim: usize) {
        match victim {
            0 | 1 => {
                self.start_server(victim);
                self.server(victim).wait_until_ready().expect("the Map-Server starts again");
            }
            _ => self.etcd.restart(victim - 2).expect("it starts"),
        }
    }
}

/// A site's router: registers, and knows what was acknowledged.
struct Etr {
    test: u8,
    socket: UdpSocket,
    nonce: u64,
}

impl Etr {
    fn new(test: u8) -> Self {
        let socket = UdpSocket::bind((loopback(test, 20), CONTROL_PORT)).expect("an address");
        Self { test, socket, nonce: 0 }
    }

    /// A Map-Register for prefix `number` whose locator says which `generation` it is; 0 withdraws.
    fn register(&mut self, number: usize, generation: u32) -> Vec<u8> {
        let [a, b, c, d] = (0x0a00_0000 | generation).to_be_bytes();
        let mut locator = LocatorRecord::new(IpAddr::from([a, b, c, d]), 1, 100);
        locator.reachable = true;
        let (ttl, locators) = if generation == 0 { (0, vec![]) } else { (1_440, vec![locator]) };
        self.nonce += 1;
        let mut octets = Vec::new();
        MapRegister {
            proxy_reply: true,
            security_capable: false,
            eid_notify: false,
            use_ttl: false,
            merge: false,
            want_map_notify: true,
            nonce: self.nonce,
            authentication: AuthenticationData::zeroed(1, 3, auth::MAC_LEN),
            records: vec![EidRecord::new(prefix(number), ttl, locators)],
            identity: None,
        }
        .encode(&mut octets);
        let secret = Secret::new(SECRET.to_vec());
        auth::sign(&mut octets, &secret, Algorithm::HmacSha256Hkdf).expect("signed");
        octets
    }

    /// Whether a new Map-Register is acknowledged by server `at`.
    fn refresh(&mut self, number: usize, generation: u32, at: usize) -> bool {
        let octets = self.register(number, generation);
        self.send(&octets, at, PATIENCE)
    }

    /// Whether `octets` is acknowledged by server `at` in time.
    fn send(&self, octets: &[u8], at: usize, wait: Duration) -> bool {
        self.socket.send_to(octets, server(self.test, at)).expect("sent");
        let deadline = Instant::now() + wait;
        let mut buffer = [0; 2_048];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("set");
            match self.socket.recv_from(&mut buffer) {
                Ok((length, from)) => {
                    let notify = MapNotify::parse(&buffer[..length]).expect("a Map-Notify");
                    if notify.nonce == self.nonce && from == server(self.test, at) {
                        return true;
                    }
                }
                Err(error) if is_late(&error) => return false,
                Err(error) => panic!("{error}"),
            }
        }
        false
    }
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// Asks for mappings; no ITR-RLOC asks for the same one twice in a row, since a Map-Server does not repeat itself.
struct Itr {
    test: u8,
    socket: UdpSocket,
    turn: u64,
}

impl Itr {
    fn new(test: u8) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        Self { test, socket, turn: 0 }
    }

    /// The generation that server `at` knows of prefix `number`, 0 for a negative answer; `None` when there is no answer in time.
    fn ask(&mut self, number: usize, at: usize, wait: Duration) -> Option<u32> {
        self.turn += 1;
        let host = (self.turn % 200) as u8;
        // Any address of 127/8 reaches the socket.
        let IpAddr::V4(own) = loopback(self.test, 30) else { unreachable!("it is IPv4") };
        let itr = Ipv4Addr::from([127, own.octets()[1], 1, host + 2]);
        let eid = prefix(number).first();
        let mut message = Vec::new();
        let asked = vec![RequestedEid::new(eid.host_prefix())];
        MapRequest::new(self.turn, vec![IpAddr::V4(itr).into()], asked).encode(&mut message);
        let port = self.socket.local_addr().expect("bound").port();
        let source = SocketAddr::new("2001:db8::5".parse().expect("an address"), port);
        let mut octets = Vec::new();
        let destination = SocketAddr::new(eid.address, CONTROL_PORT);
        EncapsulatedControlMessage::new(source, destination, message).encode(&mut octets);
        self.socket.send_to(&octets, server(self.test, at)).expect("sent");
        let deadline = Instant::now() + wait;
        let mut buffer = [0; 2_048];
        while let Some(left) = deadline.checked_duration_since(Instant::now()) {
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("set");
            match self.socket.recv_from(&mut buffer) {
                Ok((length, _)) => {
                    let reply = MapReply::parse(&buffer[..length]).expect("a Map-Reply");
                    if reply.nonce == self.turn {
                        return Some(generation(&reply));
                    }
                }
                Err(error) if is_late(&error) => return None,
                Err(error) => panic!("{error}"),
            }
        }
        None
    }

    /// Asks server `at` until the answer is `expected`.
    fn expect(&mut self, number: usize, at: usize, expected: u32) {
        let deadline = Instant::now() + PATIENCE;
        let mut answer = None;
        while Instant::now() < deadline {
            answer = self.ask(number, at, RETRY);
            if answer == Some(expected) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("server {at} says {answer:?} of {number}, not {expected}");
    }
}

fn generation(reply: &MapReply) -> u32 {
    let locator = reply.records.first().and_then(|record| record.locators.first());
    match locator.and_then(|locator| locator.address.rloc()) {
        Some(IpAddr::V4(rloc)) => u32::from(rloc) & 0x00ff_ffff,
        Some(other) => panic!("{other} was never registered"),
        None => 0,
    }
}

#[test]
fn au_16_au_17_a_registration_that_one_accepted_is_answered_by_all() {
    let Some(mut lab) = Lab::start(0, 1, "3m") else { return };
    let (mut etr, mut itr) = (Etr::new(0), Itr::new(0));
    itr.expect(1, 1, 0);
    let first = etr.register(1, 7);
    assert!(etr.send(&first, 0, PATIENCE));
    itr.expect(1, 0, 7);
    itr.expect(1, 1, 7);
    let second = etr.register(1, 8);
    assert!(etr.send(&second, 1, PATIENCE));
    itr.expect(1, 0, 8);
    // AU-16, AU-17: what one of them accepted is a replay at the other, and after a restart.
    assert!(!etr.send(&first, 1, SPREAD) && !etr.send(&first, 0, SPREAD));
    lab.kill(1);
    lab.restart(1);
    assert!(!etr.send(&first, 1, SPREAD));
    itr.expect(1, 1, 8);
    let drops = lab.server(1).ask(&Query::Drops).expect("drops").to_string();
    assert!(drops.contains("\"replayed\""), "{drops}");
    let withdrawal = etr.register(1, 0);
    assert!(etr.send(&withdrawal, 1, PATIENCE));
    itr.expect(1, 0, 0);
    itr.expect(1, 1, 0);
    let status = lab.server(0).ask(&Query::Status).expect("status");
    assert_eq!(status["healthy"], true);
    assert!(status.to_string().contains("Cluster: "), "{status}");
}

#[test]
fn ms_03_what_is_refreshed_at_one_expires_at_none_and_ends_at_all() {
    let Some(lab) = Lab::start(1, 1, "3s") else { return };
    let (mut etr, mut itr) = (Etr::new(1), Itr::new(1));
    let started = Instant::now();
    let mut refreshed = Instant::now();
    assert!(etr.refresh(1, 5, 0));
    itr.expect(1, 1, 5);
    while started.elapsed() < Duration::from_secs(9) {
        if refreshed.elapsed() > Duration::from_secs(1) {
            refreshed = Instant::now();
            assert!(etr.refresh(1, 5, 0));
        }
        for at in 0..2 {
            assert_eq!(itr.ask(1, at, PATIENCE), Some(5), "at {at} after {:?}", started.elapsed());
        }
        thread::sleep(Duration::from_millis(40));
    }
    itr.expect(1, 0, 0);
    itr.expect(1, 1, 0);
    // Nothing of it stays behind: prefix "/isthmus/r" to "/isthmus/s".
    let range = r#"{"key": "L2lzdGhtdXMvcg==", "range_end": "L2lzdGhtdXMvcw=="}"#;
    let deadline = Instant::now() + PATIENCE;
    while lab.etcd.post(0, "/v3/kv/range", range).expect("an answer").contains("\"kvs\"") {
        assert!(Instant::now() < deadline, "entries stay behind in etcd");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn without_etcd_nothing_is_acknowledged_nothing_expires_and_nobody_starts() {
    let Some(mut lab) = Lab::start(2, 1, "6s") else { return };
    let (mut etr, mut itr) = (Etr::new(2), Itr::new(2));
    let register = etr.register(1, 5);
    assert!(etr.send(&register, 0, PATIENCE));
    itr.expect(1, 1, 5);
    lab.kill(2);
    lab.kill(1);
    lab.start_server(1);
    let cut_off = Instant::now();
    let register = etr.register(1, 6);
    assert!(!etr.send(&register, 0, Duration::from_secs(2)), "acknowledged without etcd");
    while lab.server(0).ask(&Query::Status).expect("status")["healthy"] == true {
        assert!(cut_off.elapsed() < PATIENCE, "it does not say that it is cut off");
        thread::sleep(Duration::from_millis(50));
    }
    let register = etr.register(2, 7);
    assert!(!etr.send(&register, 0, RETRY));
    for number in [1, 2] {
        assert_eq!(itr.ask(number, 0, PATIENCE), Some(5 + number as u32), "from memory");
    }
    assert_eq!(itr.ask(1, 1, RETRY), None, "a Map-Server without the registrations answers");
    let starting = lab.server(1).ask(&Query::Status).expect_err("it is not ready").to_string();
    assert!(starting.contains("not ready"), "{starting}");
    thread::sleep(Duration::from_secs(7).saturating_sub(cut_off.elapsed()));
    assert_eq!(
        itr.ask(1, 0, PATIENCE),
        Some(6),
        "expired, though a refresh elsewhere would not be seen"
    );
    lab.restart(2);
    lab.server(1).wait_until_ready().expect("it starts once there is etcd");
    // Refreshed, since what waited for more than a lifetime may be gone.
    let register = etr.register(1, 9);
    assert!(etr.send(&register, 0, PATIENCE));
    itr.expect(1, 1, 9);
}

/// What is known of each prefix: the newest generation that was sent, and the acknowledged ones with their times.
#[derive(Default)]
struct Known {
    sent: AtomicU64,
    acknowledged: Mutex<Vec<(u32, Instant)>>,
}

impl Known {
    /// The least generation that may be answered to who asked at `asked`.
    fn least(&self, asked: Instant) -> u32 {
        let acknowledged = self.acknowledged.lock().expect("no panic");
        let old = acknowledged.iter().rev().find(|(_, at)| *at + SPREAD <= asked);
        old.map_or(0, |(generation, _)| *generation)
    }
}

#[test]
fn ms_24_any_process_may_be_killed_at_any_time() {
    let Some(mut lab) = Lab::start(3, 3, "3m") else { return };
    let known: Arc<Vec<Known>> = Arc::new((0..PREFIXES).map(|_| Known::default()).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let registering = {
        let (known, stop) = (Arc::clone(&known), Arc::clone(&stop));
        thread::spawn(move || keep_registering(3, &known, &stop))
    };
    while known.iter().any(|known| known.acknowledged.lock().expect("no panic").is_empty()) {
        assert!(!registering.is_finished(), "registering ended");
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(SPREAD);
    let asking: Vec<_> = (0..2)
        .map(|seed| {
            let (known, stop) = (Arc::clone(&known), Arc::clone(&stop));
            thread::spawn(move || keep_asking(3, seed, &known, &stop))
        })
        .collect();
    for victim in [2, 0, 3, 1, 4] {
        lab.kill(victim);
        println!("killed {victim}");
        thread::sleep(Duration::from_millis(2_500));
        lab.restart(victim);
        thread::sleep(Duration::from_millis(2_000));
    }
    stop.store(true, Ordering::Relaxed);
    let (registered, repeated) = registering.join().expect("every Map-Register is acknowledged");
    let mut asked = 0;
    for thread in asking {
        asked += thread.join().expect("every lookup is answered, and right");
    }
    println!(
        "{registered} registrations acknowledged ({repeated} repeated), {asked} lookups answered"
    );
    // In the end both know everything, and the replays were refused as such.
    let mut itr = Itr::new(3);
    for (number, known) in known.iter().enumerate() {
        let last = known.sent.load(Ordering::Relaxed) as u32;
        itr.expect(number, 0, last);
        itr.expect(number, 1, last);
    }
    for at in 0..2 {
        let drops = lab.server(at).ask(&Query::Drops).expect("drops").to_string();
        assert!(drops.contains("\"replayed\""), "{drops}");
    }
    assert!(registered > 100 && asked > 200, "{registered} {asked}");
}

/// One registration after the other, at one Map-Server, then the other; what was accepted before is replayed to the other one.
fn keep_registering(test: u8, known: &[Known], stop: &AtomicBool) -> (u64, u64) {
    let mut etr = Etr::new(test);
    let (mut registered, mut repeated, mut generation) = (0, 0, 0);
    let mut before: Option<Vec<u8>> = None;
    while !stop.load(Ordering::Relaxed) {
        generation += 1;
        let number = generation as usize % known.len();
        let home = generation as usize / known.len();
        let started = Instant::now();
        let mut sent = Vec::new();
        let acknowledged = (0..TRIES).any(|attempt| {
            known[number].sent.store(generation.into(), Ordering::Relaxed);
            repeated += u64::from(attempt > 0);
            sent = etr.register(number, generation);
            etr.send(&sent, (home + attempt) % 2, RETRY)
        });
        assert!(acknowledged, "{generation} is not acknowledged after {:?}", started.elapsed());
        registered += 1;
        known[number].acknowledged.lock().expect("no panic").push((generation, Instant::now()));
        if let Some(before) = before.replace(sent) {
            etr.socket.send_to(&before, server(test, (home + 1) % 2)).expect("sent");
        }
        thread::sleep(Duration::from_millis(10));
    }
    (registered, repeated)
}

/// One lookup after the other, at one Map-Server and then the other.
fn keep_asking(test: u8, seed: usize, known: &[Known], stop: &AtomicBool) -> u64 {
    let mut itr = Itr::new(test);
    itr.turn = seed as u64 * 1_000_000;
    let mut asked = 0;
    while !stop.load(Ordering::Relaxed) {
        let turn = seed + asked as usize;
        let (number, home) = (turn % known.len(), turn / known.len());
        let started = Instant::now();
        let least = known[number].least(started);
        let answer = (0..TRIES).find_map(|attempt| itr.ask(number, (home + attempt) % 2, RETRY));
        let took = started.elapsed();
        let answer = answer.unwrap_or_else(|| panic!("no answer about {number} after {took:?}"));
        let most = known[number].sent.load(Ordering::Relaxed) as u32;
        assert!(
            (least..=most).contains(&answer),
            "{number}: {answer}, not {least} to {most}, after {took:?}"
        );
        asked += 1;
        thread::sleep(Duration::from_millis(20));
    }
    asked
}
