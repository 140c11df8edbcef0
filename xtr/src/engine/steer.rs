//! Which worker receives a packet: by the inner flow, not by the outer ports alone.
//!
//! Left to itself, SO_REUSEPORT chooses a worker by the outer addresses and ports. Some tunnel routers (OOR, VPP) send everything from one
//! port, so that one worker would have all of a peer's traffic. A classic BPF program, which the kernel runs for each datagram,
//! chooses by the inner addresses, and the ports if they are there: a flow has one worker, whatever its outer ports.
//! Fragments and packets behind extension headers go by their addresses.
//!
//! When a worker is gone, what the program gives to a number that is no longer taken goes by the outer ports.
use crate::packet::headers::{Ipv6Header, protocol};
use crate::packet::lisp::HEADER_LEN;
use libc::sock_filter;
use socket2::Socket;
use std::os::fd::AsFd;

/// Has the kernel choose by inner flow among `workers` sockets that share the address of each of `sockets`. `seed` keeps others from aiming
/// at one worker. Without it (an old kernel) the outer ports decide.
pub(super) fn attach(sockets: &[Socket], workers: usize, seed: [u8; 32]) {
    if workers < 2 {
        return;
    }
    let program = program(workers as u32, seed);
    for socket in sockets {
        if let Err(error) = super::sys::attach_reuseport_program(socket.as_fd(), &program) {
            tracing::warn!(%error, "received packets cannot be spread by inner flow");
            return;
        }
    }
}

/// Offsets from the start of the UDP payload.
const INNER: u32 = HEADER_LEN as u32;
const FRAGMENT_V4: u32 = INNER + 6;
const PROTOCOL_V4: u32 = INNER + 9;
const ADDRESSES_V4: u32 = INNER + 12;
const NEXT_HEADER_V6: u32 = INNER + 6;
const ADDRESSES_V6: u32 = INNER + 8;
const PORTS_V6: u32 = INNER + Ipv6Header::LEN as u32;
/// MF and the fragment offset.
const FRAGMENT_BITS: u32 = 0x3fff;
/// No such socket: the kernel then goes by the outer ports.
const NO_ANSWER: u32 = u32::MAX;

/// The sum of all words, each times a key, is in X throughout.
fn program(workers: u32, seed: [u8; 32]) -> Vec<sock_filter> {
    let keys = keys(seed);
    let ports = [
        alu(libc::BPF_MUL, keys[8]),
        plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X),
        plain(libc::BPF_MISC | libc::BPF_TAX),
    ];
    let finish = [
        plain(libc::BPF_MISC | libc::BPF_TXA),
        alu(libc::BPF_RSH, 16),
        plain(libc::BPF_ALU | libc::BPF_XOR | libc::BPF_X),
        alu(libc::BPF_MUL, keys[9]),
        alu(libc::BPF_RSH, 16),
        alu(libc::BPF_MOD, workers),
        plain(libc::BPF_RET | libc::BPF_A),
    ];
    let mut v6 = words(ADDRESSES_V6, &keys[..8]);
    v6.push(load(libc::BPF_B, NEXT_HEADER_V6));
    v6.extend(unless_it_has_ports(1 + ports.len()));
    v6.push(load(libc::BPF_W, PORTS_V6));

    let mut transport_v4 = vec![load(libc::BPF_B, PROTOCOL_V4)];
    transport_v4.extend(unless_it_has_ports(5 + v6.len() + ports.len()));
    transport_v4.extend([
        statement(libc::BPF_STX, 0),
        statement(libc::BPF_LDX | libc::BPF_MSH | libc::BPF_B, INNER),
        statement(libc::BPF_LD | libc::BPF_IND | libc::BPF_W, INNER),
        statement(libc::BPF_LDX | libc::BPF_MEM, 0),
        statement(libc::BPF_JMP | libc::BPF_JA, v6.len() as u32),
    ]);
    let mut v4 = words(ADDRESSES_V4, &keys[..2]);
    let to_finish = transport_v4.len() + v6.len() + ports.len();
    v4.push(load(libc::BPF_H, FRAGMENT_V4));
    v4.push(jump(libc::BPF_JSET, FRAGMENT_BITS, to_finish, 0));
    v4.extend(transport_v4);

    let head = [
        statement(libc::BPF_LDX | libc::BPF_IMM, keys[10]),
        load(libc::BPF_B, INNER),
        alu(libc::BPF_RSH, 4),
        jump(libc::BPF_JEQ, 6, 2 + v4.len(), 0),
        jump(libc::BPF_JEQ, 4, 1, 0),
        statement(libc::BPF_RET, NO_ANSWER),
    ];
    [&head[..], &v4, &v6, &ports, &finish].concat()
}

/// Odd numbers from the seed; its octets are used more than once.
fn keys(seed: [u8; 32]) -> [u32; 11] {
    const ODD: u32 = 0x9e37_79b1;
    std::array::from_fn(|index| {
        let word = [0, 1, 2, 3].map(|octet| seed[(3 * index + octet) % seed.len()]);
        (u32::from_ne_bytes(word) ^ ODD.rotate_left(index as u32)) | 1
    })
}

/// Adds a key's multiple of each word from `offset` on.
fn words(offset: u32, keys: &[u32]) -> Vec<sock_filter> {
    let word = |(index, &key)| {
        [
            load(libc::BPF_W, offset + 4 * index as u32),
            alu(libc::BPF_MUL, key),
            plain(libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X),
            plain(libc::BPF_MISC | libc::BPF_TAX),
        ]
    };
    keys.iter().enumerate().flat_map(word).collect()
}

/// Skips `distance` instructions if the protocol number in A is none with ports.
fn unless_it_has_ports(distance: usize) -> [sock_filter; 3] {
    [
        jump(libc::BPF_JEQ, u32::from(protocol::TCP), 2, 0),
        jump(libc::BPF_JEQ, u32::from(protocol::UDP), 1, 0),
        jump(libc::BPF_JEQ, u32::from(protocol::SCTP), 0, distance),
    ]
}

fn load(size: u32, offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_ABS | size, offset)
}

fn alu(operation: u32, value: u32) -> sock_filter {
    statement(libc::BPF_ALU | operation | libc::BPF_K, value)
}

fn plain(code: u32) -> sock_filter {
    statement(code, 0)
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// The program is shorter than 255 instructions, so every distance fits.
fn jump(condition: u32, value: u32, if_true: usize, if_false: usize) -> sock_filter {
    let code = (libc::BPF_JMP | condition | libc::BPF_K) as u16;
    sock_filter { code, jt: if_true as u8, jf: if_false as u8, k: value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::headers::Ipv4Header;
    use socket2::{Domain, SockAddr, Type};
    use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    use std::time::Duration;

    const WORKERS: usize = 3;

    /// Sockets that share a port, as those of workers do, and the socket of a peer that sends everything from one port.
    fn sockets(seed: u8) -> (Vec<Socket>, UdpSocket) {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let sockets: Vec<Socket> = (0..WORKERS)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
                socket.set_reuse_port(true).unwrap();
                socket.bind(&SockAddr::from(address)).unwrap();
                socket.set_nonblocking(true).unwrap();
                address = socket.local_addr().unwrap().as_socket().unwrap();
                socket
            })
            .collect();
        attach(&sockets[..1], WORKERS, [seed; 32]);
        let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        peer.connect(address).unwrap();
        (sockets, peer)
    }

    /// The socket that a datagram arrives at.
    fn worker_of(sockets: &[Socket], peer: &UdpSocket, datagram: &[u8]) -> usize {
        peer.send(datagram).unwrap();
        for _ in 0..1000 {
            let mut buffer = [std::mem::MaybeUninit::uninit(); 2000];
            if let Some(at) = sockets.iter().position(|socket| socket.recv(&mut buffer).is_ok()) {
                return at;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        panic!("the datagram is lost");
    }

    fn datagram(v6: bool, number: u8, host: u8, ports: [u8; 4], fragment: u8) -> Vec<u8> {
        let mut packet = vec![0; HEADER_LEN];
        if v6 {
            let mut header = [0; Ipv6Header::LEN];
            (header[0], header[6], header[23], header[39]) = (0x60, number, host, 7);
            packet.extend_from_slice(&header);
        } else {
            let mut header = [0; Ipv4Header::LEN + 4];
            (header[0], header[6], header[9], header[15], header[19]) =
                (0x46, fragment, number, host, 7);
            packet.extend_from_slice(&header);
        }
        packet.extend_from_slice(&ports);
        packet
    }

    #[test]
    fn a_peers_flows_from_one_port_are_spread_and_each_stays_with_one_worker() {
        for (seed, v6) in [(1, true), (2, false)] {
            let (sockets, peer) = sockets(seed);
            let mut received = [0; WORKERS];
            for flow in 0..60u8 {
                // Now other ports, now another host.
                let (host, ports) =
                    if flow % 2 == 0 { (1, [0, flow, 1, 1]) } else { (flow, [9; 4]) };
                let number = if flow % 3 == 0 { protocol::TCP } else { protocol::UDP };
                let packet = datagram(v6, number, host, ports, 0);
                let worker = worker_of(&sockets, &peer, &packet);
                received[worker] += 1;
                let longer = [&packet[..], &[flow; 900]].concat();
                assert_eq!(worker_of(&sockets, &peer, &longer), worker, "flow {flow}");
            }
            assert!(received.iter().all(|&count| count > 5), "v6 {v6}: {received:?}");
        }
    }

    #[test]
    fn the_fragments_of_a_datagram_meet_at_one_worker() {
        let (sockets, peer) = sockets(3);
        let first = datagram(false, protocol::UDP, 1, [1, 2, 3, 4], 0x20);
        let worker = worker_of(&sockets, &peer, &first);
        for content in 0..20 {
            let later = datagram(false, protocol::UDP, 1, [content; 4], 0x01);
            assert_eq!(worker_of(&sockets, &peer, &later), worker);
            let behind_extensions = datagram(true, protocol::FRAGMENT, 1, [content; 4], 0);
            let again = datagram(true, protocol::FRAGMENT, 1, [0; 4], 0);
            assert_eq!(
                worker_of(&sockets, &peer, &behind_extensions),
                worker_of(&sockets, &peer, &again)
            );
        }
    }

    #[test]
    fn what_is_no_packet_arrives_somewhere() {
        let (sockets, peer) = sockets(4);
        let whole = datagram(false, protocol::UDP, 1, [1, 2, 3, 4], 0);
        for len in 0..whole.len() {
            worker_of(&sockets, &peer, &whole[..len]);
        }
        worker_of(&sockets, &peer, &[0xff; 60]);
    }

    #[test]
    fn a_flow_whose_worker_is_gone_has_another() {
        let (mut sockets, peer) = sockets(5);
        sockets.remove(1);
        for flow in 0..30 {
            let packet = datagram(true, protocol::UDP, 1, [0, flow, 1, 1], 0);
            worker_of(&sockets, &peer, &packet);
        }
    }
}
