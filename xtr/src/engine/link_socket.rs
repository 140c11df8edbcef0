//! Packet sockets of the control plane: ARP and Neighbor Discovery of one interface, nothing else, and a few frames out of it.
//!
//! Bound to one EtherType each, so that the kernel asks them about no other packet: other than the rings, they cost nothing on the packet
//! path. What this host sends itself, and what belongs to a VLAN, is not theirs.
#![allow(unsafe_code, reason = "the address of a packet socket")]
use super::sys::{self, set_option, set_words};
use socket2::{SockFilter, SockRef};
use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Linux's value that libc lacks.
const PACKET_IGNORE_OUTGOING: c_int = 23;
/// Where a classic program reads what is not in the frame (`SKF_AD_OFF`), and whether it came with a VLAN tag.
const OUTSIDE: u32 = (-0x1000_i32).cast_unsigned();
const VLAN_TAG: u32 = OUTSIDE + 48;

const LOAD_OCTET: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const JUMP_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Offsets in a frame of IPv6.
const NEXT_HEADER: u32 = 14 + 6;
const ICMPV6_TYPE: u32 = 14 + 40;
const ICMPV6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// What a socket listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkProtocol {
    /// ARP.
    Arp,
    /// Neighbor Solicitations and Advertisements, to whatever group.
    NeighbourDiscovery,
}

/// A packet socket on one interface.
#[derive(Debug)]
pub(crate) struct LinkSocket(AsyncFd<OwnedFd>);

impl LinkSocket {
    /// Listens on the interface with this index; within a tokio runtime.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn open(interface: u32, protocol: LinkProtocol) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a plain system call; the descriptor it returns is ours alone. Without a protocol nothing arrives until it is bound.
        let socket = unsafe {
            let descriptor = libc::socket(libc::AF_PACKET, flags, 0);
            sys::check(descriptor)?;
            OwnedFd::from_raw_fd(descriptor)
        };
        set_option(socket.as_fd(), libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)?;
        let ethertype = match protocol {
            LinkProtocol::Arp => {
                SockRef::from(&socket).attach_filter(&untagged(Vec::new()))?;
                libc::ETH_P_ARP
            }
            LinkProtocol::NeighbourDiscovery => {
                SockRef::from(&socket).attach_filter(&untagged(neighbour_discovery()))?;
                // The groups that hosts solicit are theirs, not ours. `struct packet_mreq`: index, type and no address.
                let [low, high] = (libc::PACKET_MR_ALLMULTI as u16).to_ne_bytes();
                let membership = [interface, u32::from_ne_bytes([low, high, 0, 0]), 0, 0];
                let option = libc::PACKET_ADD_MEMBERSHIP;
                set_words(socket.as_fd(), libc::SOL_PACKET, option, &membership)?;
                libc::ETH_P_IPV6
            }
        };
        bind(&socket, interface, ethertype as u16)?;
        // SAFETY: an owned descriptor stays the same and open until it is dropped, which the AsyncFd does after it has let go of it.
        Ok(Self(unsafe { AsyncFd::register(socket) }?))
    }

    /// Waits for the next frame, cut to `into`. Cancel-safe.
    ///
    /// # Errors
    /// What the kernel said: the interface is down.
    pub(crate) async fn receive(&self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let mut ready = self.0.readable().await?;
            let read = |socket: &AsyncFd<OwnedFd>| {
                nix::unistd::read(socket.get_ref(), into).map_err(io::Error::from)
            };
            if let Ok(outcome) = ready.try_io(read) {
                return outcome;
            }
        }
    }

    /// Sends a frame out of the interface without waiting.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn send(&self, frame: &[u8]) -> io::Result<()> {
        nix::unistd::write(self.0.get_ref(), frame).map(drop).map_err(io::Error::from)
    }
}

fn bind(socket: &OwnedFd, interface: u32, ethertype: u16) -> io::Result<()> {
    // SAFETY: all fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = ethertype.to_be();
    address.sll_ifindex = interface.cast_signed();
    let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the pointer and length describe `address`, which outlives the call.
    sys::check(unsafe { libc::bind(socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len) })
}

/// `rest` for frames without a VLAN tag; it ends in taking a frame or leaving it, and an empty one takes every frame.
fn untagged(rest: Vec<SockFilter>) -> Vec<SockFilter> {
    let mut program = vec![
        SockFilter::new(LOAD_OCTET, 0, 0, VLAN_TAG),
        SockFilter::new(JUMP_EQUAL, 1, 0, 0),
        SockFilter::new(RETURN, 0, 0, 0),
    ];
    program.extend(rest);
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program
}

fn neighbour_discovery() -> Vec<SockFilter> {
    vec![
        SockFilter::new(LOAD_OCTET, 0, 0, NEXT_HEADER),
        SockFilter::new(JUMP_EQUAL, 0, 3, ICMPV6),
        SockFilter::new(LOAD_OCTET, 0, 0, ICMPV6_TYPE),
        SockFilter::new(JUMP_EQUAL, 2, 0, SOLICITATION),
        SockFilter::new(JUMP_EQUAL, 1, 0, ADVERTISEMENT),
        SockFilter::new(RETURN, 0, 0, 0),
    ]
}
