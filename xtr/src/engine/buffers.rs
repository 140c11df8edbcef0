//! Receive buffers that the kernel fills (a provided-buffer ring) and that outgoing packets point into until they are sent.
#![allow(unsafe_code, reason = "memory shared with the kernel")]
use super::sys::Region;
use io_uring::IoUring;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Octets per buffer: the largest packet with everything the kernel puts before it, in whole cache lines. An odd number of lines, so that
/// the starts of the buffers, which is all that small packets use, do not fall into few sets of the cache.
pub(super) const BUFFER_LEN: usize = 1033 * 64;
const _: () = assert!(BUFFER_LEN >= 65_536 + 512);

/// Received trains and super-packets are longer than so many octets on average.
pub(super) const LARGE: usize = 4096;
/// Buffers that go round among those.
const FEW: u16 = 24;
/// A buffer that a single read fills.
const TAKEN: u16 = u16::MAX;

/// Names memory that an operation points into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct BufferRef {
    pub(super) pool: Pool,
    pub(super) id: u16,
}

/// Which memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pool {
    /// Frames read from the TUN.
    #[default]
    Tun,
    /// Datagrams received.
    Udp,
    /// Frames that were held.
    Parked,
    /// Frames of the packet ring numbered so.
    Native(u8),
    /// Packets too large for a frame of a packet ring.
    Large,
}

/// One group of receive buffers.
///
/// A buffer belongs to the kernel until a completion names it ([`Self::claim`]); then to us, for the packet in it and for every
/// queued operation that points into it; when the last of those is done it goes back to the kernel.
#[derive(Debug)]
pub(super) struct Buffers {
    memory: Region,
    ring: Region,
    entries: u16,
    tail: u16,
    group: u16,
    /// Users of each buffer; 0 = the kernel has it, or it is spare; [`TAKEN`] by a single read.
    users: Box<[u16]>,
    with_kernel: u16,
    /// The kernel has no more than so many.
    limit: u16,
    /// What is kept from the kernel, the buffer used last on top.
    spare: Vec<u16>,
    /// The kernel never has these: for single reads.
    reserve: u16,
}

impl Buffers {
    /// `entries` buffers, a power of two up to 32 768, registered as group `group`; of them `reserve` for single reads.
    pub(super) fn new(ring: &IoUring, group: u16, entries: u16, reserve: u16) -> io::Result<Self> {
        let memory = Region::new(usize::from(entries) * BUFFER_LEN)?;
        let entry_ring = Region::new(usize::from(entries) * size_of::<BufRingEntry>())?;
        let address = entry_ring.start().as_ptr() as u64;
        // SAFETY: the region is page-aligned, zeroed, large enough for `entries` entries, and outlives the registration: the ring
        // is dropped first (see `Worker`), and with it the registration.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, entries, group, 0) }?;
        let mut buffers = Self {
            memory,
            ring: entry_ring,
            entries,
            tail: 0,
            group,
            users: vec![0; usize::from(entries)].into(),
            with_kernel: 0,
            limit: FEW.min(entries),
            reserve,
            spare: Vec::with_capacity(usize::from(entries)),
        };
        (0..entries).for_each(|id| buffers.provide(id));
        Ok(buffers)
    }

    /// The group number that operations name.
    pub(super) const fn group(&self) -> u16 {
        self.group
    }

    /// Whether the kernel has a buffer to fill.
    pub(super) const fn any_with_kernel(&self) -> bool {
        self.with_kernel > 0
    }

    /// Lets the kernel have as many buffers as go round for what is received now: `octets` in all, in `count` buffers.
    ///
    /// The kernel fills buffers in turn. Small packets want many, for long batches; large ones few, which then stay in the cache.
    pub(super) fn adapt(&mut self, octets: usize, count: usize) {
        let is_large = octets > count * LARGE;
        let many = self.entries - self.reserve;
        self.limit = if is_large { FEW.min(many) } else { many };
        self.refill();
    }

    /// Gives the kernel what it may have and nobody uses.
    pub(super) fn refill(&mut self) {
        while self.with_kernel < self.limit
            && let Some(id) = self.spare.pop()
        {
            self.provide(id);
        }
    }

    /// A buffer for a single read, the one used last, and where it starts; then [`Self::claim`] or [`Self::put_back`].
    pub(super) fn take(&mut self) -> Option<(u16, NonNull<u8>)> {
        let id = self.spare.pop()?;
        self.users[usize::from(id)] = TAKEN;
        // SAFETY: ids are below `entries`, so the start lies in the region.
        Some((id, unsafe { self.memory.start().add(usize::from(id) * BUFFER_LEN) }))
    }

    /// Nothing came into the buffer taken.
    pub(super) fn put_back(&mut self, id: u16) {
        if let Some(users @ &mut TAKEN) = self.users.get_mut(usize::from(id)) {
            *users = 0;
            self.spare.push(id);
        }
    }

    /// Writes the first octets of a buffer that a single read has filled.
    pub(super) fn write_start(&mut self, id: u16, octets: &[u8]) {
        if self.users.get(usize::from(id)) == Some(&TAKEN) && octets.len() <= BUFFER_LEN {
            // SAFETY: the range lies in the region, and the kernel is done with the buffer; the borrow of `self` is the only access.
            unsafe {
                let start = self.memory.start().add(usize::from(id) * BUFFER_LEN);
                start.copy_from_nonoverlapping(NonNull::from(octets).cast(), octets.len());
            }
        }
    }

    /// Takes the buffer that a completion named and returns the `len` octets the kernel wrote. `None` for an id or length that
    /// cannot be, or a buffer the kernel does not have.
    pub(super) fn claim(&mut self, id: u16, len: usize) -> Option<&mut [u8]> {
        let users = self.users.get_mut(usize::from(id))?;
        match *users {
            0 => self.with_kernel = self.with_kernel.checked_sub(1)?,
            TAKEN => {}
            _ => return None,
        }
        if len > BUFFER_LEN {
            return None;
        }
        *users = 1;
        // SAFETY: `id` is below `entries`, so the range lies in the region. The kernel gave the buffer up with the completion, and
        // no queued operation points into it yet because nobody used it: the borrow of `self` is the only access.
        Some(unsafe {
            let start = self.memory.start().add(usize::from(id) * BUFFER_LEN);
            std::slice::from_raw_parts_mut(start.as_ptr(), len)
        })
    }

    /// What [`Self::claim`] would give, to look at before.
    pub(super) fn peek(&self, id: u16, len: usize) -> Option<&[u8]> {
        let users = *self.users.get(usize::from(id))?;
        if !matches!(users, 0 | TAKEN) || len > BUFFER_LEN {
            return None;
        }
        // SAFETY: as for `claim`; the borrow of `self` keeps it from being claimed or given back meanwhile.
        Some(unsafe {
            let start = self.memory.start().add(usize::from(id) * BUFFER_LEN);
            std::slice::from_raw_parts(start.as_ptr(), len)
        })
    }

    /// The packet in a claimed buffer is dealt with, and `operations` queued operations point into it.
    pub(super) fn settle(&mut self, id: u16, operations: u16) {
        if let Some(users) = self.users.get_mut(usize::from(id)) {
            *users += operations;
        }
        self.release(id);
    }

    /// One user of the buffer is done.
    pub(super) fn release(&mut self, id: u16) {
        let Some(users) = self.users.get_mut(usize::from(id)) else { return };
        debug_assert!(*users > 0, "buffer {id} of group {} released twice", self.group);
        *users = users.saturating_sub(1);
        if *users == 0 {
            self.provide(id);
        }
    }

    /// Gives the kernel a buffer that nobody uses, unless it has enough.
    fn provide(&mut self, id: u16) {
        if self.with_kernel >= self.limit {
            self.spare.push(id);
            return;
        }
        let slot = usize::from(self.tail & (self.entries - 1));
        let base = self.ring.start().as_ptr().cast::<BufRingEntry>();
        // SAFETY: `slot` is below `entries` and `id` too, so all addresses lie in their regions. The kernel reads an entry only
        // after the tail, stored last and with release order, covers it; entry 0's tail field is not touched by the setters.
        unsafe {
            let entry = &mut *base.add(slot);
            entry.set_addr(self.memory.start().as_ptr().add(usize::from(id) * BUFFER_LEN) as u64);
            entry.set_len(BUFFER_LEN as u32);
            entry.set_bid(id);
            self.tail = self.tail.wrapping_add(1);
            AtomicU16::from_ptr(BufRingEntry::tail(base).cast_mut())
                .store(self.tail, Ordering::Release);
        }
        self.with_kernel += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: u16 = 64;

    fn with_kernel(buffers: &Buffers) -> (u16, usize) {
        (buffers.with_kernel, buffers.spare.len())
    }

    #[test]
    fn the_kernel_gets_others_while_the_few_are_under_way() {
        let ring = match IoUring::new(8) {
            Ok(ring) => ring,
            Err(error) => return println!("SKIP: no io_uring: {error}"),
        };
        let mut buffers = Buffers::new(&ring, 0, ENTRIES, 0).unwrap();
        buffers.adapt(200, 1);
        buffers.adapt(60_000, 1);
        for id in 0..ENTRIES {
            buffers.claim(id, 60_000).unwrap();
        }
        (0..ENTRIES).for_each(|id| buffers.settle(id, 1));
        assert!(!buffers.any_with_kernel(), "operations point into all of them");
        (0..2 * FEW).for_each(|id| buffers.release(id));
        assert_eq!(with_kernel(&buffers), (FEW, FEW.into()));
        for id in 0..FEW {
            buffers.claim(id, 60_000).unwrap();
            buffers.settle(id, 1);
        }
        assert!(!buffers.any_with_kernel());
        buffers.refill();
        assert_eq!(with_kernel(&buffers), (FEW, 0), "spare ones take their place");
        drop(ring);
    }

    #[test]
    fn a_buffer_taken_for_a_read_comes_back_first() {
        let ring = match IoUring::new(8) {
            Ok(ring) => ring,
            Err(error) => return println!("SKIP: no io_uring: {error}"),
        };
        let mut buffers = Buffers::new(&ring, 0, ENTRIES, 2).unwrap();
        buffers.adapt(200, 1);
        assert_eq!(with_kernel(&buffers), (ENTRIES - 2, 2), "the kernel never has all");
        let (first, _) = buffers.take().unwrap();
        let (second, _) = buffers.take().unwrap();
        assert!(first != second && buffers.take().is_none());
        buffers.put_back(first);
        buffers.write_start(second, &[7; 3]);
        assert_eq!(buffers.peek(second, 3), Some(&[7; 3][..]));
        assert_eq!(buffers.claim(second, 3).map(|octets| octets.to_vec()), Some(vec![7; 3]));
        assert!(buffers.claim(second, 3).is_none(), "claimed already");
        buffers.settle(second, 1);
        buffers.release(second);
        assert_eq!(buffers.take().map(|(id, _)| id), Some(second), "it is the warmest");
        drop(ring);
    }

    #[test]
    fn few_buffers_go_round_while_packets_are_large() {
        let ring = match IoUring::new(8) {
            Ok(ring) => ring,
            Err(error) => return println!("SKIP: no io_uring: {error}"),
        };
        let mut buffers = Buffers::new(&ring, 0, ENTRIES, 0).unwrap();
        assert_eq!(with_kernel(&buffers), (FEW, usize::from(ENTRIES - FEW)), "at first");
        buffers.adapt(200, 1);
        assert_eq!(with_kernel(&buffers), (ENTRIES, 0));
        buffers.adapt(60_000 * 10, 10);
        assert_eq!(with_kernel(&buffers), (ENTRIES, 0), "what the kernel has stays there");
        let turn = |buffers: &mut Buffers| {
            for id in 0..ENTRIES {
                buffers.claim(id, 60_000).unwrap();
            }
            (0..ENTRIES).for_each(|id| buffers.settle(id, 0));
        };
        turn(&mut buffers);
        assert_eq!(with_kernel(&buffers), (FEW, usize::from(ENTRIES - FEW)));
        buffers.adapt(200 * 10, 10);
        assert_eq!(with_kernel(&buffers), (ENTRIES, 0), "all come back for small packets");
        turn(&mut buffers);
        assert_eq!(with_kernel(&buffers), (ENTRIES, 0));
        drop(ring);
    }
}
