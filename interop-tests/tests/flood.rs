//! Random and damaged packets at the ports of running daemons: none crashes, none changes what it knows, each packet is counted.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use interop_tests::captures::{control_datagrams, datagrams};
use interop_tests::daemon::Daemon;
use interop_tests::mutate;
use mapping::admin::Query;
use mapping::wire::{CONTROL_PORT, DATA_PORT};
use nix::unistd::Uid;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Packets per daemon and port; a daemon with both ports takes a million.
const PACKETS: u64 = 500_000;
/// Packets on their way at a time: fewer than any socket buffer holds, so that the kernel drops none.
const WINDOW: u64 = 128;
/// Source addresses, so that the limit per source does not shield the parsers.
const SOURCES: u8 = 100;
/// How long a daemon may take to count a window.
const PATIENCE: Duration = Duration::from_secs(20);

const GATEWAY: &str = r#"
[gateway]
rlocs = ["198.51.100.1", "2001:db8:c0::1"]
map-resolvers = ["198.51.100.2"]
tun = { name = "isthmus0", queues = 1 }
[pitr]
eid-aggregates = ["2001:db8:e000::/36", "203.0.113.0/24", "172.16.0.0/12"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24", "2001:db8:c0::/48"], eids = ["2001:db8:e000::/36", "203.0.113.0/24", "172.16.0.0/12"] }
[rtr]
eid-prefixes = ["172.16.0.0/12"]
"#;

const XTR: &str = r#"
[xtr]
rlocs = { core4 = { address = "198.51.100.1" }, core6 = { address = "2001:db8:c0::1" } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
tun = { name = "isthmus0", queues = 1 }
[[eid]]
prefix = "172.16.2.0/24"
interfaces = ["lan0"]
[[eid]]
prefix = "2001:db8:e2::/64"
interfaces = ["lan0"]
"#;

const MAPPING: &str = r#"
[mapping]
listen = ["198.51.100.1", "2001:db8:c0::1"]
[[site]]
name = "a"
keys = [{ id = 0, file = "KEY" }, { id = 1, file = "KEY" }]
eid-prefixes = [{ prefix = "172.16.0.0/12", accept-more-specifics = true }, { prefix = "2001:db8::/32", accept-more-specifics = true }]
"#;

#[test]
fn cw_21_a_gateway_stands_a_million_damaged_packets() {
    stand("gateway", GATEWAY, &[CONTROL_PORT, DATA_PORT], PACKETS);
}

#[test]
fn cw_21_an_xtr_stands_a_million_damaged_packets() {
    stand("xtr", XTR, &[CONTROL_PORT, DATA_PORT], PACKETS);
}

#[test]
fn cw_21_a_mapping_system_stands_a_million_damaged_packets() {
    stand("mapping", MAPPING, &[CONTROL_PORT], 2 * PACKETS);
}

fn stand(role: &'static str, config: &str, ports: &[u16], packets: u64) {
    if !Uid::effective().is_root() {
        println!("SKIP: making a network namespace needs root");
        return;
    }
    let namespace = host().expect("a namespace with addresses");
    let mut daemon = Daemon::start(&namespace, role, config).expect("the daemon starts");
    let known = knowledge(&daemon, role);
    for &port in ports {
        flood(&namespace, &daemon, port, packets).unwrap_or_else(|error| {
            panic!("{role}, port {port}: {error}\n{}", daemon.log());
        });
        assert!(!daemon.has_ended(), "{role} crashed:\n{}", daemon.log());
    }
    assert_eq!(knowledge(&daemon, role), known, "{role} learned something");
}

/// A namespace that has the daemon's addresses, those of the senders, and a site interface.
fn host() -> io::Result<Namespace> {
    let namespace = Namespace::create("flood")?;
    let parse = |text: &str| text.parse().map_err(io::Error::other);
    link::up(&namespace, "lo")?;
    link::connect(1500, (&namespace, "lan0"), (&namespace, "lan1"))?;
    link::up(&namespace, "lan0")?;
    for address in ["198.51.100.1/32", "2001:db8:c0::1/128", "2001:db8:c0::99/128"] {
        link::address(&namespace, "lo", parse(address)?)?;
    }
    for source in 0..SOURCES {
        link::address(&namespace, "lo", parse(&format!("198.51.100.{}/32", 100 + source))?)?;
    }
    for address in ["172.16.2.1/24", "2001:db8:e2::1/64"] {
        link::address(&namespace, "lan0", parse(address)?)?;
    }
    Ok(namespace)
}

/// Everything the daemon knows that packets could change, without what time changes.
fn knowledge(daemon: &Daemon, role: &str) -> String {
    let query = if role == "mapping" { Query::Registrations } else { Query::MapCache };
    daemon.ask(&query).expect("an answer").to_string()
}

fn flood(namespace: &Namespace, daemon: &Daemon, port: u16, packets: u64) -> io::Result<()> {
    let corpus: Vec<Vec<u8>> = if port == CONTROL_PORT {
        control_datagrams().into_iter().map(|datagram| datagram.payload).collect()
    } else {
        datagrams(port).into_iter().map(|datagram| datagram.payload).collect()
    };
    let senders = namespace.run(senders)??;
    let mut rng = StdRng::seed_from_u64(u64::from(port));
    let before = Seen::by(daemon, port)?;
    let mut sent = 0;
    while sent < packets {
        for _ in 0..WINDOW {
            let (socket, target) = &senders[sent as usize % senders.len()];
            let packet = mutate::packet(&corpus, &mut rng);
            socket.send_to(&packet, SocketAddr::new(*target, port))?;
            sent += 1;
        }
        let deadline = Instant::now() + PATIENCE;
        while Seen::by(daemon, port)?.received - before.received < sent {
            if Instant::now() > deadline {
                let received = Seen::by(daemon, port)?.received - before.received;
                return Err(io::Error::other(format!("sent {sent}, counted {received}")));
            }
        }
    }
    let after = Seen::at_rest(daemon, port)?;
    assert_eq!(after.received - before.received, sent, "counted more than was sent");
    assert!(after.conserved, "packets went astray: {:?}", daemon.ask(&Query::Counters));
    assert!(after.dropped - before.dropped > sent / 2, "damaged packets are dropped for a reason");
    Ok(())
}

/// One socket per source, with the daemon's address of its family; every tenth datagram goes over IPv6.
fn senders() -> io::Result<Vec<(UdpSocket, IpAddr)>> {
    let target4 = IpAddr::from([198, 51, 100, 1]);
    let target6 = IpAddr::from([0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, 1]);
    let mut senders = Vec::new();
    for source in 0..SOURCES {
        let four = (IpAddr::from([198, 51, 100, 100 + source]), target4);
        let six = (IpAddr::from([0x2001, 0xdb8, 0xc0, 0, 0, 0, 0, 0x99]), target6);
        let (source, target) = if source % 10 == 9 { six } else { four };
        senders.push((UdpSocket::bind((source, 0))?, target));
    }
    Ok(senders)
}

/// What a daemon has counted.
struct Seen {
    received: u64,
    dropped: u64,
    conserved: bool,
}

impl Seen {
    /// As [`Self::by`], once the packets that are still on their way through have been counted.
    fn at_rest(daemon: &Daemon, port: u16) -> io::Result<Self> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = Self::by(daemon, port)?;
            if seen.conserved || Instant::now() > deadline {
                return Ok(seen);
            }
        }
    }

    fn by(daemon: &Daemon, port: u16) -> io::Result<Self> {
        let counters = daemon.ask(&Query::Counters)?;
        let of = |name: &str| counters[name].as_u64().unwrap_or_default();
        let drops = daemon.ask(&Query::Drops)?;
        let drops = drops.as_array().map(Vec::as_slice).unwrap_or_default();
        let all_drops = drops.iter().filter_map(|drop| drop["count"].as_u64()).sum();
        if port == CONTROL_PORT {
            let received = of("messages_received");
            return Ok(Self { received, dropped: all_drops, conserved: true });
        }
        let counted = counters.as_object().into_iter().flatten();
        let dropped = counted
            .filter(|(name, _)| name.starts_with("drop_"))
            .filter_map(|(_, count)| count.as_u64())
            .sum::<u64>();
        let into = of("native_in_packets") + of("core_in_packets") + of("fragments_created");
        let out = of("native_out_packets") + of("core_out_packets") + of("held");
        let conserved = into == out + dropped;
        Ok(Self { received: of("core_in_packets"), dropped, conserved })
    }
}
