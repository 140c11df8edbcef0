//! In = out + drops, exactly, whatever goes wrong.
use crate::load::{Host, ONE_SUBNET, Peer, Targets, UNKNOWN, device_drops, flood, learn};
use crate::namespace::Namespace;
use crate::node::{Addresses, Node, TUN, config, non_zero};
use crate::{addresses, alone, settled};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::SockRef;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;
use xtr::drops::DropReason;
use xtr::policy::Onward;

const KNOWN: Targets = Targets { subnet: ONE_SUBNET, count: 16 };

#[test]
fn what_a_full_tun_queue_loses_is_known() {
    let _turn = alone();
    let Some(mut node) = Node::alone(addresses()) else { return };
    let _peer = node.peer_socket();
    learn(&mut node, KNOWN.subnet);
    let mut host = Host::new(&node);
    let sent = flood(&mut host, KNOWN, None, Duration::from_millis(500));
    let counters = node.settled(|counters| {
        counters.native_in.packets + device_drops(&node.namespace, TUN) == sent
    });
    println!(
        "{sent} sent, {} read, {} dropped by the TUN",
        counters.native_in.packets,
        device_drops(&node.namespace, TUN)
    );
    assert_eq!(counters.native_in.packets, counters.core_out.packets + counters.dropped_total());
}

#[test]
fn what_full_send_buffers_refuse_is_counted() {
    let _turn = alone();
    // Nobody answers for the peer's address: the kernel keeps what is sent there, and it fills the send buffers.
    let Some(namespace) = Namespace::new() else { return };
    let Some(other) = Namespace::new() else { return };
    namespace.join(&other, "core0");
    let addresses = Addresses::new(false, true);
    namespace.add_addresses("core0", vec![(addresses.own_rloc, 24)]);
    let mut node = Node::start(namespace, addresses, config(addresses, 1), Onward::Deliver);
    learn(&mut node, KNOWN.subnet);
    assert!(shrink_send_buffers(&addresses) > 0, "the engine's sockets are found");
    let sent = flood(&mut Host::new(&node), KNOWN, Some(20_000.0), Duration::from_millis(500));
    let counters = node.settled(|counters| {
        counters.native_in.packets + device_drops(&node.namespace, TUN) == sent
    });
    println!("{sent} sent: {:?}", non_zero(&counters));
    assert!(counters.dropped(DropReason::BuffersExhausted) > 0, "{:?}", non_zero(&counters));
}

/// Makes the send buffers of the engine's sockets, which are in this process, as small as the kernel allows.
fn shrink_send_buffers(addresses: &Addresses) -> usize {
    let process = pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).expect("a pidfd");
    let numbers = std::fs::read_dir("/proc/self/fd").expect("/proc").flatten();
    let numbers: Vec<i32> =
        numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let sockets = numbers.into_iter().filter_map(|number| {
        let fd = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok()?;
        let socket = SockRef::from(&fd);
        let local = socket.local_addr().ok()?.as_socket()?;
        let is_own = local.ip() == addresses.own_rloc && local.port() >= 49_152;
        (is_own && socket.set_send_buffer_size(1).is_ok()).then_some(())
    });
    sockets.count()
}

#[test]
fn a_core_without_a_route_costs_packets_but_none_on_the_books() {
    let _turn = alone();
    let Some([mut node, _other]) = Node::pair(addresses(), |config| config) else { return };
    learn(&mut node, KNOWN.subnet);
    let mut host = Host::new(&node);
    let time = Duration::from_millis(200);
    let mut sent = flood(&mut host, KNOWN, Some(5_000.0), time);
    node.namespace.delete_link("core0");
    sent += flood(&mut host, KNOWN, Some(5_000.0), time);
    let counters = node.settled(|counters| {
        counters.native_in.packets + device_drops(&node.namespace, TUN) == sent
    });
    println!("{sent} sent: {:?}", non_zero(&counters));
    assert!(counters.dropped(DropReason::SendFailed) > 0, "{:?}", non_zero(&counters));
}

#[test]
fn an_engine_that_ends_under_load_accounts_for_all() {
    let _turn = alone();
    for onward in [Onward::Deliver, Onward::Reencapsulate] {
        let Some(mut node) = Node::alone_with(addresses(), onward) else { return };
        let _peer = node.peer_socket();
        learn(&mut node, KNOWN.subnet);
        let unknown = Targets { subnet: UNKNOWN, count: 100 };
        let engine = node.engine.take().expect("running");
        let (mut host, mut miss, mut peer) =
            (Host::new(&node), Host::new(&node), Peer::new(&node, 1));
        let time = Duration::from_millis(400);
        let last = std::thread::scope(|scope| {
            scope.spawn(|| flood_until_gone(&mut host, KNOWN, time));
            scope.spawn(|| flood_until_gone(&mut miss, unknown, time));
            scope.spawn(|| flood(&mut peer, KNOWN, Some(50_000.0), time));
            std::thread::sleep(time / 2);
            engine.stop()
        });
        println!("{onward:?}: {:?}", non_zero(&last));
        assert!(last.native_in.packets > 0 && last.core_in.packets > 0);
        assert_eq!(last.held, 0, "nothing is held by nobody");
        assert!(last.is_conserved(), "{:?}", non_zero(&last));
    }
}

/// The route goes with the TUN.
fn flood_until_gone(host: &mut Host, targets: Targets, time: Duration) {
    let end = std::time::Instant::now() + time;
    let mut number = 0;
    while std::time::Instant::now() < end {
        number += host.try_send(targets, number);
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

#[test]
fn cw_35_frames_of_9000_octets_pass_both_ways_in_every_combination_of_families() {
    let _turn = alone();
    for addresses in Addresses::all() {
        let Some(pair) = Node::pair(addresses, |config| config) else { return };
        let [mut client, mut server] = pair;
        for node in [&mut client, &mut server] {
            node.namespace.set_mtu("core0", 9000 + 56);
            node.learn(9000 + 56);
        }
        let [here, there] =
            [client.socket(addresses.local_eid, 5000), server.socket(addresses.remote_eid, 7000)];
        let headers = if addresses.local_eid.is_ipv4() { 28 } else { 48 };
        let data: Vec<u8> = (0..9000 - headers).map(|index| (index * 7) as u8).collect();
        for _ in 0..50 {
            pass(&here, SocketAddr::new(addresses.remote_eid, 7000), &there, &data);
            pass(&there, SocketAddr::new(addresses.local_eid, 5000), &here, &data);
        }
        for node in [&client, &server] {
            let counters = settled(node);
            assert_eq!((counters.core_out.packets, counters.fragments_created), (50, 0));
            assert_eq!(counters.core_out.octets, 50 * 9000);
            assert_eq!(counters.dropped_total(), 0, "{:?}", non_zero(&counters));
        }
    }
}

fn pass(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket, data: &[u8]) {
    from.send_to(data, to).expect("sent");
    let mut buffer = vec![0; 10_000];
    let len = receiver.recv(&mut buffer).expect("arrives");
    assert!(buffer[..len] == *data);
}
