use super::*;
use ::mapping::wire::LocatorRecord;

fn eid() -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, "203.0.113.1/32".parse().expect("an EID"))
}

#[test]
fn eids_and_resolvers_are_parsed() {
    let eid = |text: &str| Target::Eid(text.parse().unwrap());
    assert_eq!(parse_target("2001:db8:e001::1"), Ok(eid("2001:db8:e001::1/128")));
    assert_eq!(parse_target("203.0.113.77/26"), Ok(eid("203.0.113.64/26")));
    assert_eq!(parse_target("example"), Ok(Target::Name("example".to_owned())));
    let address = "198.51.100.2".parse().unwrap();
    assert_eq!(parse_resolver("@198.51.100.2"), Ok(Endpoint::Address(address)));
    assert_eq!(parse_resolver("@mr"), Ok(Endpoint::Name("mr".to_owned())));
    assert!(parse_resolver("mr").is_err());
    assert!(parse_resolver("@").is_err());
}

#[test]
fn op_02_the_request_is_an_ecm_with_the_reply_s_port_inside() {
    let own: SocketAddr = "127.0.0.1:4000".parse().unwrap();
    let octets = Message::Encapsulated(encapsulated_request(eid(), own, 7)).to_vec();
    let Ok(Message::Encapsulated(ecm)) = Message::parse(&octets) else { panic!("no ECM") };
    assert_eq!(ecm.source, own);
    assert_eq!(ecm.destination.to_string(), "203.0.113.1:4342");
    let request = ecm.map_request().unwrap();
    assert_eq!(request.nonce, 7);
    assert_eq!(request.rlocs().collect::<Vec<_>>(), [own.ip()]);
    assert_eq!(request.records, [RequestedEid::new(eid())]);
}

/// Answers like a Map-Resolver would, from a port of its own, to the inner source.
#[test]
fn op_02_a_reply_is_matched_by_nonce_and_timed() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let to = socket.local_addr().unwrap();
    let prefix = EidPrefix::new(InstanceId::DEFAULT, "203.0.113.0/26".parse().unwrap());
    let rloc: IpAddr = "198.51.100.11".parse().unwrap();
    let record = EidRecord::new(prefix, 1440, vec![LocatorRecord::new(rloc, 1, 100)]);
    for (nonce, ttl_minutes) in [(1, 1), (2, 1440)] {
        let record = EidRecord { ttl_minutes, ..record.clone() };
        let mut octets = Vec::new();
        MapReply::new(nonce, vec![record]).encode(&mut octets);
        server.send_to(b"noise", to).unwrap();
        server.send_to(&octets, to).unwrap();
    }
    let now = Instant::now();
    let sent = |nonce| [Sent { nonce, at: now, otk: None }];
    let mut refused = None;
    let until = now + Duration::from_secs(5);
    let reply = wait_for_reply(&socket, &sent(2), until, &mut refused).unwrap().unwrap();
    assert_eq!(reply.records[0].ttl_minutes, 1440, "not the one with another nonce");
    assert_eq!(reply.source, server.local_addr().unwrap());
    let until = Instant::now() + Duration::from_millis(20);
    let nothing = wait_for_reply(&socket, &sent(3), until, &mut refused);
    assert!(nothing.unwrap().is_none());
}

#[test]
fn op_02_the_reply_is_printed_with_round_trip_time_and_source() {
    let prefix = EidPrefix::new(InstanceId::DEFAULT, "203.0.113.0/26".parse().unwrap());
    let rloc: IpAddr = "198.51.100.11".parse().unwrap();
    let positive = EidRecord::new(prefix, 1440, vec![LocatorRecord::new(rloc, 1, 100)]);
    let negative = EidRecord::negative(prefix, Action::NativelyForward, 15);
    let found = Found {
        eid: eid(),
        map_resolver: "198.51.100.2".parse().unwrap(),
        source: "198.51.100.3:4342".parse().unwrap(),
        tries: 2,
        rtt_micros: 412,
        secured: false,
        records: [&positive, &negative].map(found_record).into(),
    };
    let expected = "\
203.0.113.1/32: reply from 198.51.100.3 in 0.412 ms, 2 tries, Map-Resolver 198.51.100.2, secured: no
203.0.113.0/26, ttl 1440 min, not authoritative
  Locator        State  Pri/Wgt
  198.51.100.11  up       1/100
203.0.113.0/26, ttl 15 min, not authoritative, negative, action natively-forward
";
    assert_eq!(found.text(), expected);
    let json = serde_json::to_value(&found).unwrap();
    assert_eq!(json["rtt_micros"], 412);
    assert_eq!(json["records"][0]["locators"][0]["address"], "198.51.100.11");
    assert_eq!(json["records"][1]["action"], "natively-forward");
}

/// A loopback address that no other process of this kind uses at the same time.
fn own_loopback(last: u8) -> IpAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, high | 64, low, last])
}

#[test]
fn op_02_silence_is_reported_after_the_tries() {
    let resolver = own_loopback(1);
    let silent = UdpSocket::bind((resolver, CONTROL_PORT)).unwrap();
    let failure = lookup(eid(), resolver, None, None, 2, Duration::from_millis(20)).unwrap_err();
    let Failure::Failed(text) = failure else { panic!("{failure:?}") };
    let expected = format!("{resolver} did not answer 2 Map-Requests for 203.0.113.1/32 in 40ms");
    assert_eq!(text, expected);
    let mut buffer = [0; DATAGRAM];
    for _ in 0..2 {
        let (length, _) = silent.recv_from(&mut buffer).unwrap();
        assert!(matches!(Message::parse(&buffer[..length]), Ok(Message::Encapsulated(_))));
    }
}

/// The first Map-Request is lost; an ETR answers the second from elsewhere, to the address and port inside.
#[test]
fn op_02_a_lookup_survives_a_lost_request() {
    let resolver = own_loopback(2);
    let server = UdpSocket::bind((resolver, CONTROL_PORT)).unwrap();
    let etr = std::thread::spawn(move || {
        let mut buffer = [0; DATAGRAM];
        server.recv_from(&mut buffer).unwrap();
        let (length, _) = server.recv_from(&mut buffer).unwrap();
        let Ok(Message::Encapsulated(ecm)) = Message::parse(&buffer[..length]) else {
            panic!("no ECM")
        };
        let request = ecm.map_request().unwrap();
        let record = EidRecord::negative(eid(), Action::NativelyForward, 15);
        let mut octets = Vec::new();
        MapReply::new(request.nonce, vec![record]).encode(&mut octets);
        let etr = UdpSocket::bind("127.0.0.1:0").unwrap();
        etr.send_to(&octets, ecm.source).unwrap();
        etr.local_addr().unwrap()
    });
    let found = lookup(eid(), resolver, None, None, 20, Duration::from_millis(200)).unwrap();
    assert!(found.tries >= 2, "{found:?}");
    assert_eq!(found.source, etr.join().unwrap());
    assert_eq!(found.records[0].action, Some("natively-forward"));
}

/// Against a Map-Server: with its key, with another one, and with somebody on the way.
#[test]
fn se_01_a_lookup_can_be_protected() {
    use ::mapping::config::{ItrKey, LispSec, MappingConfig, Secret};
    use ::mapping::server::MapServer;
    let resolver = own_loopback(3);
    let server = UdpSocket::bind((resolver, CONTROL_PORT)).unwrap();
    let mut config = MappingConfig::new("ms", vec![resolver]);
    let itr_keys = vec![ItrKey { id: 1, secret: Secret::new(b"of the ITRs".to_vec()) }];
    config.lisp_sec = LispSec { itr_keys, required: true };
    let mut map_server = MapServer::new(config, [1; 32]);
    std::thread::spawn(move || {
        let mut buffer = [0; DATAGRAM];
        while let Ok((length, from)) = server.recv_from(&mut buffer) {
            let local = SocketAddr::new(resolver, CONTROL_PORT);
            map_server.handle_input(Instant::now(), local, from, &buffer[..length]);
            while let Some(transmit) = map_server.poll_transmit() {
                let mut forged = transmit.payload.clone();
                *forged.last_mut().unwrap() ^= 1;
                server.send_to(&forged, transmit.destination).unwrap();
                server.send_to(&transmit.payload, transmit.destination).unwrap();
            }
        }
    });
    let directory = tempfile::tempdir().unwrap();
    let key = |secret: &str| {
        let file = directory.path().join("key");
        std::fs::write(&file, secret).unwrap();
        Key::read(1, &file).unwrap()
    };
    let second = Duration::from_secs(1);
    let found = lookup(eid(), resolver, None, Some(&key("of the ITRs\n")), 5, second).unwrap();
    assert!(found.secured && found.text().contains("secured: yes"), "the forged one is skipped");
    assert_eq!(found.records[0].action, Some("natively-forward"));
    let short = Duration::from_millis(100);
    for key in [Some(key("guessed")), None] {
        assert!(lookup(eid(), resolver, None, key.as_ref(), 1, short).is_err());
    }
}
