//! What the kernel has a part in: the outer header as it is sent, outer fragments, and what happens to a packet after decapsulation.
//!
//! ```text
//! peer RLOC on lo --UDP/4341--> own RLOC on lo -- engine -- TUN -- kernel --lan0-- a host in a namespace of its own
//! ```
use crate::namespace::Namespace;
use crate::node::{Addresses, Node, PATIENCE, config, host_len, receive, udp_packet, wide_prefix};
use mapping::eid::InstanceId;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use xtr::config::DataConfig;
use xtr::drops::DropReason;
use xtr::host::sockets::IcmpSockets;
use xtr::packet::{checksum, lisp};
use xtr::policy::Onward;
use xtr::punt::Punt;

/// Sees every packet of one family that arrives in a namespace, from its IP header on.
fn sniffer(namespace: &Namespace, v4: bool) -> Socket {
    let protocol = if v4 { libc::ETH_P_IP } else { libc::ETH_P_IPV6 } as u16;
    namespace.run(move || {
        let protocol = Protocol::from(i32::from(protocol.to_be()));
        let socket =
            Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).expect("a packet socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    })
}

/// The next packet that `wanted` likes.
fn next_packet(sniffer: &Socket, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    loop {
        let mut buffer = vec![0; 65_536];
        let len = (&mut &*sniffer).read(&mut buffer).expect("a packet arrives");
        buffer.truncate(len);
        if wanted(&buffer) {
            return buffer;
        }
    }
}

fn is_lisp_data(packet: &[u8]) -> bool {
    let udp = if packet[0] >> 4 == 4 { 20 } else { 40 };
    packet.get(udp + 2..udp + 4) == Some(&lisp::DATA_PORT.to_be_bytes()[..])
}

fn address_at(packet: &[u8], at: usize, v4: bool) -> IpAddr {
    if v4 {
        IpAddr::from(*packet[at..].first_chunk::<4>().expect("an address"))
    } else {
        IpAddr::from(*packet[at..].first_chunk::<16>().expect("an address"))
    }
}

#[test]
fn cw_01_en_10_en_12_en_18_en_20_every_bit_of_the_outer_header() {
    for (outer_v4, zero_udp_checksum) in
        [(true, false), (true, true), (false, false), (false, true)]
    {
        let addresses = Addresses::new(true, outer_v4);
        let Some(namespace) = Namespace::new() else { return };
        let rlocs = [addresses.own_rloc, addresses.peer_rloc];
        namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
        let config = DataConfig { zero_udp_checksum, ..config(addresses, 1) };
        let mut node = Node::start(namespace, addresses, config, Onward::Deliver);
        node.learn(1500);
        let sniffer = sniffer(&node.namespace, outer_v4);
        for source_port in [5000, 5001] {
            let host = node.socket(addresses.local_eid, source_port);
            setsockopt(&host, sockopt::Ipv4Ttl, &37).expect("option");
            setsockopt(&host, sockopt::Ipv4Tos, &0xba).expect("option");
            let mut labels = BTreeSet::new();
            for len in [10usize, 500, 1400] {
                host.send_to(&vec![7; len], SocketAddr::new(addresses.remote_eid, 7000))
                    .expect("sent");
                let packet = next_packet(&sniffer, is_lisp_data);
                // UDP, LISP, inner IPv4 and inner UDP header.
                let udp_len = 8 + 8 + 20 + 8 + len;
                let udp = if outer_v4 {
                    assert_ipv4(&packet, addresses, udp_len);
                    &packet[20..]
                } else {
                    labels.insert(assert_ipv6(&packet, addresses, udp_len));
                    &packet[40..]
                };
                assert!(u16::from_be_bytes([udp[0], udp[1]]) >= 49_152);
                assert_eq!(udp[2..4], 4341u16.to_be_bytes());
                assert_eq!(usize::from(u16::from_be_bytes([udp[4], udp[5]])), udp_len);
                assert_eq!(udp[6..8] == [0, 0], zero_udp_checksum);
                assert_eq!(udp[8..16], [0; 8]);
            }
            assert!(labels.len() <= 1, "one flow label per flow: {labels:x?}");
        }
    }
}

#[test]
fn cw_01_en_03_the_udp_length_is_that_of_the_inner_packet_and_sixteen() {
    for addresses in Addresses::all() {
        let Some(mut node) = Node::alone(addresses) else { return };
        node.learn(1500);
        let sniffer = sniffer(&node.namespace, addresses.own_rloc.is_ipv4());
        let host = node.socket(addresses.local_eid, 5000);
        for len in [0usize, 1, 501, 1372] {
            host.send_to(&vec![7; len], SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
            let packet = next_packet(&sniffer, is_lisp_data);
            let udp = &packet[if addresses.own_rloc.is_ipv4() { 20 } else { 40 }..];
            let inner = &udp[16..];
            let told = |at: usize, of: &[u8]| usize::from(u16::from_be_bytes([of[at], of[at + 1]]));
            let inner_len = match addresses.local_eid {
                IpAddr::V4(_) => told(2, inner),
                IpAddr::V6(_) => 40 + told(4, inner),
            };
            assert_eq!(told(2, udp), 4341);
            assert_eq!(
                (told(4, udp), inner.len()),
                (8 + 8 + inner_len, inner_len),
                "{addresses:?}"
            );
        }
    }
}

fn assert_ipv4(packet: &[u8], addresses: Addresses, udp_len: usize) {
    assert_eq!(packet[..2], [0x45, 0xba], "no options; DSCP and ECN a copy");
    assert_eq!(usize::from(u16::from_be_bytes([packet[2], packet[3]])), 20 + udp_len);
    assert_eq!(packet[6..8], [0x40, 0], "DF, no fragment");
    assert_eq!(packet[8..10], [37, 17]);
    assert_eq!(checksum::internet(&packet[..20]), [0, 0], "the header's checksum is right");
    let address = |at| address_at(packet, at, true);
    assert_eq!((address(12), address(16)), (addresses.own_rloc, addresses.peer_rloc));
}

/// Returns the flow label.
fn assert_ipv6(packet: &[u8], addresses: Addresses, udp_len: usize) -> u32 {
    let first = u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]]);
    assert_eq!(first >> 20, 0x6ba, "version, DSCP and ECN");
    assert_eq!(usize::from(u16::from_be_bytes([packet[4], packet[5]])), udp_len);
    assert_eq!(packet[6..8], [17, 37], "no extension header; the hop limit a copy");
    let address = |at| address_at(packet, at, false);
    assert_eq!((address(8), address(24)), (addresses.own_rloc, addresses.peer_rloc));
    first & 0xf_ffff
}

#[test]
fn en_11_mt_08_without_df_the_outer_id_does_not_repeat() {
    let addresses = Addresses::new(false, true);
    let Some(mut node) = Node::alone(addresses) else { return };
    node.learn(1300);
    let sniffer = sniffer(&node.namespace, true);
    let host = node.socket(addresses.local_eid, 5000);
    let mut ids = BTreeSet::new();
    for _ in 0..200 {
        // 1280 octets of IPv6: carried, though 36 more exceed the path.
        host.send_to(&[7; 1232], SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
        let packet = next_packet(&sniffer, is_lisp_data);
        assert_eq!(packet[6] & 0x40, 0, "a router may fragment it");
        assert!(ids.insert([packet[4], packet[5]]), "an ID repeats after {}", ids.len());
    }
}

#[test]
fn mt_08_over_ipv6_our_own_host_fragments_the_outer_packet() {
    let addresses = Addresses::new(false, false);
    let Some(mut node) = Node::alone(addresses) else { return };
    node.namespace.set_mtu("lo", 1300);
    node.learn(1300);
    let sniffer = sniffer(&node.namespace, false);
    let peer = node.peer_socket();
    let host = node.socket(addresses.local_eid, 5000);
    host.send_to(&[7; 1232], SocketAddr::new(addresses.remote_eid, 7000)).expect("sent");
    let fragment = next_packet(&sniffer, |packet| packet[6] == 44);
    assert!(fragment.len() <= 1300, "{} octets", fragment.len());
    assert_eq!(receive(&peer).payload.len(), 8 + 1280, "put together at the other end");
}

#[test]
fn de_26_outer_fragments_are_put_together_by_the_kernel() {
    for addresses in Addresses::all() {
        let Some(node) = Node::alone(addresses) else { return };
        node.namespace.set_mtu("lo", 1400);
        let sniffer = sniffer(&node.namespace, addresses.own_rloc.is_ipv4());
        let (peer, host) = (node.peer_socket(), node.socket(addresses.local_eid, 7000));
        let from = SocketAddr::new(addresses.remote_eid, 5000);
        let to = SocketAddr::new(addresses.local_eid, 7000);
        let data: Vec<u8> = (0..4000u32).map(|i| (i % 251) as u8).collect();
        let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
        datagram.extend(udp_packet(from, to, 60, 0, &data));
        let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
        peer.send_to(&datagram, own).expect("sent");
        let fragment = next_packet(&sniffer, |_| true);
        assert!(fragment.len() <= 1400, "{} octets", fragment.len());
        let mut buffer = vec![0; 5000];
        let (len, source) = host.recv_from(&mut buffer).expect("arrives");
        assert_eq!((&buffer[..len], source), (&data[..], from), "{addresses:?}");
        let counters = node.settled(|counters| counters.native_out.packets == 1);
        assert_eq!((counters.core_in.packets, counters.dropped_total()), (1, 0));
    }
}

/// A node that forwards to a host behind it.
struct Site {
    node: Node,
    lan: Namespace,
    router: IpAddr,
    host: IpAddr,
}

impl Site {
    fn new(inner_v4: bool) -> Option<Self> {
        let addresses = Addresses::new(inner_v4, true);
        let (namespace, lan) = (Namespace::new()?, Namespace::new()?);
        let [router, host]: [IpAddr; 2] = if inner_v4 {
            ["10.9.0.1", "10.9.0.2"].map(|text| text.parse().expect("an address"))
        } else {
            ["2001:db8:9::1", "2001:db8:9::2"].map(|text| text.parse().expect("an address"))
        };
        namespace.join(&lan, "lan0");
        let len = if inner_v4 { 24 } else { 64 };
        namespace.add_addresses("lan0", vec![(router, len)]);
        lan.add_addresses("lan0", vec![(host, len)]);
        lan.add_gateway(wide_prefix(addresses.remote_eid), router);
        namespace.run(|| {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("a switch");
            }
        });
        let rlocs = [addresses.own_rloc, addresses.peer_rloc];
        namespace.add_addresses("lo", rlocs.map(|rloc| (rloc, host_len(rloc))).to_vec());
        let mut node = Node::start(namespace, addresses, config(addresses, 1), Onward::Deliver);
        node.learn(1500);
        Some(Self { node, lan, router, host })
    }

    fn addresses(&self) -> Addresses {
        self.node.addresses
    }

    /// Sends a packet to the host behind us through the tunnel.
    fn encapsulate(&self, peer: &UdpSocket, inner: &[u8]) {
        let mut datagram = lisp::encode(InstanceId::DEFAULT).to_vec();
        datagram.extend_from_slice(inner);
        let own = SocketAddr::new(self.addresses().own_rloc, lisp::DATA_PORT);
        peer.send_to(&datagram, own).expect("sent");
    }

    /// An inner packet of `len` octets to the host; its DF is set.
    fn packet(&self, ttl: u8, len: usize) -> Vec<u8> {
        let header = if self.host.is_ipv4() { 28 } else { 48 };
        let from = SocketAddr::new(self.addresses().remote_eid, 5000);
        udp_packet(from, SocketAddr::new(self.host, 7000), ttl, 0, &vec![7; len - header])
    }

    fn listener(&self) -> UdpSocket {
        let address = SocketAddr::new(self.host, 7000);
        let socket = self.lan.run(move || UdpSocket::bind(address)).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket
    }

    /// The ICMP message about one of our packets that comes back through the tunnel: its first 8 octets.
    fn error(&self, peer: &UdpSocket) -> Vec<u8> {
        let arrived = receive(peer).payload.split_off(lisp::HEADER_LEN);
        let (header, protocol) = if self.host.is_ipv4() { (20, 1) } else { (40, 58) };
        assert_eq!(arrived[if header == 20 { 9 } else { 6 }], protocol, "{arrived:x?}");
        arrived[header..header + 8].to_vec()
    }
}

#[test]
fn de_07_de_08_the_last_hop_is_answered_to_the_inner_source() {
    for inner_v4 in [true, false] {
        let Some(site) = Site::new(inner_v4) else { return };
        let (peer, listener) = (site.node.peer_socket(), site.listener());
        // The outer TTL is the smaller one: it becomes the inner one, and the kernel's decrement ends it.
        setsockopt(&peer, sockopt::Ipv4Ttl, &1).expect("option");
        site.encapsulate(&peer, &site.packet(64, 100));
        let expired = if inner_v4 { [11, 0] } else { [3, 0] };
        assert_eq!(site.error(&peer)[..2], expired);
        setsockopt(&peer, sockopt::Ipv4Ttl, &2).expect("option");
        site.encapsulate(&peer, &site.packet(64, 100));
        let expected = if inner_v4 { 72 } else { 52 };
        assert_eq!(listener.recv(&mut [0; 200]).expect("arrives"), expected);
        site.node.settled(|counters| counters.native_out.packets == 2);
    }
}

#[test]
fn mt_22_pe_13_the_link_behind_has_an_mtu_of_its_own() {
    for inner_v4 in [true, false] {
        let Some(site) = Site::new(inner_v4) else { return };
        site.node.namespace.set_mtu("lan0", 1300);
        let (peer, listener) = (site.node.peer_socket(), site.listener());
        site.encapsulate(&peer, &site.packet(64, 1400));
        let error = site.error(&peer);
        assert_eq!(error[..2], if inner_v4 { [3, 4] } else { [2, 0] });
        assert_eq!(error[6..8], 1300u16.to_be_bytes(), "{error:x?}");
        if inner_v4 {
            let sniffer = sniffer(&site.lan, true);
            let mut packet = site.packet(64, 1400);
            (packet[6], packet[10], packet[11]) = (0, 0, 0);
            let sum = checksum::internet(&packet[..20]);
            packet[10..12].copy_from_slice(&sum);
            site.encapsulate(&peer, &packet);
            assert_eq!(listener.recv(&mut [0; 2000]).expect("arrives"), 1400 - 28);
            let first = next_packet(&sniffer, |_| true);
            assert!(first.len() <= 1300 && first[6] & 0x20 != 0, "more fragments follow");
        }
    }
}

#[test]
fn mt_18_an_icmp_error_comes_from_the_interface_that_faces_its_receiver() {
    for inner_v4 in [true, false] {
        let Some(mut site) = Site::new(inner_v4) else { return };
        site.node.learn(1400);
        let sniffer = sniffer(&site.lan, inner_v4);
        let host = site.listener();
        host.send_to(&[7; 1400], SocketAddr::new(site.addresses().remote_eid, 7000)).expect("sent");
        // The kernel says things of its own through a TUN device, too.
        site.node.settled(|counters| counters.dropped(DropReason::PacketTooBig) == 1);
        let Some(Punt::IcmpError { destination, message }) = site.node.punts.pop() else {
            panic!("an ICMP error")
        };
        assert_eq!(destination, site.host);
        site.node.namespace.run(move || {
            let sockets = IcmpSockets::open().expect("raw sockets");
            sockets.send(destination, &message).expect("sent");
        });
        let (protocol_at, source_at, kind_at) = if inner_v4 { (9, 12, 20) } else { (6, 8, 40) };
        let protocol = if inner_v4 { 1 } else { 58 };
        let kind = if inner_v4 { 3 } else { 2 };
        let error = next_packet(&sniffer, |packet| {
            packet[protocol_at] == protocol && packet[kind_at] == kind
        });
        assert_eq!(address_at(&error, source_at, inner_v4), site.router);
    }
}

#[test]
fn de_26_a_lost_outer_fragment_loses_the_packet_and_nothing_else() {
    let addresses = Addresses::new(true, true);
    let Some(node) = Node::alone(addresses) else { return };
    let from = SocketAddr::new(addresses.peer_rloc, 50_000);
    let own = SocketAddr::new(addresses.own_rloc, lisp::DATA_PORT);
    let inner_from = SocketAddr::new(addresses.remote_eid, 5000);
    let inner_to = SocketAddr::new(addresses.local_eid, 7000);
    let inner = udp_packet(inner_from, inner_to, 60, 0, &[7; 600]);
    let datagram = [&lisp::encode(InstanceId::DEFAULT)[..], &inner].concat();
    let mut packet = udp_packet(from, own, 60, 0, &datagram);
    // The first fragment alone: cut to a multiple of 8, MF set.
    packet.truncate(20 + 400);
    packet[2..4].copy_from_slice(&420u16.to_be_bytes());
    (packet[6], packet[10], packet[11]) = (0x20, 0, 0);
    let sum = checksum::internet(&packet[..20]);
    packet[10..12].copy_from_slice(&sum);
    node.namespace.run(move || {
        let raw = Protocol::from(libc::IPPROTO_RAW);
        let sender = Socket::new(Domain::IPV4, Type::RAW, Some(raw)).expect("a raw socket");
        sender.send_to(&packet, &own.into()).expect("sent");
    });
    let (peer, host) = (node.peer_socket(), node.socket(addresses.local_eid, 7000));
    peer.send_to(&datagram, own).expect("sent");
    assert_eq!(host.recv(&mut [0; 1000]).expect("the whole one arrives"), 600);
    let counters = node.settled(|counters| counters.native_out.packets > 0);
    assert_eq!((counters.core_in.packets, counters.dropped_total()), (1, 0));
}
