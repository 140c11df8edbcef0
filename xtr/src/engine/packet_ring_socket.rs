//! A packet socket with a ring of frames that the kernel fills (PACKET_RX_RING, TPACKET_V2) and its memory.
//!
//! TPACKET_V2, not V3: a frame can be read as soon as it is written, where V3 waits for a block to fill or for a timer of at least a
//! millisecond. Its frames have one size. They are made for what a link carries ([`FRAME_LEN`]); a larger packet, from a super-packet to a
//! jumbo frame, waits whole in the socket (PACKET_COPY_THRESH), its frame says so, and it is read from there, in its turn.
#![allow(unsafe_code, reason = "packet sockets and the memory they share")]
use super::sys::{self, set_option, set_words};
use crate::packet::VirtioNetHeader;
use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

/// Frames per ring: four milliseconds of a million packets per second.
pub(super) const FRAMES: u16 = 4096;
/// Octets per frame: a packet of 1500 octets with all that the kernel puts before it. Must divide [`BLOCK_LEN`].
pub(super) const FRAME_LEN: usize = 2048;
/// The kernel allocates the ring in blocks of this size.
const BLOCK_LEN: usize = 64 << 10;
const RING_LEN: usize = FRAMES as usize * FRAME_LEN;
/// Packets larger than a frame wait in the socket's buffer.
const SOCKET_BUFFER: c_int = 32 << 20;

/// Linux's values that libc lacks.
const PACKET_COPY_THRESH: c_int = 7;
const PACKET_IGNORE_OUTGOING: c_int = 23;
const PACKET_FANOUT_FLAG_IGNORE_OUTGOING: c_int = 0x4000;
const PACKET_FANOUT_FLAG_UNIQUEID: c_int = 0x2000;
const ARPHRD_ETHER: u16 = 1;

/// Status of a frame.
const KERNEL: u32 = 0;
const USER: u32 = 1;
/// The packet is larger than the frame, and waits whole in the socket.
const COPY: u32 = 2;

/// The start of `struct tpacket2_hdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct FrameHeader {
    _status: u32,
    len: u32,
    captured: u32,
    mac: u16,
}

/// What a frame holds that the kernel has filled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filled {
    /// A packet with its virtio-net header: offset in the frame and octets.
    Packet(usize, usize),
    /// The start of a packet that waits whole in the socket.
    InSocket,
    /// The start of a packet that found no room in the socket.
    CutOff,
}

/// A packet socket and its ring.
#[derive(Debug)]
pub(super) struct PacketSocket {
    socket: OwnedFd,
    ring: NonNull<u8>,
}

// SAFETY: the ring is memory like a Box's, of a mapping that no thread owns. All access to it goes through the methods below: the
// status words are atomic, and `packet` is unsafe, its caller promises to be alone with the frame.
unsafe impl Send for PacketSocket {}
// SAFETY: as above.
unsafe impl Sync for PacketSocket {}

impl PacketSocket {
    /// `count` sockets on the interface `name` that share its packets by flow; none of them takes any before it has another filter.
    pub(super) fn group(name: &str, count: usize) -> io::Result<Vec<Self>> {
        let index = nix::net::if_::if_nametoindex(name)?;
        let mut sockets = Vec::with_capacity(count);
        let mut fanout = None;
        for _ in 0..count {
            let socket = Self::open(name, index)?;
            if count > 1 {
                fanout = Some(socket.join(fanout)?);
            }
            sockets.push(socket);
        }
        Ok(sockets)
    }

    fn open(name: &str, index: u32) -> io::Result<Self> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: a plain system call; the descriptor it returns is ours alone.
        let socket = unsafe {
            let descriptor = libc::socket(libc::AF_PACKET, flags, 0);
            sys::check(descriptor)?;
            OwnedFd::from_raw_fd(descriptor)
        };
        if sys::hardware_type(socket.as_fd(), name)? != ARPHRD_ETHER {
            let text = format!("{name} is no Ethernet interface");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let packet = |option, value| set_option(socket.as_fd(), libc::SOL_PACKET, option, value);
        packet(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as c_int)?;
        packet(libc::PACKET_VNET_HDR, 1)?;
        packet(PACKET_IGNORE_OUTGOING, 1)?;
        packet(PACKET_COPY_THRESH, 1)?;
        // Beyond the system's limit if privileged.
        let level = libc::SOL_SOCKET;
        let _ = set_option(socket.as_fd(), level, libc::SO_RCVBUFFORCE, SOCKET_BUFFER)
            .or_else(|_| set_option(socket.as_fd(), level, libc::SO_RCVBUF, SOCKET_BUFFER));
        let request: [u32; 4] =
            [BLOCK_LEN as u32, (RING_LEN / BLOCK_LEN) as u32, FRAME_LEN as u32, u32::from(FRAMES)];
        set_words(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        sys::refuse_all(socket.as_fd())?;
        let ring = map(&socket)?;
        let opened = Self { socket, ring };
        opened.bind(index)?;
        Ok(opened)
    }

    fn bind(&self, index: u32) -> io::Result<()> {
        // SAFETY: all fields are integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
        address.sll_ifindex = index as c_int;
        let len = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: the pointer and length describe `address`, which outlives the call.
        sys::check(unsafe {
            libc::bind(self.socket.as_raw_fd(), std::ptr::from_ref(&address).cast(), len)
        })
    }

    /// Joins the group, or founds one; returns the group. A flow has one socket of it, in both directions.
    fn join(&self, group: Option<c_int>) -> io::Result<c_int> {
        let flags = libc::PACKET_FANOUT_HASH as c_int
            | PACKET_FANOUT_FLAG_UNIQUEID
            | PACKET_FANOUT_FLAG_IGNORE_OUTGOING;
        let value = group.unwrap_or(flags << 16);
        set_option(self.socket.as_fd(), libc::SOL_PACKET, libc::PACKET_FANOUT, value)?;
        match group {
            Some(group) => Ok(group),
            None => {
                let mut value = [0; 1];
                sys::get_words(
                    self.socket.as_fd(),
                    libc::SOL_PACKET,
                    libc::PACKET_FANOUT,
                    &mut value,
                )?;
                Ok(value[0].cast_signed())
            }
        }
    }

    /// What the kernel put into the frame; `None` while it has the frame. A frame that was not given back stays filled.
    pub(super) fn filled(&self, frame: u16) -> Option<Filled> {
        let status = self.status(frame).load(Ordering::Acquire);
        if status & USER == 0 {
            return None;
        }
        // SAFETY: aligned, in the ring, and written before the status that was just read.
        let header = unsafe { self.start(frame).cast::<FrameHeader>().read() };
        let (len, captured) = (header.len as usize, header.captured as usize);
        if status & COPY != 0 {
            return Some(Filled::InSocket);
        }
        let start = usize::from(header.mac).checked_sub(VirtioNetHeader::LEN);
        let fits = |start: &usize| start + VirtioNetHeader::LEN + captured <= FRAME_LEN;
        match start.filter(fits) {
            Some(start) if captured >= len => {
                Some(Filled::Packet(start, VirtioNetHeader::LEN + captured))
            }
            _ => Some(Filled::CutOff),
        }
    }

    /// `len` octets at `start` in the frame; both as [`Self::filled`] said.
    ///
    /// # Safety
    /// The frame must be filled, and nobody else, no operation either, may use it as long as the slice lives.
    #[allow(clippy::mut_from_ref, reason = "a socket is memory of many frames")]
    pub(super) unsafe fn packet(&self, frame: u16, start: usize, len: usize) -> &mut [u8] {
        assert!(start + len <= FRAME_LEN, "beyond the frame");
        // SAFETY: the range lies in the frame, which lies in the ring; the caller promises the rest.
        unsafe { std::slice::from_raw_parts_mut(self.start(frame).add(start).as_ptr(), len) }
    }

    /// Gives the frame to the kernel.
    pub(super) fn give_back(&self, frame: u16) {
        self.status(frame).store(KERNEL, Ordering::Release);
    }

    /// Has the processor fetch the start of a frame, which the kernel wrote on another core.
    #[inline]
    pub(super) fn prefetch(&self, frame: u16) {
        #[cfg(target_arch = "x86_64")]
        for line in 0..3 {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let address = self.start(frame).as_ptr().wrapping_add(64 * line);
            // SAFETY: a hint that touches nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(address.cast()) };
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = frame;
    }

    /// Reads the packet whose frame said [`Filled::InSocket`], with its virtio-net header; `None` if it does not fit or is not there.
    pub(super) fn receive(&self, into: &mut [u8]) -> Option<usize> {
        // An error that the interface left is reported first, once.
        for _ in 0..3 {
            // SAFETY: the pointer and length describe `into`, which outlives the call.
            let result = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    into.as_mut_ptr().cast::<c_void>(),
                    into.len(),
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                )
            };
            match usize::try_from(result) {
                Ok(len) => return (len <= into.len()).then_some(len),
                Err(_) if io::Error::last_os_error().kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {}
            }
        }
        None
    }

    /// Packets that found the ring full, since this was asked last.
    pub(super) fn take_drops(&self) -> u64 {
        // `struct tpacket_stats`: packets and, of these, drops; reading sets them to 0.
        let mut statistics = [0; 2];
        let asked = sys::get_words(
            self.socket.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            &mut statistics,
        );
        asked.map_or(0, |()| u64::from(statistics[1]))
    }

    /// Takes the error that the interface left when it went down; without that the socket counts as readable.
    pub(super) fn clear_error(&self) {
        let _ = sys::get_words(self.as_fd(), libc::SOL_SOCKET, libc::SO_ERROR, &mut [0]);
    }

    fn status(&self, frame: u16) -> &AtomicU32 {
        // SAFETY: the word is aligned, lies in the ring, and is only ever accessed so.
        unsafe { AtomicU32::from_ptr(self.start(frame).as_ptr().cast()) }
    }

    fn start(&self, frame: u16) -> NonNull<u8> {
        // SAFETY: below FRAMES frames, in the mapping.
        unsafe { self.ring.add(usize::from(frame % FRAMES) * FRAME_LEN) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for PacketSocket {
    fn drop(&mut self) {
        // SAFETY: what mmap returned, with its length, unmapped only here.
        unsafe { libc::munmap(self.ring.as_ptr().cast::<c_void>(), RING_LEN) };
    }
}

const _: () = assert!(BLOCK_LEN.is_multiple_of(FRAME_LEN) && RING_LEN.is_multiple_of(BLOCK_LEN));

fn map(socket: &OwnedFd) -> io::Result<NonNull<u8>> {
    // SAFETY: a shared mapping of the ring at an address of the kernel's choice touches no existing memory.
    let start = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            RING_LEN,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(start.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}
