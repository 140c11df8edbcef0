//! The network alone, with plain kernel routing: needs the right to make namespaces.

use std::time::{Duration, Instant};

use super::*;
use crate::lab::addresses::{SITE_A, XTR_A, XTR_B, XTR_C, XTR_D};
use crate::lab::capture::{Capture, ETHERTYPE_IPV6};
use crate::lab::decode::Datagram;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{Answer, ping};
use crate::lab::probe::{tcp, udp};

const LIMIT: Duration = Duration::from_secs(2);

/// The topology, or a word on why this test is skipped.
fn topology() -> Option<Topology> {
    if let Err(error) = Namespace::create("probe") {
        println!("SKIP: no network namespace can be made here: {error}");
        return None;
    }
    Some(Topology::bring_up().unwrap())
}

#[test]
fn every_member_reaches_its_neighbours_and_both_cores_stay_clean() {
    let begin = Instant::now();
    let Some(lab) = topology() else { return };
    println!("up after {:?}", begin.elapsed());
    let capture = Capture::start(&lab.core4, None, true).unwrap();
    let mark = capture.mark();
    for (from, source, destination) in [
        (&lab.sites[0].xtr, XTR_A, XTR_B),
        (&lab.sites[0].xtr, XTR_A, at::PXTR4),
        (&lab.ms, at::MS4, XTR_B),
        (&lab.sites[2].xtr, XTR_C, XTR_D),
        (&lab.sites[2].xtr, XTR_C, at::PXTR6),
        (&lab.ms, at::MS6, XTR_D),
        (&lab.sites[0].host, SITE_A.host6(7), SITE_A.gateway6()),
        (&lab.sites[0].host, SITE_A.host4(7), SITE_A.gateway4()),
        (&lab.pxtr, PXTR_NATIVE6, HOST_N6),
        (&lab.pxtr, PXTR_NATIVE4, HOST_N4),
        (&lab.pxtr, PXTR_NATIVE6, HOST_DEAD),
    ] {
        let answer = ping(from, Header::new(source, destination), 100, LIMIT).unwrap();
        assert!(answer.is_reply(), "{source} to {destination}: {answer}");
    }
    let frames = capture.since(mark);
    assert!(frames.iter().all(|frame| frame.ethertype != ETHERTYPE_IPV6));
    let pings = frames.iter().filter_map(|frame| frame.datagram.as_ref());
    let a_to_b = pings.filter(|packet| packet.source == XTR_A && packet.destination == XTR_B);
    assert_eq!(a_to_b.map(|packet| packet.hop_limit).collect::<Vec<_>>(), [64]);
}

#[test]
fn probes_work_over_plain_routing() {
    let Some(lab) = topology() else { return };
    let (a, b) = (&lab.sites[0].xtr, &lab.sites[1].xtr);
    let header = Header { hop_limit: 1, ..Header::new(XTR_A, XTR_B) };
    assert_eq!(ping(a, header, 100, LIMIT).unwrap(), Answer::Error(11, 0));
    assert!(ping(a, Header::new(XTR_A, XTR_B), 1500, LIMIT).unwrap().is_reply());

    let capture = Capture::start(&lab.core4, None, true).unwrap();
    let mark = capture.mark();
    let server = udp::EchoServer::start(b, XTR_B).unwrap();
    assert_eq!(udp::flows(a, XTR_A, server.address(), (50, 2, 64)).unwrap(), 0);
    let echoes = capture.datagrams_since(mark);
    assert_eq!(echoes.len(), 200);
    let right = |packet: &Datagram| packet.udp().unwrap().checksum_is_right == Some(true);
    assert!(
        !offload::can_compute_checksums() || echoes.iter().all(right),
        "checksums are those of a wire"
    );

    tcp::transfer((a, XTR_A), (b, XTR_B), 3_000_000).unwrap();
    let packets = capture.datagrams_since(mark);
    let longest = packets.iter().map(|packet| packet.length).max();
    assert_eq!(longest, Some(1500), "no super-packet in the core");
}
