//! Intake from packet sockets instead of the TUN: fewer steps in the kernel, and no system call per packet.
//!
//! | file | what |
//! |---|---|
//! | `packet_ring` | the rings of one worker: which frame is next, and who still uses which |
//! | `packet_ring_socket` | a socket and its ring's memory |
//! | `packet_ring_filter` | the program that says which packets are taken |
//! | `packet_ring_gate` | the attachment of that program, which also keeps the kernel from forwarding the same packets |
//!
//! A frame becomes what a read from the TUN gives (`packet::arrival`) and goes the same way. Operations may point into it; then it goes back
//! to the kernel when the last of them is done. The kernel fills frames strictly in turn: one that is held for long holds up the ring,
//! and what finds it full is dropped and counted.
#![allow(unsafe_code, reason = "memory that operations point into")]
use super::buffers::{BUFFER_LEN, BufferRef, Pool};
use super::packet_ring_socket::{FRAMES, Filled, PacketSocket};
use super::sys::Region;
use crate::counters::{Traffic, WorkerCounters};
use crate::drops::DropReason;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Packets larger than a frame, under way at a time.
const LARGE: u16 = 128;
/// How many frames ahead the processor is told to fetch.
const AHEAD: u16 = 4;

/// All rings of one worker, one per interface.
#[derive(Debug)]
pub(super) struct PacketRings {
    rings: Vec<PacketRing>,
    large: Large,
}

#[derive(Debug)]
struct PacketRing {
    socket: Arc<PacketSocket>,
    /// The frame that the kernel fills next, or has filled.
    next: u16,
    /// Users of each frame; those that the kernel has and those that wait to be taken have none.
    users: Box<[u16]>,
}

/// A frame as [`crate::packet::arrival::take`] wants it.
pub(super) enum Taken<'a> {
    /// A packet; [`PacketRings::settle`] must follow.
    Packet(BufferRef, &'a mut [u8]),
    /// It did not fit anywhere.
    CutOff,
}

impl PacketRings {
    /// The rings of one worker.
    pub(super) fn new(sockets: Vec<Arc<PacketSocket>>) -> io::Result<Self> {
        let large = if sockets.is_empty() { 0 } else { LARGE };
        let ring = |socket| PacketRing { socket, next: 0, users: vec![0; FRAMES.into()].into() };
        Ok(Self { rings: sockets.into_iter().map(ring).collect(), large: Large::new(large)? })
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.rings.len()
    }

    /// What to poll for frames of the ring numbered so.
    pub(super) fn descriptor(&self, ring: usize) -> Option<BorrowedFd<'_>> {
        self.rings.get(ring).map(|ring| ring.socket.as_fd())
    }

    /// A poll of the ring ended with an error: its interface went down, or away.
    pub(super) fn clear_error(&self, ring: usize) {
        if let Some(ring) = self.rings.get(ring) {
            ring.socket.clear_error();
        }
    }

    /// The frames that [`Self::take`] will give next, up to `limit`, to look at before. Leaves out those larger than a frame.
    pub(super) fn waiting(&self, ring: usize, limit: u16) -> impl Iterator<Item = &[u8]> {
        let filled = self.rings.get(ring).into_iter().flat_map(move |ring| {
            let frames = (0..limit).map(|ahead| (ring.next + ahead) % FRAMES);
            let free = frames.take_while(|&frame| ring.users[usize::from(frame)] == 0);
            free.map_while(|frame| Some((&ring.socket, frame, ring.socket.filled(frame)?)))
        });
        filled.filter_map(|(socket, frame, filled)| match filled {
            Filled::Packet(start, len) => {
                socket.prefetch((frame + AHEAD) % FRAMES);
                // SAFETY: the frame is filled and has no users; `take` cannot give it to one while `self` is borrowed.
                Some(&*unsafe { socket.packet(frame, start, len) })
            }
            Filled::InSocket | Filled::CutOff => None,
        })
    }

    /// The next frame of the ring numbered so; `None` if there is none, or no room for what it announces.
    pub(super) fn take(&mut self, ring: usize) -> Option<Taken<'_>> {
        let Self { rings, large } = self;
        let pool = Pool::Native(ring as u8);
        let ring = rings.get_mut(ring)?;
        let frame = ring.next;
        if ring.users[usize::from(frame)] != 0 {
            // Once around: filled it is, but not anew.
            return None;
        }
        let filled = ring.socket.filled(frame)?;
        ring.socket.prefetch((frame + AHEAD) % FRAMES);
        let taken = match filled {
            Filled::Packet(start, len) => {
                ring.users[usize::from(frame)] = 1;
                // SAFETY: the frame is filled, and had no users until now, so that no operation points into it.
                let octets = unsafe { ring.socket.packet(frame, start, len) };
                Taken::Packet(BufferRef { pool, id: frame }, octets)
            }
            Filled::InSocket => {
                let (id, buffer) = large.claim()?;
                let received = ring.socket.receive(buffer);
                ring.socket.give_back(frame);
                match received {
                    Some(len) => {
                        let buffer_ref = BufferRef { pool: Pool::Large, id };
                        Taken::Packet(buffer_ref, &mut large.buffer(id)[..len])
                    }
                    None => {
                        large.release(id);
                        Taken::CutOff
                    }
                }
            }
            Filled::CutOff => {
                ring.socket.give_back(frame);
                Taken::CutOff
            }
        };
        ring.next = (frame + 1) % FRAMES;
        Some(taken)
    }

    /// The packet is dealt with, and `operations` queued operations point into its frame.
    pub(super) fn settle(&mut self, buffer: BufferRef, operations: u16) {
        if let Some(users) = self.users(buffer) {
            *users += operations;
        }
        self.release(buffer);
    }

    /// One user of the frame is done.
    pub(super) fn release(&mut self, buffer: BufferRef) {
        let Some(users) = self.users(buffer) else { return };
        *users = users.saturating_sub(1);
        if *users > 0 {
            return;
        }
        match buffer.pool {
            Pool::Native(ring) => {
                if let Some(ring) = self.rings.get(usize::from(ring)) {
                    ring.socket.give_back(buffer.id);
                }
            }
            _ => self.large.free.push(buffer.id),
        }
    }

    /// Counts the packets that found a ring full: they came in, and are lost.
    pub(super) fn count_drops(&self, counters: &WorkerCounters) {
        let drops = self.rings.iter().map(|ring| ring.socket.take_drops()).sum();
        if drops > 0 {
            counters.native_in(Traffic { packets: drops, octets: 0 });
            counters.dropped(DropReason::NativeRingFull, drops);
        }
    }

    fn users(&mut self, buffer: BufferRef) -> Option<&mut u16> {
        let id = usize::from(buffer.id);
        match buffer.pool {
            Pool::Native(ring) => self.rings.get_mut(usize::from(ring))?.users.get_mut(id),
            Pool::Large => self.large.users.get_mut(id),
            _ => None,
        }
    }
}

/// Buffers for packets larger than a frame. Only pages that were written exist.
#[derive(Debug)]
struct Large {
    memory: Option<Region>,
    users: Box<[u16]>,
    free: Vec<u16>,
}

impl Large {
    fn new(count: u16) -> io::Result<Self> {
        let len = usize::from(count) * BUFFER_LEN;
        let memory = if len == 0 { None } else { Some(Region::new(len)?) };
        let users = vec![0; count.into()].into();
        Ok(Self { memory, users, free: (0..count).rev().collect() })
    }

    fn claim(&mut self) -> Option<(u16, &mut [u8])> {
        let id = self.free.pop()?;
        self.users[usize::from(id)] = 1;
        Some((id, self.buffer(id)))
    }

    /// For whoever claimed it, until operations point into it.
    fn buffer(&mut self, id: u16) -> &mut [u8] {
        let Some(memory) = &self.memory else { return &mut [] };
        assert!(usize::from(id) < self.users.len(), "one of the buffers");
        // SAFETY: the range lies in the region. A claimed buffer has no user but the one who claimed it, and no operation points into it
        // before that one settles it: the borrow of `self` is the only access.
        unsafe {
            let start = memory.start().add(usize::from(id) * BUFFER_LEN);
            std::slice::from_raw_parts_mut(start.as_ptr(), BUFFER_LEN)
        }
    }

    /// Gives back a buffer that nothing was put into.
    fn release(&mut self, id: u16) {
        self.users[usize::from(id)] = 0;
        self.free.push(id);
    }
}
