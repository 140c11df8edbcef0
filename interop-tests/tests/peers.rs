//! What deployed peers sent to their own Map-Servers, given to ours: with the peer's profile it is taken and answered as the peer
//! expects, without it nothing is, and the reason is told.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use interop_tests::captures::{Datagram, control_datagrams};
use ipnet::IpNet;
use mapping::auth;
use mapping::config::{
    Algorithm, Client, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix,
};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::{Event, MapServer};
use mapping::wire::{CONTROL_PORT, MapRegister, Message};

/// A site of a peer: Key ID 0, as all of them use.
fn site(name: &str, key: &str, algorithm: Algorithm, eids: &[(u32, &str)]) -> Site {
    let key = SiteKey { id: 0, secret: Secret::new(key.into()), algorithms: vec![algorithm] };
    let prefixes = eids.iter().map(|&(instance_id, net)| {
        let net: IpNet = net.parse().expect("a prefix");
        let instance_id = InstanceId::new(instance_id).expect("24 bits");
        SitePrefix { prefix: EidPrefix::new(instance_id, net), accept_more_specifics: true }
    });
    Site::new(name, vec![key], prefixes.collect())
}

/// The Map-Registers of the captures whose names begin so, that arrived at a Map-Server.
fn map_registers(captures: &str) -> Vec<(Datagram, MapRegister)> {
    let mut registers: Vec<(Datagram, MapRegister)> = Vec::new();
    for datagram in control_datagrams() {
        let Ok(Message::MapRegister(register)) = Message::parse(&datagram.payload) else {
            continue;
        };
        if datagram.capture.starts_with(captures) && datagram.destination.port() == CONTROL_PORT {
            registers.push((datagram, register));
        }
    }
    registers
}

/// How often each outcome was seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    wanted: usize,
    notified: usize,
    refused: usize,
}

/// Two registration intervals of lispers.net, whose nonces begin anew with each; longer than a retransmission may take.
const ROUND: Duration = Duration::from_secs(120);

/// Gives every Map-Register of a capture to a Map-Server of its own, one a second, and checks what it answers.
fn replay(captures: &str, sites: &[Site], profile: Profile) -> Outcome {
    replay_all(map_registers(captures), sites, profile)
}

/// As [`replay`], and a [`ROUND`] later all of them again: what lispers.net sends every time.
fn replay_twice(capture: &str, sites: &[Site], profile: Profile) -> Outcome {
    let again = map_registers(capture);
    let mut registers = map_registers(capture);
    registers.extend(again);
    replay_all(registers, sites, profile)
}

fn replay_all(
    registers: Vec<(Datagram, MapRegister)>,
    sites: &[Site],
    profile: Profile,
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut running: Option<(String, MapServer)> = None;
    let mut now = Instant::now();
    let mut last_frame = 0;
    for (datagram, register) in registers {
        if datagram.frame <= last_frame {
            now += ROUND;
        }
        last_frame = datagram.frame;
        if running.as_ref().is_none_or(|(capture, _)| *capture != datagram.capture) {
            let sites = sites.iter().map(|site| Site { profile, ..site.clone() });
            let listen = vec![datagram.destination.ip()];
            let config =
                MappingConfig { sites: sites.collect(), ..MappingConfig::new("peers", listen) };
            running = Some((datagram.capture.clone(), MapServer::new(config, [7; 32])));
        }
        let Some((_, server)) = &mut running else { continue };
        now += Duration::from_secs(1);
        server.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
        outcome.wanted += usize::from(register.want_map_notify);
        while let Some(event) = server.poll_event() {
            outcome.refused += usize::from(matches!(event, Event::Refused(_)));
        }
        while let Some(transmit) = server.poll_transmit() {
            let Ok(Message::MapNotify(notify)) = Message::parse(&transmit.payload) else {
                continue;
            };
            if notify.nonce == register.nonce {
                answers(&notify_key(sites, &datagram), &register, &transmit.payload);
                assert_eq!(transmit.destination, acknowledged_at(profile, datagram.source));
                outcome.notified += 1;
            }
        }
    }
    outcome
}

/// lispers.net listens for the Map-Notify where it sent from.
fn acknowledged_at(profile: Profile, source: SocketAddr) -> SocketAddr {
    match profile {
        Profile::LispersNet => source,
        _ => SocketAddr::new(source.ip(), CONTROL_PORT),
    }
}

/// The key that the sender of `datagram` signs with.
fn notify_key(sites: &[Site], datagram: &Datagram) -> SiteKey {
    let verifies =
        |key: &&SiteKey| auth::verify(&datagram.payload, &key.secret, &key.algorithms).is_ok();
    sites.iter().flat_map(|site| &site.keys).find(verifies).expect("a key of a site").clone()
}

/// The Map-Notify verifies by the peer's own rules: same algorithm, same length, over the whole message.
fn answers(key: &SiteKey, register: &MapRegister, notify: &[u8]) {
    assert_eq!(usize::from(notify[15]), register.authentication.mac.len());
    let covered = auth::verify(notify, &key.secret, &key.algorithms);
    assert_eq!(covered, Ok(auth::Covered::Message));
}

fn oor() -> Vec<Site> {
    let eids = [
        (0, "172.16.0.0/12"),
        (0, "2001:db8:e0::/44"),
        (77, "172.16.0.0/12"),
        (77, "2001:db8:e0::/44"),
    ];
    vec![site("oor", "lab-secret-1", Algorithm::HmacSha1, &eids)]
}

fn lispers_net() -> Vec<Site> {
    let sites = [
        ("one", "lispers-key1", "172.16.1.0/24", "2001:db8:1::/48"),
        ("two", "lispers-key2", "172.16.2.0/24", "2001:db8:2::/48"),
    ];
    let one = |(name, key, v4, v6)| site(name, key, Algorithm::HmacSha256, &[(0, v4), (0, v6)]);
    sites.map(one).into()
}

#[test]
fn au_19_map_registers_of_oor_are_taken_with_its_profile_and_answered_with_sha_1() {
    let outcome = replay("oor", &oor(), Profile::Oor);
    assert!(outcome.wanted > 10, "{outcome:?}");
    assert_eq!((outcome.notified, outcome.refused), (outcome.wanted, 0), "{outcome:?}");
}

#[test]
fn au_04_au_15_map_registers_of_oor_are_refused_without_its_profile() {
    let outcome = replay("oor", &oor(), Profile::Rfc9301);
    assert_eq!(outcome.notified, 0);
    assert!(outcome.refused >= outcome.wanted, "{outcome:?}");
}

#[test]
fn au_19_map_registers_of_lispers_net_are_taken_with_its_profile() {
    for capture in ["lispers-base", "lispers-pxtr", "lispers-v6rloc"] {
        let outcome = replay_twice(capture, &lispers_net(), Profile::LispersNet);
        assert!(outcome.wanted > 0, "{capture}: {outcome:?}");
        assert_eq!(
            (outcome.notified, outcome.refused),
            (outcome.wanted, 0),
            "{capture}: {outcome:?}"
        );
    }
}

#[test]
fn au_16_map_registers_of_lispers_net_are_replays_without_its_profile() {
    let outcome = replay_twice("lispers-base", &lispers_net(), Profile::Rfc9301);
    assert_eq!((outcome.wanted, outcome.notified, outcome.refused), (4, 2, 2), "{outcome:?}");
}

/// What the capture shows of encryption: everything after the first four octets.
#[test]
fn cw_12_an_encrypted_map_register_of_lispers_net_is_refused_by_name_with_any_profile() {
    let datagram = control_datagrams().into_iter().find(|datagram| {
        (datagram.capture.as_str(), datagram.frame) == ("lispers-pubsub-encrreg.pcap", 1)
    });
    let datagram = datagram.expect("the encrypted Map-Register");
    for profile in Profile::ALL {
        let sites = lispers_net().into_iter().map(|site| Site { profile, ..site });
        let listen = vec![datagram.destination.ip()];
        let config =
            MappingConfig { sites: sites.collect(), ..MappingConfig::new("peers", listen) };
        let mut server = MapServer::new(config, [7; 32]);
        let now = Instant::now();
        server.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
        assert!(server.poll_transmit().is_none());
        let told: Vec<String> =
            std::iter::from_fn(|| server.poll_event()).map(|event| event.to_string()).collect();
        let about = "register_encrypted: The Map-Register is encrypted as only lispers.net does";
        assert!(told.iter().any(|line| line.contains(about)), "{profile:?}: {told:?}");
    }
}

/// Why messages of a capture are refused by a Map-Server that knows its sites and clients by this profile; all of them come twice.
fn reasons(capture: &str, sites: &[Site], profile: Profile) -> BTreeMap<&'static str, usize> {
    let mut datagrams = control_datagrams();
    datagrams.retain(|datagram| datagram.capture.starts_with(capture));
    let registers = datagrams.iter().filter(|datagram| datagram.payload[0] >> 4 == 3);
    let server_at = registers.map(|datagram| datagram.destination).next().expect("a Map-Register");
    datagrams.retain(|datagram| datagram.destination == server_at);
    let sites = sites.iter().map(|site| Site { profile, ..site.clone() });
    let everybody = ["0.0.0.0/0", "::/0"].map(|text| Client {
        prefix: text.parse().expect("a prefix"),
        profile,
        plain_map_requests: false,
    });
    let config = MappingConfig {
        sites: sites.collect(),
        clients: everybody.into(),
        ..MappingConfig::new("peers", vec![server_at.ip()])
    };
    let mut server = MapServer::new(config, [7; 32]);
    let (mut now, mut reasons) = (Instant::now(), BTreeMap::new());
    for _ in 0..2 {
        for datagram in &datagrams {
            now += Duration::from_secs(1);
            server.handle_timeout(now);
            server.handle_input(now, server_at, datagram.source, &datagram.payload);
            while let Some(event) = server.poll_event() {
                let reason = match event {
                    Event::Refused(refusal) => refusal.reason,
                    Event::Discarded { reason, .. } => reason,
                    _ => continue,
                };
                *reasons.entry(reason.name()).or_insert(0) += 1;
            }
        }
        now += ROUND;
    }
    reasons
}

/// Each loosening that the captures show, and by which name its lack refuses the same messages.
#[test]
fn au_19_what_a_profile_loosens_is_refused_by_name_without_it() {
    let none = BTreeMap::new();
    let cases = [
        // HMAC-SHA-1.
        ("oor-ctl-rloc4", oor(), Profile::Oor, vec!["algorithm_refused"]),
        // Nonces that do not count up, acknowledged acknowledgements, ECMs without inner checksum.
        (
            "lispers-pxtr",
            lispers_net(),
            Profile::LispersNet,
            vec!["ack_not_expected", "inner_checksum", "replayed"],
        ),
    ];
    for (capture, sites, profile, refused) in cases {
        let with = reasons(capture, &sites, profile);
        let without = reasons(capture, &sites, Profile::Rfc9301);
        println!("{capture}: with {profile:?} {with:?}, without {without:?}");
        assert!(refused.iter().all(|reason| !with.contains_key(reason)), "{with:?}");
        assert!(refused.iter().all(|reason| without.contains_key(reason)), "{without:?}");
        if profile == Profile::Oor {
            assert_eq!(with, none);
        }
    }
}
