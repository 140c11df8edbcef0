//! `kill -9` a hundred times while sites register: what was acknowledged is known after the restart, and no older nonce is accepted.
//!
//! Every registration has its nonce in its locator, so that an answer tells which registration it comes from.

use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gateway::admin::client;
use interop_tests::daemon::program;
use mapping::admin::Query;
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, LocatorRecord,
    MapNotify, MapRegister, MapReply, MapRequest, Message, RequestedEid,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;

const KILLS: usize = 100;
const SITES: usize = 10_000;
/// Registrations per second.
const RATE: f64 = 10_000.0;
/// Addresses of the xTRs: each stays below what one source may send.
const XTRS: usize = 20;
/// How long the daemon lives once it has shown what it knows, milliseconds.
const LIFE: std::ops::Range<u64> = 100..200;
/// Sites that are asked for after each start.
const ASKED: usize = 128;
/// Messages on their way at a time: fewer than any socket buffer holds.
const WINDOW: usize = 64;
/// How long an answer may take before the question is asked again.
const AGAIN: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);
/// Processor time that the middle one of all restarts may take until the first right answer.
const RESTART: Duration = Duration::from_secs(1);
const SECRET: &str = "a-secret-for-tests-only";

#[test]
fn au_16_au_17_ms_24_a_hundred_kills_lose_nothing_and_let_no_replay_in() {
    let mut world = World::new().expect("sockets and files");
    let (mut restarts, mut costs) = (Vec::new(), Vec::new());
    let mut replays = 0;
    let (mut registered, mut lived) = (0, Duration::ZERO);
    let start = Instant::now();
    for life in 0..=KILLS {
        let daemon = world.start(life == 0).expect("the daemon starts");
        if life > 0 {
            restarts.push(daemon.until_answer);
            costs.push(daemon.processor_time().expect("its processor time"));
            world.check_some();
            replays += world.replay(&daemon);
        }
        if life < KILLS {
            world.recent.clear();
            let time = Duration::from_millis(world.rng.random_range(LIFE));
            let before = world.acknowledgements;
            lived += world.register_for(time);
            daemon.kill();
            world.drain();
            registered += world.acknowledgements - before;
        } else {
            let known = world.check_all();
            println!("{known} sites were known at the end");
        }
    }
    restarts.sort();
    costs.sort();
    println!(
        "{KILLS} kills in {:?}: {registered} registrations acknowledged in {lived:?} ({:.0} per second), {replays} replays refused, \
         right answers after {:?} (middle), {:?} (longest), of processor time {:?}",
        start.elapsed(),
        registered as f64 / lived.as_secs_f64(),
        restarts[KILLS / 2],
        restarts[KILLS - 1],
        costs[KILLS / 2],
    );
    // On a machine with other work the time of day says nothing.
    assert!(costs[KILLS / 2] < RESTART, "{costs:?}");
}

/// A daemon that answers.
struct Daemon {
    child: Child,
    socket: std::path::PathBuf,
    until_answer: Duration,
}

impl Daemon {
    /// As `kill -9`.
    fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }

    /// What it used of the processors so far.
    fn processor_time(&self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // After the name: state, ten numbers, then user and system time in hundredths of a second.
        let fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let ticks: u64 =
            fields.skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        Ok(Duration::from_millis(10 * ticks))
    }

    /// How many Map-Registers were refused because of their nonce.
    fn replays(&self) -> u64 {
        let drops = client::ask(&self.socket, &Query::Drops).expect("an answer");
        let replayed = drops.as_array().expect("a list").iter().find(|d| d["reason"] == "replayed");
        replayed.and_then(|drop| drop["count"].as_u64()).unwrap_or(0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the sites know of their registrations.
#[derive(Clone, Copy, Debug, Default)]
struct Site {
    sent: u64,
    acknowledged: u64,
    /// The one acknowledged before.
    earlier: u64,
}

struct World {
    directory: TempDir,
    server: SocketAddr,
    xtrs: Vec<UdpSocket>,
    secret: Secret,
    sites: Vec<Site>,
    /// The site of each nonce; nonces are even, so that there is an unused one before each.
    site_of: Vec<usize>,
    next_site: usize,
    /// Counts questions.
    turn: usize,
    /// Sites that were acknowledged since the last start.
    recent: Vec<usize>,
    acknowledgements: u64,
    rng: StdRng,
}

impl World {
    fn new() -> io::Result<Self> {
        let [.., high, low] = std::process::id().to_be_bytes();
        let own =
            |host: usize| -> IpAddr { Ipv4Addr::new(127, high | 128, low, host as u8).into() };
        let bind = |number| {
            let socket = UdpSocket::bind((own(100 + number), CONTROL_PORT))?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let world = Self {
            directory: TempDir::new()?,
            server: SocketAddr::new(own(50), CONTROL_PORT),
            xtrs: (0..XTRS).map(bind).collect::<io::Result<_>>()?,
            secret: Secret::new(SECRET.as_bytes().to_vec()),
            sites: vec![Site::default(); SITES],
            site_of: vec![0],
            next_site: 0,
            turn: 0,
            recent: Vec::new(),
            acknowledgements: 0,
            rng: StdRng::seed_from_u64(9),
        };
        let path = |name: &str| world.directory.path().join(name);
        fs::create_dir(path("state"))?;
        fs::write(path("site.key"), SECRET)?;
        let mut text = format!(
            "[mapping]\nlisten = [\"{}\"]\nregistration-timeout = \"1h\"\nstate-dir = \"state\"\n",
            world.server.ip()
        );
        for site in 0..SITES {
            text += &format!(
                "[[site]]\nname = \"s{site}\"\nkeys = [{{ id = 1, file = \"site.key\" }}]\neid-prefixes = [\"{}\"]\n",
                prefix(site).prefix()
            );
        }
        fs::write(path("mapping.toml"), text)?;
        Ok(world)
    }

    /// Starts the daemon and waits for its first answer, which has to be right.
    fn start(&mut self, is_first: bool) -> io::Result<Daemon> {
        let directory = self.directory.path().to_owned();
        let path = |name: &str| directory.join(name);
        let log = File::create(path("log"))?;
        let program = program()?;
        let start = Instant::now();
        let child = Command::new(program)
            .args(["mapping", "--log", "warn", "--config"])
            .arg(path("mapping.toml"))
            .arg("--socket")
            .arg(path("socket"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let socket = path("socket");
        let mut daemon = Daemon { child, socket, until_answer: Duration::ZERO };
        let site = self.recent.last().copied().unwrap_or(0);
        while self.ask(&[site]).is_empty() {
            if start.elapsed() > PATIENCE || daemon.child.try_wait()?.is_some() {
                let log = fs::read_to_string(path("log"))?;
                return Err(io::Error::other(format!("no answer, log: {log}")));
            }
        }
        daemon.until_answer = start.elapsed();
        assert!(is_first || self.sites[site].acknowledged > 0);
        Ok(daemon)
    }

    /// Registers site after site for a while; returns how long it took.
    fn register_for(&mut self, time: Duration) -> Duration {
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < time {
            let due = (start.elapsed().as_secs_f64() * RATE) as usize;
            let burst = due.saturating_sub(sent).min(WINDOW);
            for _ in 0..burst {
                self.register_next();
            }
            sent += burst;
            self.drain();
            std::thread::sleep(Duration::from_micros(200));
        }
        start.elapsed()
    }

    fn register_next(&mut self) -> usize {
        let site = self.next_site;
        self.next_site = (site + 1) % SITES;
        self.site_of.push(site);
        let nonce = 2 * (self.site_of.len() as u64 - 1);
        self.sites[site].sent = nonce;
        self.send(site, &self.map_register(site, nonce));
        site
    }

    /// What was not acknowledged may be known, what was acknowledged has to be.
    fn check_some(&mut self) {
        let newest = self.recent.iter().rev().skip(1).take(ASKED / 2).copied();
        let mut asked: Vec<usize> = newest.collect();
        asked.extend((0..ASKED / 2).map(|_| self.rng.random_range(0..SITES)));
        self.check(asked);
    }

    fn check_all(&mut self) -> usize {
        self.check((0..SITES).collect());
        self.sites.iter().filter(|site| site.acknowledged > 0).count()
    }

    fn check(&mut self, mut left: Vec<usize>) {
        let deadline = Instant::now() + PATIENCE;
        while !left.is_empty() {
            assert!(Instant::now() < deadline, "{} questions were not answered", left.len());
            let now: Vec<usize> = left.iter().take(WINDOW).copied().collect();
            let answered = self.ask(&now);
            left.retain(|site| !answered.contains(site));
        }
    }

    /// Asks for `sites` and returns those of which a right answer came.
    fn ask(&mut self, sites: &[usize]) -> Vec<usize> {
        self.turn += 1;
        for &site in sites {
            // An ITR does not get the same Map-Reply twice in a short time (RP-15).
            let itr = (site + self.turn) % XTRS;
            self.send(itr, &self.map_request(site, itr));
        }
        let deadline = Instant::now() + AGAIN;
        let mut answered = Vec::new();
        while Instant::now() < deadline && sites.iter().any(|site| !answered.contains(site)) {
            let before = answered.len();
            self.receive(|world, message| {
                if let Message::MapReply(reply) = message {
                    answered.push(world.check_reply(&reply));
                }
            });
            if answered.len() == before {
                std::thread::sleep(Duration::from_micros(500));
            }
        }
        answered
    }

    fn check_reply(&self, reply: &MapReply) -> usize {
        let number = reply.nonce as usize;
        let site = self.sites[number];
        let record = &reply.records[0];
        let found = record.locators.first().and_then(|locator| locator.address.rloc());
        let Some(IpAddr::V6(locator)) = found else {
            assert_eq!(site.acknowledged, 0, "site {number} is lost: {record:?}");
            return number;
        };
        let nonce = locator.to_bits() as u64;
        assert!(nonce >= site.acknowledged, "site {number} is as before {site:?}: {nonce}");
        assert!(
            nonce <= site.sent && nonce.is_multiple_of(2),
            "site {number}, {nonce}: a replay came in"
        );
        number
    }

    /// Sends of every site that was acknowledged lately the Map-Register before, and one with the nonce just before the
    /// acknowledged one; returns how many were refused, which has to be all.
    fn replay(&mut self, daemon: &Daemon) -> u64 {
        let mut replays = Vec::new();
        for &number in &self.recent {
            let site = self.sites[number];
            replays.push((number, site.acknowledged - 1));
            if site.earlier > 0 {
                replays.push((number, site.earlier));
            }
        }
        for window in replays.chunks(WINDOW) {
            for &(site, nonce) in window {
                self.send(site, &self.map_register(site, nonce));
            }
            self.wait_for_acknowledgement();
        }
        let sent = replays.len() as u64;
        assert_eq!(daemon.replays(), sent, "replays refused");
        sent
    }

    /// A new registration is acknowledged: everything that was sent before has been looked at.
    fn wait_for_acknowledgement(&mut self) {
        let site = self.register_next();
        let nonce = self.sites[site].sent;
        let deadline = Instant::now() + PATIENCE;
        while self.sites[site].acknowledged != nonce {
            assert!(Instant::now() < deadline, "no acknowledgement");
            std::thread::sleep(Duration::from_micros(200));
            self.drain();
        }
    }

    fn drain(&mut self) {
        self.receive(|world, message| {
            if let Message::MapNotify(notify) = message {
                world.acknowledged(&notify);
            }
        });
    }

    fn acknowledged(&mut self, notify: &MapNotify) {
        let nonce = notify.nonce;
        assert!(nonce.is_multiple_of(2), "a nonce before the last one was accepted");
        let number = self.site_of[nonce as usize / 2];
        let site = &mut self.sites[number];
        assert!(nonce > site.acknowledged, "site {number}: {nonce} was accepted again, {site:?}");
        site.earlier = site.acknowledged;
        site.acknowledged = nonce;
        self.acknowledgements += 1;
        self.recent.push(number);
    }

    fn receive(&mut self, mut each: impl FnMut(&mut Self, Message)) {
        let mut buffer = [0; 2_048];
        for number in 0..self.xtrs.len() {
            loop {
                match self.xtrs[number].recv(&mut buffer) {
                    Ok(length) => each(self, Message::parse(&buffer[..length]).expect("a message")),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    fn send(&self, xtr: usize, message: &[u8]) {
        // A full queue is a lost message, as anywhere.
        let _ = self.xtrs[xtr % XTRS].send_to(message, self.server);
    }

    fn map_register(&self, site: usize, nonce: u64) -> Vec<u8> {
        let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(nonce));
        let mut locator = LocatorRecord::new(IpAddr::V6(address), 1, 100);
        locator.reachable = true;
        let algorithm = Algorithm::HmacSha256;
        let mut octets = Vec::new();
        MapRegister {
            proxy_reply: true,
            security_capable: false,
            eid_notify: false,
            use_ttl: false,
            merge: false,
            want_map_notify: true,
            nonce,
            authentication: AuthenticationData::zeroed(1, algorithm.id(), auth::MAC_LEN),
            records: vec![EidRecord::new(prefix(site), 1_440, vec![locator])],
            identity: None,
        }
        .encode(&mut octets);
        auth::sign(&mut octets, &self.secret, algorithm)
            .expect("a message made here can be signed");
        octets
    }

    /// Its nonce is the number of the site.
    fn map_request(&self, site: usize, itr: usize) -> Vec<u8> {
        let eid = prefix(site).first();
        let itr = self.xtrs[itr].local_addr().expect("an address").ip();
        let asked = vec![RequestedEid::new(eid.host_prefix())];
        let (mut message, mut octets) = (Vec::new(), Vec::new());
        MapRequest::new(site as u64, vec![itr.into()], asked).encode(&mut message);
        let source = SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), CONTROL_PORT);
        EncapsulatedControlMessage::new(
            source,
            SocketAddr::new(eid.address, CONTROL_PORT),
            message,
        )
        .encode(&mut octets);
        octets
    }
}

/// The EID-prefix of a site.
fn prefix(site: usize) -> EidPrefix {
    let prefix = format!("10.{}.{}.0/24", site >> 8, site & 255);
    EidPrefix::new(InstanceId::DEFAULT, prefix.parse().expect("a prefix"))
}
