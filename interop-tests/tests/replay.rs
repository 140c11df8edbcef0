//! What real peers sent, given to a Map-Server and to a tunnel router of ours: they answer as the peers expect, and an independent dissector
//! finds nothing wrong with anything they send.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use interop_tests::captures::{Datagram, control_datagrams};
use interop_tests::replay::{Router, judge};
use mapping::config::{
    Algorithm, Client, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix,
};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::transmit::Transmit;
use mapping::wire::{CONTROL_PORT, Message};
use xtr::control::ControlPlane;

/// Between two datagrams of a capture, so that no limit of a rate is met.
const STEP: Duration = Duration::from_secs(1);

#[test]
fn what_oor_sent_is_answered_by_a_map_server() {
    let said = replay_to_a_map_server("oor", Profile::Oor, oor());
    assert!(said["Map-Notify"] >= 20 && said["Map-Reply"] + said["ECM"] >= 10, "{said:?}");
}

#[test]
fn what_lispers_net_sent_is_answered_by_a_map_server() {
    let said = replay_to_a_map_server("lispers", Profile::LispersNet, lispers_net());
    assert!(said["Map-Notify"] >= 6 && said["Map-Reply"] + said["ECM"] >= 10, "{said:?}");
}

/// The tunnel router has the EIDs and the RLOC of xTR 1 of the captures.
#[test]
fn what_oor_sent_is_answered_by_a_tunnel_router() {
    let router = Router {
        rloc: "10.0.1.2",
        eids: &[(0, "172.16.1.0/24"), (0, "2001:db8:e1::/64")],
        map_server: "10.0.0.2",
        key: (0, "lab-secret-1"),
        profile: "oor",
    };
    let config = router.config();
    let mut said = Vec::new();
    let mut now = Instant::now();
    let mut running: Option<(String, ControlPlane)> = None;
    let (mut probes, mut answered) = (0, 0);
    for datagram in router.received("oor") {
        if running.as_ref().is_none_or(|(capture, _)| *capture != datagram.capture) {
            let control = ControlPlane::new(config.clone(), now, [7; 32], 1);
            running = Some((datagram.capture.clone(), control));
        }
        let Some((_, control)) = &mut running else { continue };
        now += STEP;
        control.handle_timeout(now);
        said.extend(std::iter::from_fn(|| control.poll_transmit()));
        control.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
        let answers: Vec<Transmit> = std::iter::from_fn(|| control.poll_transmit()).collect();
        if let Ok(Message::MapRequest(request)) = Message::parse(&datagram.payload)
            && request.probe
        {
            probes += 1;
            answered += usize::from(answers.iter().any(|answer| {
                matches!(Message::parse(&answer.payload), Ok(Message::MapReply(reply))
                    if reply.probe && reply.nonce == request.nonce)
            }));
        }
        said.extend(answers);
    }
    assert!(probes >= 5, "{probes}");
    assert_eq!(answered, probes, "RLOC-probes");
    let said = judge(&said);
    assert!(said["Map-Register"] > 0 && said["Map-Reply"] >= probes, "{said:?}");
}

/// Everything that was sent to a Map-Server of the captures, in its order, and what is due meanwhile.
fn replay_to_a_map_server(
    captures: &str,
    profile: Profile,
    sites: Vec<Site>,
) -> BTreeMap<&'static str, usize> {
    let mut said = Vec::new();
    let mut now = Instant::now();
    let mut running: Option<(String, MapServer)> = None;
    for datagram in map_server_traffic(captures) {
        if running.as_ref().is_none_or(|(capture, _)| *capture != datagram.capture) {
            let sites = sites.iter().map(|site| Site { profile, ..site.clone() });
            let everybody = ["0.0.0.0/0", "::/0"].map(|text| Client {
                prefix: text.parse().expect("a prefix"),
                profile,
                plain_map_requests: false,
            });
            let listen = vec![datagram.destination.ip()];
            let config = MappingConfig {
                sites: sites.collect(),
                clients: everybody.into(),
                ..MappingConfig::new("replay", listen)
            };
            running = Some((datagram.capture.clone(), MapServer::new(config, [7; 32])));
        }
        let Some((_, server)) = &mut running else { continue };
        now += STEP;
        server.handle_timeout(now);
        server.handle_input(now, datagram.destination, datagram.source, &datagram.payload);
        said.extend(std::iter::from_fn(|| server.poll_transmit()));
    }
    judge(&said)
}

fn map_server_traffic(captures: &str) -> Vec<Datagram> {
    let servers = ["10.0.0.2", "2001:db8:1000::2", "10.77.1.2", "fd77:1::2"];
    let servers =
        servers.map(|text| SocketAddr::new(text.parse().expect("an address"), CONTROL_PORT));
    let mut datagrams = control_datagrams();
    datagrams.retain(|datagram| {
        datagram.capture.starts_with(captures) && servers.contains(&datagram.destination)
    });
    datagrams
}

fn site(name: &str, keys: &[(&str, Algorithm)], eids: &[(u32, &str)]) -> Site {
    let keys = keys.iter().map(|&(key, algorithm)| SiteKey {
        id: 0,
        secret: Secret::new(key.into()),
        algorithms: vec![algorithm],
    });
    let prefixes = eids.iter().map(|&(instance_id, net)| {
        let instance_id = InstanceId::new(instance_id).expect("24 bits");
        let prefix = EidPrefix::new(instance_id, net.parse().expect("a prefix"));
        SitePrefix { prefix, accept_more_specifics: true }
    });
    Site::new(name, keys.collect(), prefixes.collect())
}

fn oor() -> Vec<Site> {
    let eids = [
        (0, "172.16.0.0/12"),
        (0, "2001:db8:e0::/44"),
        (77, "172.16.0.0/12"),
        (77, "2001:db8:e0::/44"),
    ];
    vec![site("oor", &[("lab-secret-1", Algorithm::HmacSha1)], &eids)]
}

fn lispers_net() -> Vec<Site> {
    let one =
        |(name, key, v4, v6)| site(name, &[(key, Algorithm::HmacSha256)], &[(0, v4), (0, v6)]);
    [
        ("one", "lispers-key1", "172.16.1.0/24", "2001:db8:1::/48"),
        ("two", "lispers-key2", "172.16.2.0/24", "2001:db8:2::/48"),
    ]
    .map(one)
    .into()
}
