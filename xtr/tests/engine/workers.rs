//! Several workers: who gets what, and what becomes of the rest when one fails.
use crate::node::{Addresses, Node, PATIENCE, POISON, non_zero, receive, udp_packet};
use mapping::eid::InstanceId;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use xtr::drops::DropReason;
use xtr::packet::lisp;

const FLOWS: u16 = 24;

#[test]
fn a_peers_flows_from_one_port_reach_every_worker_and_stay_in_order() {
    let addresses = Addresses::new(false, true);
    let Some(node) = Node::alone_with_workers(addresses, 2) else { return };
    let peer = node.peer_socket();
    let hosts: Vec<UdpSocket> =
        (0..FLOWS).map(|flow| node.socket(addresses.local_eid, 7000 + flow)).collect();
    for round in 0..40u8 {
        for flow in 0..FLOWS {
            decapsulate(addresses, &peer, flow, &[round; 20]);
        }
    }
    for (flow, host) in hosts.iter().enumerate() {
        for round in 0..40u8 {
            let mut buffer = [0; 100];
            let len = host.recv(&mut buffer).expect("arrives");
            assert_eq!(buffer[..len], [round; 20], "flow {flow}");
        }
    }
    node.settled(|counters| counters.native_out.packets == 40 * u64::from(FLOWS));
    let views = node.engine().worker_views();
    assert_eq!(views.len(), 2);
    for view in views {
        assert!(view.failure.is_none() && view.packets >= 40, "one port, one worker: {view:?}");
        assert_eq!(view.packets % 40, 0, "a flow has one worker: {view:?}");
    }
}

#[test]
fn a_failed_worker_takes_no_other_with_it() {
    let addresses = Addresses::new(true, true);
    let Some(mut node) = Node::alone_with_workers(addresses, 2) else { return };
    node.learn(1500);
    let peer = node.peer_socket();
    let hosts: Vec<UdpSocket> =
        (0..FLOWS).map(|flow| node.socket(addresses.local_eid, 7000 + flow)).collect();
    both_ways(addresses, &node, &peer, &hosts);
    poison(&hosts[0]);
    wait_for_failures(&node, 1);
    assert_eq!(node.engine().failure(), None, "one is left");
    let failures: Vec<String> =
        node.engine().worker_views().into_iter().filter_map(|view| view.failure).collect();
    assert!(failures[0].contains("poisoned on purpose"), "{failures:?}");
    let counters = node.settled(|counters| counters.dropped(DropReason::WorkerFailed) > 0);
    assert_eq!(counters.dropped_total(), 1, "{:?}", non_zero(&counters));
    both_ways(addresses, &node, &peer, &hosts);
    // Its queue is gone from the device: the kernel gives every flow to the other.
    poison(&hosts[0]);
    wait_for_failures(&node, 2);
    assert!(node.engine().failure().is_some_and(|failure| failure.contains("panicked")));
}

fn poison(host: &UdpSocket) {
    host.send_to(b"x", SocketAddr::new(POISON, 9)).expect("sent");
}

fn wait_for_failures(node: &Node, count: usize) {
    let failed =
        || node.engine().worker_views().iter().filter(|view| view.failure.is_some()).count();
    let deadline = Instant::now() + PATIENCE;
    while failed() < count {
        assert!(Instant::now() < deadline, "{:?}", node.engine().worker_views());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Every flow has a packet through in either direction.
fn both_ways(addresses: Addresses, node: &Node, peer: &UdpSocket, hosts: &[UdpSocket]) {
    let before = node.engine().counters();
    for (flow, host) in (0..).zip(hosts) {
        host.send_to(&[7; 30], SocketAddr::new(addresses.remote_eid, 5000)).expect("sent");
        assert!(receive(peer).payload.ends_with(&[7; 30]), "flow {flow}");
        decapsulate(addresses, peer, flow, &[flow as u8; 20]);
        assert_eq!(host.recv(&mut [0; 100]).expect("arrives"), 20, "flow {flow}");
    }
    let flows = hosts.len() as u64;
    node.settled(|counters| {
        counters.native_out.packets == before.native_out.packets + flows
            && counters.core_out.packets == before.core_out.packets + flows
    });
}

/// Sends what the peer's ITR would: inner flow `flow`, to the local EID's port 7000 and up.
fn decapsulate(addresses: Addresses, peer: &UdpSocket, flow: u16, data: &[u8]) {
    let from = SocketAddr::new(addresses.remote_eid, 5000);
    let to = SocketAddr::new(addresses.local_eid, 7000 + flow);
    let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
    datagram.extend(udp_packet(from, to, 60, 0, data));
    let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
    peer.send_to(&datagram, own).expect("sent");
}
