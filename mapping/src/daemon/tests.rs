//! The daemon on loopback addresses that no other process uses.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::log::{EventLog, LOG_BURST, level};
use super::sockets::BIND_RETRY;
use super::*;
use crate::auth;
use crate::config::{Algorithm, Secret, Site, SiteKey, SitePrefix};
use crate::discard::Discard;
use crate::eid::{EidPrefix, InstanceId};
use crate::server::Event;
use crate::server::Refusal;
use crate::wire::CONTROL_PORT;
use crate::wire::{
    AuthenticationData, EidRecord, EncapsulatedControlMessage, LocatorRecord, MapNotify,
    MapRegister, MapReply, MapRequest, RequestedEid,
};

const PATIENCE: Duration = Duration::from_secs(20);
const MAX_DATAGRAM: usize = 65_535;

/// An address of 127/8 that belongs to this test of this process.
fn loopback(test: u8, host: u8) -> IpAddr {
    let process = std::process::id().to_be_bytes();
    let octet = |value: u8| value % 250 + 2;
    Ipv4Addr::new(
        127,
        octet(process[2] ^ process[1].rotate_left(4)),
        octet(process[3]),
        test * 10 + host,
    )
    .into()
}

fn prefix() -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, "2001:db8:e001::/48".parse().unwrap())
}

fn config(listen: IpAddr) -> MappingConfig {
    let key = SiteKey {
        id: 1,
        secret: Secret::new(b"secret".to_vec()),
        algorithms: vec![Algorithm::HmacSha256Hkdf],
    };
    let prefixes = vec![SitePrefix { prefix: prefix(), accept_more_specifics: false }];
    let mut config = MappingConfig::new("ms", vec![listen]);
    config.sites = vec![Site::new("a", vec![key], prefixes)];
    config
}

struct Running {
    requests: mpsc::Sender<Request>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<io::Result<()>>,
}

async fn start(config: MappingConfig) -> Running {
    let (requests, receiver) = mpsc::channel(4);
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, is_ready) = oneshot::channel();
    let shutdown = async {
        stopped.await.ok();
    };
    let task = tokio::spawn(run(config, receiver, shutdown, move || {
        ready.send(()).ok();
    }));
    timeout(PATIENCE, is_ready).await.unwrap().unwrap();
    Running { requests, stop, task }
}

impl Running {
    async fn query(&self, query: Query) -> Result<Value, String> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { query, after: None, reply }).await.unwrap();
        timeout(PATIENCE, answer).await.unwrap().unwrap().map(|part| part.view)
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

async fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let (length, from) = timeout(PATIENCE, socket.recv_from(&mut buffer)).await.unwrap().unwrap();
    buffer.truncate(length);
    (buffer, from)
}

fn map_register(etr: IpAddr) -> Vec<u8> {
    let mut locator = LocatorRecord::new(etr, 1, 100);
    locator.reachable = true;
    let mut octets = Vec::new();
    MapRegister {
        proxy_reply: true,
        security_capable: false,
        eid_notify: false,
        use_ttl: false,
        merge: false,
        want_map_notify: true,
        nonce: 77,
        authentication: AuthenticationData::zeroed(1, 3, auth::MAC_LEN),
        records: vec![EidRecord::new(prefix(), 1_440, vec![locator])],
        identity: None,
    }
    .encode(&mut octets);
    auth::sign(&mut octets, &Secret::new(b"secret".to_vec()), Algorithm::HmacSha256Hkdf).unwrap();
    octets
}

#[tokio::test]
async fn ms_05_ms_14_registers_and_answers_over_udp() {
    let (server, etr) = (loopback(1, 1), loopback(1, 2));
    let running = start(config(server)).await;
    let control = UdpSocket::bind((etr, CONTROL_PORT)).await.unwrap();
    let other = UdpSocket::bind((etr, 0)).await.unwrap();

    other.send_to(&map_register(etr), (server, CONTROL_PORT)).await.unwrap();
    let (octets, from) = receive(&control).await;
    assert_eq!(from, SocketAddr::new(server, CONTROL_PORT));
    assert_eq!(MapNotify::parse(&octets).unwrap().nonce, 77);

    let mut message = Vec::new();
    let eid = EidPrefix::new(InstanceId::DEFAULT, "2001:db8:e001::1/128".parse().unwrap());
    MapRequest::new(5, vec![etr.into()], vec![RequestedEid::new(eid)]).encode(&mut message);
    let mut ecm = Vec::new();
    EncapsulatedControlMessage::new(
        SocketAddr::new("2001:db8::5".parse().unwrap(), other.local_addr().unwrap().port()),
        SocketAddr::new(eid.first().address, CONTROL_PORT),
        message,
    )
    .encode(&mut ecm);
    other.send_to(&ecm, (server, CONTROL_PORT)).await.unwrap();
    let (octets, from) = receive(&other).await;
    assert_eq!(from, SocketAddr::new(server, CONTROL_PORT));
    let reply = MapReply::parse(&octets).unwrap();
    assert_eq!((reply.nonce, reply.records[0].eid.prefix()), (5, Some(prefix())));

    let registrations = running.query(Query::Registrations).await.unwrap();
    assert_eq!(registrations[0]["site"], "a");
    assert_eq!(running.query(Query::Sites).await.unwrap()[0]["registered"], 1);
    assert_eq!(running.query(Query::Counters).await.unwrap()["map_replies_sent"], 1);
    assert_eq!(running.query(Query::Drops).await.unwrap(), serde_json::json!([]));
    assert_eq!(running.query(Query::Status).await.unwrap()["healthy"], true);
    assert!(running.query(Query::MapCache).await.is_err());
    let events = running.query(Query::Events { after: None }).await.unwrap();
    let event = &events["events"][0];
    assert_eq!(
        (&event["kind"], &event["subject"]),
        (&"registered".into(), &prefix().to_string().into())
    );
    let metrics = running.query(Query::Metrics).await.unwrap();
    let registrations = serde_json::json!({
        "metric": "site_registrations", "labels": {"site": "a"}, "value": 1.0,
    });
    assert_eq!(metrics["series"][0], registrations);
    let history = Query::History { counters: vec!["map_replies_sent".to_owned()] };
    assert_eq!(running.query(history).await.unwrap()["rings"].as_array().unwrap().len(), 3);
    running.stop().await;
}

#[tokio::test]
async fn a_port_in_use_is_waited_for() {
    let server = loopback(2, 1);
    let earlier = UdpSocket::bind((server, CONTROL_PORT)).await.unwrap();
    let starting = tokio::spawn(start(config(server)));
    tokio::time::sleep(BIND_RETRY * 2).await;
    drop(earlier);
    timeout(PATIENCE, starting).await.unwrap().unwrap().stop().await;
}

#[tokio::test]
async fn no_address_is_an_error() {
    let (_requests, receiver) = mpsc::channel(1);
    let mut nothing = config(loopback(3, 1));
    nothing.listen.clear();
    let error = run(nothing, receiver, std::future::pending(), || {}).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
}

/// Datagrams with a checksum that is right, absent and wrong, through a raw socket, since the kernel fills it otherwise.
#[tokio::test]
async fn cw_05_only_a_right_checksum_is_accepted() {
    let (server, peer) = (loopback(5, 1), loopback(5, 2));
    let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
        return println!("SKIP: a raw socket needs privilege");
    };
    raw.bind(&SocketAddr::new(peer, 0).into()).unwrap();
    let running = start(config(server)).await;
    let right = udp(peer, server, None);
    let zero = udp(peer, server, Some(0));
    let wrong = udp(peer, server, Some(u16::from_be_bytes([right[6], right[7]]) ^ 0x0101));
    let to = SocketAddr::new(server, 0).into();
    for datagram in [&zero, &wrong, &right, &zero, &wrong, &right] {
        raw.send_to(datagram, &to).unwrap();
    }
    let received = async {
        loop {
            let counters = running.query(Query::Counters).await.unwrap();
            match counters["messages_received"].as_u64() {
                Some(count) if count >= 2 => break count,
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, received).await.unwrap(), 2);
    running.stop().await;
}

/// Over IPv4 too, where a socket may leave it out.
#[tokio::test]
async fn cw_04_what_is_sent_has_a_checksum() {
    let (server, peer) = (loopback(9, 1), loopback(9, 2));
    let Ok(raw) = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::UDP)) else {
        return println!("SKIP: a raw socket needs privilege");
    };
    raw.set_read_timeout(Some(PATIENCE)).unwrap();
    let sockets = Sockets::bind(&[server]).await.unwrap();
    let receiver = UdpSocket::bind((peer, CONTROL_PORT)).await.unwrap();
    for bound in &sockets.bound {
        bound.socket.send_to(b"with", receiver.local_addr().unwrap()).await.unwrap();
        let port = bound.local.port().to_be_bytes();
        let mut packet = [0; 2_000];
        let sum = loop {
            let length = io::Read::read(&mut &raw, &mut packet).unwrap();
            let (source, udp) = (packet[12..16].first_chunk::<4>(), &packet[20..length]);
            if source.is_some_and(|&source| IpAddr::from(source) == server) && udp[..2] == port {
                break [udp[6], udp[7]];
            }
        };
        assert_ne!(sum, [0, 0], "none was computed");
    }
}

/// A UDP datagram from and to port 4342 with an unsupported message, checksummed unless `checksum` says otherwise.
fn udp(from: IpAddr, to: IpAddr, checksum: Option<u16>) -> Vec<u8> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from, to) else { unreachable!("loopback is IPv4") };
    let mut datagram = Vec::new();
    for field in [CONTROL_PORT, CONTROL_PORT, 12, 0, 0x9000, 0] {
        datagram.extend_from_slice(&field.to_be_bytes());
    }
    let pseudo = [from.octets().as_slice(), &to.octets(), &[0, 17, 0, 12]].concat();
    let words = pseudo.chunks(2).chain(datagram.chunks(2));
    let mut sum: u32 = words.map(|word| u32::from(u16::from_be_bytes([word[0], word[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = checksum.unwrap_or(!(sum as u16));
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    datagram
}

#[test]
fn cw_38_events_beyond_the_rate_are_counted_not_logged() {
    let (mut log, now) = (EventLog::default(), Instant::now());
    let event = Event::NotifyUnacknowledged { prefix: prefix(), destination: loopback(4, 1) };
    for _ in 0..LOG_BURST + 7 {
        log.write(now, &event);
    }
    assert_eq!(log.suppressed, 7);
}

#[test]
fn cw_07_cw_10_cw_11_what_must_be_logged_is_a_warning() {
    let level_of = |reason| level(&Event::Discarded { source: loopback(4, 1), reason });
    for reason in [Discard::UnknownAfi, Discard::UnsupportedEid, Discard::UnknownVendor] {
        assert_eq!(level_of(reason), tracing::Level::WARN);
    }
    assert_eq!(level_of(Discard::Truncated), tracing::Level::DEBUG);
}

#[test]
fn cw_38_a_flood_of_forgeries_does_not_hide_what_happens() {
    let (mut log, now) = (EventLog::default(), Instant::now());
    let (source, reason) = (loopback(4, 1), Discard::AuthenticationFailed);
    let refusal = Refusal { site: None, prefix: Some(prefix()), source, reason, subject: None };
    for _ in 0..LOG_BURST + 7 {
        log.write(now, &Event::Refused(refusal.clone()));
    }
    log.write(now, &Event::Expired { site: "a".into(), prefix: prefix(), source });
    assert_eq!(log.suppressed, 0, "told with the event that was logged");
}

/// More than one burst can hold, from two senders at once, in runs that the kernel coalesces and one by one.
#[tokio::test]
async fn every_datagram_of_a_burst_is_handled_and_answered() {
    const PER_SENDER: usize = 300;
    let server = loopback(6, 1);
    let running = start(config(server)).await;
    let senders = [loopback(6, 2), loopback(6, 3)];
    let mut sockets = Vec::new();
    for etr in senders {
        let socket = UdpSocket::bind((etr, CONTROL_PORT)).await.unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20).unwrap();
        sockets.push(socket);
    }
    for (etr, socket) in senders.iter().zip(&sockets) {
        let message = map_register(*etr);
        let run: Vec<u8> = message.repeat(20);
        let size = message.len() as u16;
        let control = [nix::sys::socket::ControlMessage::UdpGsoSegments(&size)];
        let to = nix::sys::socket::SockaddrStorage::from(SocketAddr::new(server, CONTROL_PORT));
        for _ in 0..PER_SENDER / 30 {
            let (slices, flags) = ([io::IoSlice::new(&run)], nix::sys::socket::MsgFlags::empty());
            socket.writable().await.unwrap();
            nix::sys::socket::sendmsg(socket.as_raw_fd(), &slices, &control, flags, Some(&to))
                .unwrap();
            for _ in 0..10 {
                socket.send_to(&message, (server, CONTROL_PORT)).await.unwrap();
            }
        }
    }
    for socket in &sockets {
        let mut acknowledged = 0;
        while acknowledged < PER_SENDER {
            let (octets, from) = receive(socket).await;
            assert_eq!(from, SocketAddr::new(server, CONTROL_PORT));
            // The first sender is also told that the second one took its place.
            acknowledged += usize::from(MapNotify::parse(&octets).unwrap().nonce == 77);
        }
    }
    let counters = running.query(Query::Counters).await.unwrap();
    assert_eq!(counters["messages_received"], 2 * PER_SENDER);
    assert!(counters["messages_sent"].as_u64().unwrap() >= 2 * PER_SENDER as u64);
    assert_eq!(counters["map_notifies_sent"], 2 * PER_SENDER);
    assert_eq!(counters["receive_queue_drops"], 0);
    assert!(counters["receive_bursts"].as_u64().unwrap() < 2 * PER_SENDER as u64);
    running.stop().await;
}

/// The log of a daemon whose network went away must not fill the disk.
#[test]
fn cw_38_failed_sends_beyond_the_rate_are_counted_not_logged() {
    let (mut log, now) = (EventLog::default(), Instant::now());
    let to = SocketAddr::new(loopback(4, 1), CONTROL_PORT);
    for _ in 0..LOG_BURST + 7 {
        log.send_failed(now, to, &io::ErrorKind::NetworkUnreachable.into());
    }
    assert_eq!(log.suppressed, 7);
}
