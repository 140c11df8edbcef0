//! The data plane on a real kernel: every test makes its own network namespaces and needs the privilege to do so.
//!
//! ```text
//! one namespace:   local EID on lo --route--> TUN -- engine -- own RLOC on lo <--UDP/4341--> peer RLOC on lo, played by the test
//! two namespaces:  EID -- TUN -- engine -- RLOC ---veth--- RLOC -- engine -- TUN -- EID
//! ```
use mapping::eid::InstanceId;
use namespace::Namespace;
use nix::sys::socket::{setsockopt, sockopt};
use node::{
    Addresses, Node, Open, PATIENCE, TUN, config, non_zero, receive, udp_packet, wide_prefix,
};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};
use xtr::config::DataConfig;
use xtr::drops::DropReason;
use xtr::engine::Engine;
use xtr::fib::FibWriter;
use xtr::packet::{checksum, lisp};
use xtr::policy::Onward;
use xtr::punt::{self, Punt};

mod namespace;
mod node;
mod packet_ring;
mod rules;
mod workers;

#[test]
fn en_01_en_02_en_04_en_08_en_13_native_packets_come_out_encapsulated() {
    for addresses in Addresses::all() {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 5000);
        let (ttl, tos) = (37, 0xb8 | 0b10);
        if addresses.local_eid.is_ipv4() {
            setsockopt(&host, sockopt::Ipv4Ttl, &ttl).expect("option");
            setsockopt(&host, sockopt::Ipv4Tos, &tos).expect("option");
        } else {
            setsockopt(&host, sockopt::Ipv6Ttl, &ttl).expect("option");
            setsockopt(&host, sockopt::Ipv6TClass, &tos).expect("option");
        }
        let to = SocketAddr::new(addresses.remote_eid, 7000);
        let mut ports = Vec::new();
        for round in 0..20u8 {
            let data = vec![round; 1 + usize::from(round) * 60];
            host.send_to(&data, to).expect("sent");
            let arrived = receive(&peer);
            assert_eq!(arrived.source.ip(), addresses.own_rloc);
            assert_eq!(
                (i32::from(arrived.ttl), i32::from(arrived.tos)),
                (ttl, tos),
                "{addresses:?}"
            );
            assert_eq!(arrived.payload[..8], [0; 8], "no flag is set in instance 0");
            let from = SocketAddr::new(addresses.local_eid, 5000);
            let expected = udp_packet(from, to, 37, 0xba, &data);
            let got = &arrived.payload[8..];
            let skip = if from.is_ipv4() { 12 } else { 4 };
            assert_eq!(got.len(), expected.len());
            assert_eq!(
                got[skip..],
                expected[skip..],
                "but for ID, checksum and flow label, as sent"
            );
            ports.push(arrived.source.port());
        }
        assert!(ports.iter().all(|&port| port == ports[0] && port >= 49_152), "{ports:?}");
        let counters = node.settled(|counters| counters.core_out.packets == 20);
        assert_eq!((counters.native_in.packets, counters.encapsulated), (20, 20));
    }
}

#[test]
fn de_01_de_07_de_09_lisp_packets_come_out_of_the_tun() {
    for addresses in Addresses::all() {
        let Some(node) = Node::alone(addresses) else { return };
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 7000);
        let from = SocketAddr::new(addresses.remote_eid, 5000);
        let to = SocketAddr::new(addresses.local_eid, 7000);
        for round in 0..20u8 {
            let data = vec![round; usize::from(round) * 60];
            let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
            datagram.extend(udp_packet(from, to, 60, 0, &data));
            peer.send_to(&datagram, SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT))
                .expect("sent");
            let mut buffer = [0; 2000];
            let (len, source) = host.recv_from(&mut buffer).unwrap_or_else(|error| {
                let counters = non_zero(&node.engine().counters());
                panic!("{addresses:?}, round {round}: {error}: {counters:?}")
            });
            assert_eq!((&buffer[..len], source), (&data[..], from), "{addresses:?}");
        }
        let counters = node.settled(|counters| counters.native_out.packets == 20);
        assert_eq!((counters.core_in.packets, counters.decapsulated), (20, 20));
        assert_eq!(counters.dropped_total(), 0, "{:?}", non_zero(&counters));
    }
}

#[test]
fn en_32_an_rtr_sends_on_what_it_receives() {
    let addresses = Addresses::new(false, true);
    let Some(mut node) = Node::alone_with(addresses, Onward::Reencapsulate) else { return };
    node.learn(1500);
    let peer = node.peer_socket();
    let from = SocketAddr::new(addresses.local_eid, 5000);
    let to = SocketAddr::new(addresses.remote_eid, 7000);
    // More packets than there are buffers: every one comes back to the kernel.
    for round in 0..60u8 {
        let data = |index: u8| [vec![round, index], vec![round; usize::from(index) * 60]].concat();
        for index in 0..20 {
            let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
            datagram.extend(udp_packet(from, to, 60, 0, &data(index)));
            let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
            peer.send_to(&datagram, own).expect("sent");
        }
        for index in 0..20 {
            let arrived = receive(&peer);
            assert_eq!(arrived.ttl, 59);
            assert_eq!(arrived.payload[8..], udp_packet(from, to, 59, 0, &data(index)));
        }
    }
    let counters = node.settled(|counters| counters.core_out.packets == 1200);
    assert_eq!((counters.reencapsulated, counters.dropped_total()), (1200, 0));
}

#[test]
fn de_05_de_28_bad_packets_are_dropped_and_counted() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    let peer = node.peer_socket();
    let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
    peer.send_to(&[], own).expect("sent");
    peer.send_to(&[0; 12], own).expect("sent");
    peer.send_to(&[0; 60], own).expect("sent");
    let counters = node.settled(|counters| counters.core_in.packets == 3);
    assert_eq!(counters.dropped(DropReason::LispHeaderTruncated), 2);
    assert_eq!(counters.dropped(DropReason::InnerMalformed), 1);
}

#[test]
fn de_03_de_27_a_wrong_checksum_is_dropped_in_silence() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
    let peer = SocketAddr::new(addresses.peer_rloc, 50_000);
    let listener = node.namespace.run(move || {
        let icmp = Some(socket2::Protocol::ICMPV4);
        let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, icmp)
            .expect("a raw socket");
        listener.set_nonblocking(true).expect("an option");
        let sender = socket2::Socket::new(
            socket2::Domain::IPV4,
            socket2::Type::RAW,
            Some(socket2::Protocol::from(libc::IPPROTO_RAW)),
        )
        .expect("a raw socket");
        let mut packet = udp_packet(peer, own, 60, 0, &[0; 60]);
        packet[26] ^= 0x55;
        sender.send_to(&packet, &own.into()).expect("sent");
        packet[26] ^= 0x55;
        sender.send_to(&packet, &own.into()).expect("sent");
        listener
    });
    let counters = node.settled(|counters| counters.core_in.packets > 0);
    assert_eq!(counters.core_in.packets, 1, "only the one with the right checksum");
    assert_eq!(counters.dropped(DropReason::InnerMalformed), 1);
    let answer = std::io::Read::read(&mut &listener, &mut [0; 100]);
    assert_eq!(answer.expect_err("no answer").kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn the_first_packet_is_held_until_its_mapping_comes() {
    let addresses = Addresses::new(false, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    let peer = node.peer_socket();
    let host = node.socket(addresses.local_eid, 5000);
    for data in [&b"first"[..], &[b'x'; 1000], b"third"] {
        host.send_to(data, SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
    }
    let counters = node.settled(|counters| counters.held == 3);
    assert_eq!(counters.native_in.packets, 3);
    match node.punts.pop() {
        Some(Punt::Miss { destination, source }) => {
            assert_eq!(destination.address, addresses.remote_eid);
            assert_eq!(source, addresses.local_eid);
        }
        other => panic!("{other:?}"),
    }
    assert!(node.punts.pop().is_none(), "one punt for one EID");
    node.learn(1500);
    assert!(receive(&peer).payload.ends_with(b"first"));
    assert!(receive(&peer).payload.ends_with(&[b'x'; 1000]));
    assert!(receive(&peer).payload.ends_with(b"third"));
    let counters = node.settled(|counters| counters.held == 0);
    assert_eq!((counters.core_out.packets, counters.dropped_total()), (3, 0));
}

#[test]
fn held_packets_leave_before_those_that_came_later() {
    let addresses = Addresses::new(false, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    let peer = node.peer_socket();
    let to = SocketAddr::new(addresses.remote_eid, 7000);
    for round in 0..60 {
        let host = node.socket(addresses.local_eid, 0);
        let sender = std::thread::spawn(move || {
            for number in 0..14u8 {
                host.send_to(&[number], to).expect("sent");
                // Long enough for the mapping to come in the middle.
                (0..number).for_each(|_| std::thread::yield_now());
            }
        });
        while node.engine().counters().held == 0 {
            std::thread::yield_now();
        }
        node.learn(1500);
        let numbers: Vec<u8> =
            (0..14).map(|_| *receive(&peer).payload.last().expect("an octet")).collect();
        assert!(numbers.is_sorted(), "round {round}: {numbers:?}");
        sender.join().expect("all sent");
        node.forget();
    }
    node.settled(|counters| counters.core_out.packets == 60 * 14);
}

#[test]
fn mt_06_mt_07_too_big_packets_are_answered() {
    for addresses in [Addresses::new(true, true), Addresses::new(false, true)] {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1400);
        let host = node.socket(addresses.local_eid, 5000);
        host.send_to(&[7; 1380], SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
        let counters = node.settled(|counters| counters.native_in.packets > 0);
        assert_eq!(counters.dropped(DropReason::PacketTooBig), 1, "{:?}", non_zero(&counters));
        match node.punts.pop() {
            Some(Punt::IcmpError { destination, message }) => {
                assert_eq!(destination, addresses.local_eid);
                assert_eq!(message[4..8], 1364u32.to_be_bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mt_11_mt_14_a_report_from_the_path_lowers_the_mtu() {
    for addresses in [Addresses::new(false, true), Addresses::new(true, false)] {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let peer = node.peer_socket();
        let host = node.socket(addresses.local_eid, 5000);
        let to = SocketAddr::new(addresses.remote_eid, 7000);
        host.send_to(&[7; 1300], to).expect("fits");
        let arrived = receive(&peer);
        let v4 = addresses.own_rloc.is_ipv4();
        let [domain, protocol] = if v4 { [libc::AF_INET, 1] } else { [libc::AF_INET6, 58] };
        let message = too_big(addresses, arrived.source.port(), 1300);
        let router = SocketAddr::new(addresses.peer_rloc, 0);
        let own = SocketAddr::new(addresses.own_rloc, 0);
        node.namespace.run(move || {
            let socket =
                socket2::Socket::new(domain.into(), socket2::Type::RAW, Some(protocol.into()))
                    .expect("a raw socket");
            socket.bind(&router.into()).expect("an own address");
            socket.send_to(&message, &own.into()).expect("sent");
        });
        node.settled(|counters| counters.path_mtu_lowered == 1);
        host.send_to(&[7; 1350], to).expect("sent");
        let counters = node.settled(|counters| counters.native_in.packets == 2);
        assert_eq!(counters.dropped(DropReason::PacketTooBig), 1, "{:?}", non_zero(&counters));
        match node.punts.pop() {
            Some(Punt::IcmpError { message, .. }) => {
                let inner_mtu: u32 = if v4 { 1300 - 36 } else { 1300 - 56 };
                // An IPv6 source cannot be told less than 1280.
                let told = if v4 { inner_mtu.max(1280) } else { inner_mtu };
                assert_eq!(message[4..8], told.to_be_bytes());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn mt_10_an_own_interface_smaller_than_l_is_found_out() {
    let addresses = Addresses::new(false, false);
    let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
    client.namespace.set_mtu("core0", 1400);
    let host = client.socket(addresses.local_eid, 5000);
    let remote = server.socket(addresses.remote_eid, 7000);
    let to = SocketAddr::new(addresses.remote_eid, 7000);
    host.send_to(&[7; 1380], to).expect("sent");
    let counters = client.settled(|counters| counters.path_mtu_lowered == 1);
    assert_eq!(counters.dropped(DropReason::SendFailed), 1);
    host.send_to(&[7; 1380], to).expect("sent");
    client.settled(|counters| counters.dropped(DropReason::PacketTooBig) == 1);
    assert!(matches!(client.punts.pop(), Some(Punt::IcmpError { .. })));
    host.send_to(&[7; 1200], to).expect("sent");
    assert_eq!(remote.recv(&mut [0; 2000]).expect("what fits arrives"), 1200);
}

/// What a router says about a packet of ours that it could not pass on.
fn too_big(addresses: Addresses, port: u16, mtu: u16) -> Vec<u8> {
    let from = SocketAddr::new(addresses.own_rloc, port);
    let to = SocketAddr::new(addresses.peer_rloc, lisp::DATA_PORT);
    let quoted = udp_packet(from, to, 60, 0, &[0; 100]);
    let kind = if addresses.own_rloc.is_ipv4() { [3, 4] } else { [2, 0] };
    let mut message = [&kind[..], &[0, 0, 0, 0], &mtu.to_be_bytes(), &quoted].concat();
    if addresses.own_rloc.is_ipv4() {
        let checksum = checksum::internet(&message);
        message[2..4].copy_from_slice(&checksum);
    }
    message
}

#[test]
fn a_removed_tun_ends_the_worker_with_a_reason() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    assert_eq!(node.engine().failure(), None);
    node.namespace.delete_link(TUN);
    let deadline = Instant::now() + PATIENCE;
    while node.engine().failure().is_none() {
        assert!(Instant::now() < deadline, "the removal goes unnoticed");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_tun_that_is_down_costs_packets_and_goes_on_when_it_is_up() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    let (peer, host) = (node.peer_socket(), node.socket(addresses.local_eid, 7000));
    let (from, to) =
        (SocketAddr::new(addresses.remote_eid, 5000), SocketAddr::new(addresses.local_eid, 7000));
    let send = || {
        let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
        datagram.extend(udp_packet(from, to, 60, 0, b"packet"));
        peer.send_to(&datagram, SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT))
            .expect("sent");
    };
    node.namespace.set_up(TUN, false);
    for sent in 1..=3 {
        send();
        node.settled(|counters| counters.dropped(DropReason::TunWriteFailed) == sent);
    }
    node.namespace.set_up(TUN, true);
    // Its routes went with it.
    node.namespace.add_route(wide_prefix(addresses.remote_eid), TUN, addresses.local_eid);
    send();
    assert_eq!(host.recv(&mut [0; 100]).expect("arrives"), 6);
    assert_eq!(node.engine().failure(), None);
}

#[test]
fn en_29_tcp_bulk_arrives_intact_in_bursts() {
    for addresses in Addresses::all() {
        let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
        bulk(&client, &server);
        let sent = client.settled(|counters| counters.core_out.packets > 0);
        let received = server.settled(|counters| counters.core_in.packets > 0);
        println!("{addresses:?}\n{:?}\n{:?}", non_zero(&sent), non_zero(&received));
        assert_eq!(sent.native_in, sent.core_out, "octets count as on the wire");
        assert_eq!(received.core_in, received.native_out);
        assert!(sent.core_out.packets > 4 * sent.core_bursts, "super-packets leave as bursts");
        assert!(received.native_out.packets > 4 * received.native_writes, "and are merged again");
    }
}

#[test]
fn de_02_en_20_zero_checksums_are_sent_and_accepted() {
    for addresses in [Addresses::new(false, true), Addresses::new(true, false)] {
        let zero = |config| DataConfig { zero_udp_checksum: true, ..config };
        let Some([client, server]) = Node::pair(addresses, zero) else { return };
        bulk(&client, &server);
        let sent = client.settled(|counters| counters.core_out.packets > 0);
        assert_eq!(sent.core_out.packets, sent.core_bursts, "such a socket cannot send bursts");
        assert_eq!(sent.dropped(DropReason::SendFailed), 0, "{:?}", non_zero(&sent));
        let received = server.settled(|counters| counters.core_in.packets > 0);
        let (packets, writes) = (received.native_out.packets, received.native_writes);
        println!(
            "{packets} packets without checksum, which the kernel does not merge: {writes} writes"
        );
        assert!(packets > 2 * writes, "they are merged here: {:?}", non_zero(&received));
    }
}

#[test]
fn a_flow_stays_in_order() {
    let addresses = Addresses::new(false, true);
    let Some([client, server]) = Node::pair(addresses, |config| config) else { return };
    let host = client.socket(addresses.local_eid, 5000);
    let remote = server.socket(addresses.remote_eid, 7000);
    let mut number = 0u32;
    for round in 0..40u32 {
        for index in 0..50 {
            let len = 4 + ((round * 50 + index) * 37 % 1300) as usize;
            let mut data = vec![0; len];
            data[..4].copy_from_slice(&(round * 50 + index).to_be_bytes());
            if index % 7 == 0 {
                let class = if index % 2 == 0 { 0 } else { 0xb8 };
                setsockopt(&host, sockopt::Ipv6TClass, &class).expect("option");
            }
            host.send_to(&data, SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
        }
        for _ in 0..50 {
            let mut buffer = [0; 2000];
            let len = remote.recv(&mut buffer).expect("arrives");
            assert!(buffer[..len].starts_with(&number.to_be_bytes()), "packet {number}");
            number += 1;
        }
    }
}

#[test]
fn a_frozen_control_plane_costs_hits_nothing() {
    let addresses = Addresses::new(true, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    node.learn(1500);
    let peer = node.peer_socket();
    let host = node.socket(addresses.local_eid, 5000);
    // Nobody reads the punts, there are more misses than the queue holds, and the table is never written: hits go on.
    let unknown = |host| IpAddr::from([203, 0, 112, host]);
    node.namespace.add_route((unknown(0), 24), TUN, addresses.local_eid);
    for number in 0..200u16 {
        host.send_to(&[0; 10], SocketAddr::new(unknown(1 + number as u8), 9)).expect("sent");
        host.send_to(&number.to_be_bytes(), SocketAddr::new(addresses.remote_eid, 7000))
            .expect("sent");
        assert!(receive(&peer).payload.ends_with(&number.to_be_bytes()));
    }
    let counters = node.settled(|counters| counters.core_out.packets == 200);
    assert!(counters.dropped_total() > 0, "misses are: {:?}", non_zero(&counters));
    // The table's writer is gone: everything is a miss, nothing breaks.
    let (empty, _) = FibWriter::new();
    node.fib = empty;
    host.send_to(b"x", SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
    let waiting = counters.held + counters.dropped_total();
    node.settled(|counters| counters.held + counters.dropped_total() == waiting + 1);
}

#[test]
fn an_engine_restarts_at_once() {
    let addresses = Addresses::new(true, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    for _ in 0..3 {
        node.engine.take().expect("running").stop();
        let config = config(addresses, 2);
        let (_, factory) = FibWriter::new();
        let engine = node
            .namespace
            .run(move || {
                Engine::start(
                    &config,
                    Arc::new(Open { onward: Onward::Deliver }),
                    &factory,
                    punt::queue(1).0,
                )
            })
            .expect("restarts");
        assert_eq!(engine.workers(), 2);
        node.engine = Some(engine);
    }
}

#[test]
fn a_failed_start_says_what_failed() {
    let Some(namespace) = Namespace::new() else { return };
    let config = config(Addresses::new(true, true), 1);
    let error = namespace
        .run(move || {
            let (_, factory) = FibWriter::new();
            Engine::start(
                &config,
                Arc::new(Open { onward: Onward::Deliver }),
                &factory,
                punt::queue(1).0,
            )
        })
        .expect_err("the RLOC is on no interface");
    assert!(error.to_string().contains("198.51.100.1 port 4341"), "{error}");
}

const BULK: usize = 10_000_000;

fn bulk(client: &Node, server: &Node) {
    let address = SocketAddr::new(client.addresses.remote_eid, 8000);
    let listener = server.namespace.run(move || TcpListener::bind(address)).expect("a listener");
    limit_segments(&listener);
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut received = Vec::with_capacity(BULK);
        stream.read_to_end(&mut received).expect("all of it");
        received
    });
    let sent: Vec<u8> =
        (0..BULK as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let data = sent.clone();
    client.namespace.run(move || {
        let domain = if address.is_ipv4() { socket2::Domain::IPV4 } else { socket2::Domain::IPV6 };
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).expect("a socket");
        limit_segments(&socket);
        socket.connect_timeout(&address.into(), PATIENCE).expect("connected");
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        stream.write_all(&data).expect("taken");
    });
    let received = receiver.join().expect("received");
    assert_eq!(received.len(), sent.len());
    assert!(received == sent, "octets changed on the way");
}

/// As Packet Too Big would, had the test a control plane to send it.
fn limit_segments(socket: &impl std::os::fd::AsFd) {
    socket2::SockRef::from(socket).set_tcp_mss(1380).expect("an MSS");
}
