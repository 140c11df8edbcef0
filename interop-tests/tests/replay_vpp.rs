//! What VPP sent to a Map-Server and to a tunnel router of ours, given to them again: they answer as they did when it was recorded, an independent
//! dissector finds nothing wrong with that, and its data packets are taken for what they are.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use interop_tests::captures::{Datagram, control_datagrams, datagrams};
use interop_tests::daemon::SECRET;
use interop_tests::replay::{Router, judge};
use mapping::config::{
    Algorithm, Client, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix,
};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::{Event, MapServer};
use mapping::transmit::Transmit;
use mapping::wire::{Address, CONTROL_PORT, DATA_PORT, MapRequest, Message};
use xtr::control::ControlPlane;
use xtr::marks::HeaderMarks;
use xtr::packet::lisp;

/// Between two datagrams of a capture, so that no limit of a rate is met.
const STEP: Duration = Duration::from_secs(1);

/// Who was where: in the IPv4 core, in the IPv6 core.
struct Core {
    capture: &'static str,
    map_server: &'static str,
    ours: Router,
    /// Its other RLOC, where it moves to.
    moved: &'static str,
    vpp: &'static str,
}

const OURS: Router = Router {
    rloc: "198.51.100.34",
    eids: &[(0, "203.0.113.0/26"), (0, "2001:db8:e001::/64")],
    map_server: "198.51.100.18",
    key: (1, SECRET),
    profile: "rfc9301",
};

const CORES: [Core; 2] = [
    Core {
        capture: "vpp-rloc4.pcap",
        map_server: "198.51.100.18",
        ours: OURS,
        moved: "198.51.100.35",
        vpp: "198.51.100.50",
    },
    Core {
        capture: "vpp-rloc6.pcap",
        map_server: "2001:db8:c0:1::2",
        ours: Router { rloc: "2001:db8:c0:2::2", map_server: "2001:db8:c0:1::2", ..OURS },
        moved: "2001:db8:c0:2::3",
        vpp: "2001:db8:c0:3::2",
    },
];

impl Core {
    fn vpp(&self) -> IpAddr {
        self.vpp.parse().expect("an RLOC")
    }

    /// What reached the Map-Server, in its order.
    fn to_map_server(&self) -> Vec<Datagram> {
        let to = SocketAddr::new(self.map_server.parse().expect("an address"), CONTROL_PORT);
        let mut datagrams = control_datagrams();
        datagrams.retain(|one| one.capture == self.capture && one.destination == to);
        datagrams
    }

    /// What reached either RLOC of ours.
    fn to_ours(&self) -> Vec<Datagram> {
        let ours: [IpAddr; 2] = [self.ours.address(), self.moved.parse().expect("an RLOC")];
        let mut datagrams = control_datagrams();
        datagrams.retain(|one| one.capture == self.capture && ours.contains(&one.destination.ip()));
        datagrams
    }

    /// Our site as it is, that of VPP with its profile.
    fn server(&self) -> MapServer {
        let site = |name: &str, key, profile, vpp, eids: [&str; 2]| {
            let key = SiteKey {
                id: key,
                secret: Secret::new(SECRET.into()),
                algorithms: Algorithm::STRONG.to_vec(),
            };
            let prefixes = eids.map(|net| {
                let net = net.parse().expect("a prefix");
                let prefix = EidPrefix::new(InstanceId::DEFAULT, net);
                SitePrefix { prefix, accept_more_specifics: false }
            });
            Site { profile, force_proxy_reply: vpp, ..Site::new(name, vec![key], prefixes.into()) }
        };
        let everybody = ["0.0.0.0/0", "::/0"].map(|text| Client {
            prefix: text.parse().expect("a prefix"),
            profile: Profile::Rfc9301,
            plain_map_requests: false,
        });
        let sites = vec![
            site("ours", 1, Profile::Rfc9301, false, ["203.0.113.0/26", "2001:db8:e001::/64"]),
            site("vpp", 0, Profile::Vpp, true, ["203.0.113.64/26", "2001:db8:e002::/64"]),
        ];
        let listen = vec![self.map_server.parse().expect("an address")];
        let clients = everybody.into();
        let config = MappingConfig { sites, clients, ..MappingConfig::new("replay", listen) };
        MapServer::new(config, [7; 32])
    }
}

fn map_request(payload: &[u8]) -> Option<MapRequest> {
    match Message::parse(payload).ok()? {
        Message::Encapsulated(ecm) => ecm.map_request().ok(),
        _ => None,
    }
}

/// Where VPP wants the answer.
fn itr_rlocs(request: &MapRequest) -> Vec<IpAddr> {
    request.itr_rlocs.iter().filter_map(Address::rloc).collect()
}

#[test]
fn map_requests_of_vpp_are_forwarded_and_its_unsigned_map_registers_refused_by_name() {
    for core in CORES {
        let (mut server, mut now) = (core.server(), Instant::now());
        let (mut said, mut refused, mut forwarded) = (Vec::new(), BTreeMap::new(), 0);
        for datagram in core.to_map_server() {
            now += STEP;
            server.handle_timeout(now);
            server.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
            let answers: Vec<Transmit> = std::iter::from_fn(|| server.poll_transmit()).collect();
            while let Some(event) = server.poll_event() {
                if let Event::Refused(refusal) = event {
                    assert_eq!(datagram.source.ip(), core.vpp(), "{refusal:?}");
                    *refused.entry(refusal.reason.name()).or_insert(0) += 1;
                }
            }
            if datagram.source.ip() == core.vpp()
                && let Some(request) = map_request(&datagram.payload)
            {
                let on = answers.iter().filter(|on| {
                    let same = map_request(&on.payload).is_some_and(|on| on == request);
                    let to = on.destination.ip();
                    same && (to == core.ours.address() || to.to_string() == core.moved)
                });
                assert_eq!(on.count(), 1, "{} frame {}", core.capture, datagram.frame);
                assert_eq!(itr_rlocs(&request), [core.vpp()]);
                forwarded += 1;
            }
            said.extend(answers);
        }
        // The MAC of each is zero.
        assert_eq!(refused, BTreeMap::from([("authentication_failed", 3)]), "{}", core.capture);
        assert!(forwarded >= 4, "{forwarded}");
        let said = judge(&said);
        assert!(said["Map-Notify"] >= 2 && said["ECM"] >= forwarded, "{said:?}");
    }
}

/// What our Map-Server handed on to one or the other RLOC of ours: lookups, and what our SMR caused.
#[test]
fn what_vpp_asks_an_etr_is_answered_where_it_waits() {
    for core in CORES {
        let (mut now, mut said, mut solicited) = (Instant::now(), Vec::new(), 0);
        let mut control = ControlPlane::new(core.ours.config(), now, [7; 32], 1);
        let mut asked = 0;
        for datagram in core.to_ours() {
            let Some(request) = map_request(&datagram.payload) else { continue };
            now += STEP;
            control.handle_timeout(now);
            said.extend(std::iter::from_fn(|| control.poll_transmit()));
            let to = SocketAddr::new(core.ours.address(), CONTROL_PORT);
            control.handle_input(now, to, datagram.source, &datagram.payload);
            let answers: Vec<Transmit> = std::iter::from_fn(|| control.poll_transmit()).collect();
            let answer = answers.iter().find_map(|answer| {
                match Message::parse(&answer.payload).expect("what we send parses") {
                    Message::MapReply(reply) => Some((answer.destination, reply)),
                    _ => None,
                }
            });
            let (to, reply) = answer.expect("a Map-Reply");
            assert_eq!(to, SocketAddr::new(core.vpp(), CONTROL_PORT));
            assert_eq!(reply.nonce, request.nonce);
            let wanted = request.records[0].eid.prefix().expect("an EID").prefix();
            let given = reply.records[0].eid.prefix().expect("an EID").prefix();
            assert!(given.contains(&wanted), "{given} for {wanted}");
            let locators: Vec<IpAddr> =
                reply.records[0].usable_locators().map(|(rloc, _)| rloc).collect();
            assert_eq!(locators, [core.ours.address()]);
            solicited += usize::from(request.smr_invoked);
            asked += 1;
            said.extend(answers);
        }
        assert!(asked >= 4 && solicited >= 2, "{}: {asked}, {solicited}", core.capture);
        assert_eq!(judge(&said)["Map-Reply"], asked);
    }
}

/// As PITR it does not set the p-bit, and needs no more of an ETR than an ITR does.
#[test]
fn what_vpp_asks_an_etr_as_pitr_is_answered() {
    let pitr = SocketAddr::new("198.51.100.66".parse().expect("an RLOC"), CONTROL_PORT);
    let mut now = Instant::now();
    let mut control = ControlPlane::new(OURS.config(), now, [7; 32], 1);
    let mut asked = Vec::new();
    for datagram in OURS.received("vpp-pitr-rloc4.pcap") {
        let Some(request) = map_request(&datagram.payload) else { continue };
        now += STEP;
        control.handle_timeout(now);
        while control.poll_transmit().is_some() {}
        control.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
        let answer = control.poll_transmit().expect("an answer");
        let reply = Message::parse(&answer.payload).expect("what we send parses");
        assert!(matches!(reply, Message::MapReply(reply) if reply.nonce == request.nonce));
        assert_eq!((itr_rlocs(&request), answer.destination), (vec![pitr.ip()], pitr));
        asked.push((request.pitr, request.records[0].eid.prefix().expect("an EID").to_string()));
    }
    let eids = ["203.0.113.10/32", "2001:db8:e001::a/128"];
    assert_eq!(asked, eids.map(|eid| (false, eid.to_owned())));
}

/// VPP marks each of its packets with the P-bit of LISP-GPE, and says in the fourth octet what is inside: to RFC 9300 those are a
/// reserved bit and a part of the nonce without N-bit, and mean nothing.
#[test]
fn dh_06_data_packets_of_vpp_are_plain_ones_whatever_its_gpe_bits_say() {
    const P: u8 = 4;
    let mut families = BTreeMap::new();
    for core in CORES {
        for datagram in datagrams(DATA_PORT) {
            if datagram.capture != core.capture || datagram.source.ip() != core.vpp() {
                continue;
            }
            let payload = &datagram.payload;
            let version = payload[lisp::HEADER_LEN] >> 4;
            let next_protocol = if version == 4 { 1 } else { 2 };
            assert_eq!(payload[..lisp::HEADER_LEN], [P, 0, 0, next_protocol, 0, 0, 0, 0]);
            assert_eq!(lisp::parse(payload), Ok(InstanceId::DEFAULT));
            assert_eq!(lisp::marks(payload), HeaderMarks::default());
            assert_eq!(datagram.source.port(), DATA_PORT);
            *families.entry((core.capture, version)).or_insert(0) += 1;
        }
    }
    assert!(families.len() == 4 && families.values().all(|&count| count >= 3), "{families:?}");
}
