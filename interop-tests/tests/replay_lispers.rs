//! What lispers.net sent to its tunnel routers, given to one of ours in their place: as an ETR it answers, as an ITR it learns, and its
//! registrations are acknowledged.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use interop_tests::captures::Datagram;
use interop_tests::replay::{Router, judge};
use mapping::auth::{Covered, sign_covering};
use mapping::config::{Algorithm, Secret};
use mapping::discard::Discard;
use mapping::eid::{Eid, InstanceId};
use mapping::transmit::Transmit;
use mapping::wire::{EidRecord, MapReply, Message, Tolerance};
use xtr::control::ControlPlane;
use xtr::punt::Punt;
use xtr::view::RegistrationState;

/// Between two datagrams of a capture, so that no limit of a rate is met.
const STEP: Duration = Duration::from_secs(1);

/// Both tunnel routers of all captures.
const ROUTERS: [(&str, Router); 10] = [
    ("lispers-base", ONE),
    ("lispers-base", TWO),
    ("lispers-pxtr", ONE),
    ("lispers-pxtr", TWO),
    ("lispers-pubsub", ONE),
    ("lispers-pubsub", TWO),
    ("lispers-v6rloc", Router { rloc: "fd77:2::2", map_server: "fd77:1::2", ..ONE }),
    ("lispers-v6rloc", Router { rloc: "fd77:3::2", map_server: "fd77:1::2", ..TWO }),
    ("lispers-iid", Router { eids: &[(1000, "172.16.1.0/24"), (1000, "2001:db8:1::/64")], ..ONE }),
    (
        "lispers-iid",
        Router {
            eids: &[
                (1000, "172.16.2.0/24"),
                (1000, "2001:db8:2::/64"),
                (1000, "10.20.0.0/16"),
                (1000, "10.21.0.0/16"),
            ],
            key: (7, "lispers-key2"),
            ..TWO
        },
    ),
];

const ONE: Router = Router {
    rloc: "10.77.2.2",
    eids: &[(0, "172.16.1.0/24"), (0, "2001:db8:1::/64")],
    map_server: "10.77.1.2",
    key: (0, "lispers-key1"),
    profile: "lispers.net",
};

const TWO: Router = Router {
    rloc: "10.77.3.2",
    eids: &[(0, "172.16.2.0/24"), (0, "2001:db8:2::/64")],
    key: (0, "lispers-key2"),
    ..ONE
};

/// Ours, in the place of one of theirs.
struct Replay {
    control: ControlPlane,
    now: Instant,
    said: Vec<Transmit>,
}

impl Replay {
    fn new(router: &Router) -> Self {
        let now = Instant::now();
        let control = ControlPlane::new(router.config(), now, [7; 32], 1);
        Self { control, now, said: Vec::new() }
    }

    /// Gives it a datagram of a capture; what it answers at once.
    fn give(&mut self, datagram: &Datagram, payload: &[u8]) -> Vec<Message> {
        self.control.handle_input(self.now, datagram.destination, datagram.source, payload);
        self.take_said()
    }

    fn step(&mut self) -> Vec<Message> {
        self.now += STEP;
        self.control.handle_timeout(self.now);
        self.take_said()
    }

    fn take_said(&mut self) -> Vec<Message> {
        let said: Vec<Transmit> = std::iter::from_fn(|| self.control.poll_transmit()).collect();
        let parsed = said.iter().map(|transmit| Message::parse(&transmit.payload));
        let parsed = parsed.collect::<Result<_, _>>().expect("what we send parses");
        self.said.extend(said);
        parsed
    }

    fn discarded(&self) -> BTreeMap<&'static str, u64> {
        let discards = self.control.discards();
        let named = Discard::ALL.iter().map(|&reason| (reason.name(), discards.get(reason)));
        named.filter(|&(_, count)| count > 0).collect()
    }
}

fn parsed(datagram: &Datagram) -> Option<Message> {
    Message::parse_with(&datagram.payload, Tolerance::LISPERS_NET).ok()
}

/// The octets of a message with another nonce.
fn with_nonce(payload: &[u8], nonce: u64) -> Vec<u8> {
    let mut octets = payload.to_vec();
    octets[4..12].copy_from_slice(&nonce.to_be_bytes());
    octets
}

#[test]
fn what_lispers_net_asks_an_etr_is_answered() {
    let (mut said, mut probes, mut requests) = (Vec::new(), 0, 0);
    for (capture, router) in ROUTERS {
        let mut replay = Replay::new(&router);
        for datagram in router.received(capture) {
            let what = format!("{capture} {} frame {}", router.rloc, datagram.frame);
            let asked = match parsed(&datagram) {
                Some(Message::MapRequest(request)) => (request.nonce, request.probe),
                Some(Message::Encapsulated(ecm)) => {
                    (ecm.map_request().expect("a Map-Request").nonce, false)
                }
                _ => continue,
            };
            replay.step();
            let answers = replay.give(&datagram, &datagram.payload);
            let is_answer = |answer: &Message| {
                matches!(answer, Message::MapReply(reply)
                    if (reply.nonce, reply.probe) == asked && !reply.records.is_empty())
            };
            assert!(answers.iter().any(is_answer), "{what}: {:?}", replay.discarded());
            *(if asked.1 { &mut probes } else { &mut requests }) += 1;
        }
        assert_eq!(replay.discarded(), BTreeMap::new(), "{capture} {}", router.rloc);
        said.extend(replay.said);
    }
    assert!(probes >= 16 && requests >= 20, "{probes} RLOC-probes, {requests} others");
    let said = judge(&said);
    assert_eq!(said["Map-Reply"], probes + requests, "{said:?}");
}

/// Every Map-Reply that is none to a probe, as the answer to our own Map-Request for its EID-prefix.
#[test]
fn what_lispers_net_answers_an_itr_becomes_its_map_cache() {
    let (mut positive, mut negative) = (0, 0);
    for (capture, router) in ROUTERS {
        for datagram in router.received(capture) {
            let Some(Message::MapReply(reply)) = parsed(&datagram) else { continue };
            let MapReply { probe: false, records, .. } = &reply else { continue };
            let [record] = &records[..] else { panic!("{} records", records.len()) };
            let Some(prefix) = record.eid.prefix() else { continue };
            let what = format!("{capture} {} frame {}: {prefix}", router.rloc, datagram.frame);
            let mut replay = Replay::new(&router);
            replay.take_said();
            let source: IpAddr =
                if prefix.prefix().addr().is_ipv4() { "172.16.1.10" } else { "2001:db8:1::10" }
                    .parse()
                    .expect("an EID");
            let destination = Eid::new(prefix.instance_id(), prefix.prefix().network());
            replay.control.handle_punt(replay.now, &Punt::Miss { destination, source });
            let Some(nonce) = replay.step().iter().find_map(lookup) else {
                // What the capture's router asked about itself.
                assert!(
                    router
                        .eids
                        .iter()
                        .any(|(_, own)| own.starts_with(&prefix.prefix().network().to_string())),
                    "{what}: not asked"
                );
                continue;
            };
            replay.give(&datagram, &with_nonce(&datagram.payload, nonce));
            assert_eq!(replay.discarded(), BTreeMap::new(), "{what}");
            let cache = replay.control.map_cache_view(replay.now);
            let [entry] = &cache[..] else { panic!("{what}: {cache:?}") };
            assert_eq!(
                (entry.prefix, entry.instance_id),
                (prefix.prefix(), prefix.instance_id().get())
            );
            let learnt: Vec<IpAddr> = entry.locators.iter().map(|one| one.address).collect();
            assert_eq!(learnt, usable(record), "{what}");
            *(if learnt.is_empty() { &mut negative } else { &mut positive }) += 1;
        }
    }
    assert!(positive >= 12 && negative >= 3, "{positive} with locators, {negative} without");
}

fn lookup(message: &Message) -> Option<u64> {
    let Message::Encapsulated(ecm) = message else { return None };
    ecm.map_request().ok().map(|request| request.nonce)
}

fn usable(record: &EidRecord) -> Vec<IpAddr> {
    record.usable_locators().map(|(rloc, _)| rloc).collect()
}

/// The acknowledgement of their Map-Register, made one of ours by its nonce and the MAC: lispers.net puts its 24 octets after the records.
#[test]
fn map_notifies_of_lispers_net_acknowledge_registrations() {
    let mut acknowledged = 0;
    for (capture, router) in ROUTERS {
        // With merge, it sends a Map-Notify for each record, and more for those of others.
        if capture == "lispers-iid" {
            continue;
        }
        let mut replay = Replay::new(&router);
        let registers = replay.step();
        let nonce = registers.iter().find_map(|message| match message {
            Message::MapRegister(register) => Some(register.nonce),
            _ => None,
        });
        let nonce = nonce.expect("a Map-Register");
        let notify = router.received(capture).into_iter().find(|datagram| {
            matches!(parsed(datagram), Some(Message::MapNotify(notify)) if notify.authentication.algorithm_id == 2)
        });
        let notify = notify.expect("a Map-Notify");
        let mut octets = with_nonce(&notify.payload, nonce);
        let key = Secret::new(router.key.1.into());
        sign_covering(&mut octets, &key, Algorithm::HmacSha256, Covered::Message).expect("signed");
        replay.give(&notify, &octets);
        assert_eq!(replay.discarded(), BTreeMap::new(), "{capture} {}", router.rloc);
        let view = replay.control.registrations_view(replay.now);
        let all = view.iter().all(|one| one.state == RegistrationState::Registered);
        assert!(all && view.len() == router.eids.len(), "{capture} {}: {view:?}", router.rloc);
        // Without our nonce it is none of ours, and harmless.
        assert!(replay.give(&notify, &notify.payload).len() <= 1);
        acknowledged += 1;
    }
    assert_eq!(acknowledged, 8);
}

/// Instances apart: the same EID in another one is nobody's.
#[test]
fn an_itr_keeps_the_instances_of_lispers_net_apart() {
    let (capture, router) = ROUTERS[8];
    let of = |datagram: &Datagram| match parsed(datagram) {
        Some(Message::MapReply(reply)) => reply.records.first().and_then(|one| one.eid.prefix()),
        _ => None,
    };
    let replies =
        router.received(capture).into_iter().filter_map(|one| of(&one).map(|eid| (one, eid)));
    let (datagram, prefix) = replies
        .into_iter()
        .find(|(_, eid)| {
            eid.instance_id().get() == 1000
                && eid.prefix().contains(&"172.16.2.10".parse::<IpAddr>().expect("an EID"))
        })
        .expect("a Map-Reply in instance 1000");
    let mut replay = Replay::new(&router);
    replay.take_said();
    let destination = Eid::new(InstanceId::DEFAULT, prefix.prefix().network());
    let source = "172.16.1.10".parse().expect("an EID");
    replay.control.handle_punt(replay.now, &Punt::Miss { destination, source });
    let nonce = replay.step().iter().find_map(lookup).expect("a Map-Request");
    replay.give(&datagram, &with_nonce(&datagram.payload, nonce));
    assert_eq!(replay.discarded(), BTreeMap::from([("reply_prefix_mismatch", 1)]));
    assert!(replay.control.map_cache_view(replay.now).is_empty());
}

/// Its Map-Server forwards without inner checksum: refused by that name where it is not known for it.
#[test]
fn ec_03_what_lispers_net_forwards_is_refused_by_name_without_its_profile() {
    let router = Router { profile: "rfc9301", ..ONE };
    let mut replay = Replay::new(&router);
    let mut forwarded = 0;
    for datagram in router.received("lispers-base") {
        let Some(Message::Encapsulated(_)) = parsed(&datagram) else { continue };
        replay.step();
        let answers = replay.give(&datagram, &datagram.payload);
        assert!(!answers.iter().any(|answer| matches!(answer, Message::MapReply(_))));
        forwarded += 1;
    }
    assert_eq!(replay.discarded(), BTreeMap::from([("inner_checksum", forwarded)]));
    assert!(forwarded > 0);
}
