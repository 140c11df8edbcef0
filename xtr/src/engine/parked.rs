//! Frames that were held for a mapping, while operations point into them.
use super::buffers::{BufferRef, Pool};

/// Frames under way at a time.
const SLOTS: u16 = 64;

/// Keeps frames where they are until the last operation that points into them is done.
#[derive(Debug)]
pub(super) struct Parked {
    slots: Box<[Slot]>,
    free: Vec<u16>,
}

#[derive(Debug, Default)]
struct Slot {
    frame: Box<[u8]>,
    users: u16,
}

impl Parked {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| Slot::default()).collect(),
            free: (0..SLOTS).rev().collect(),
        }
    }

    /// Whether a slot is free.
    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    /// Parks a frame, to be forwarded from there; [`Self::settle`] must follow. `None` without room.
    pub(super) fn park(&mut self, frame: Box<[u8]>) -> Option<(BufferRef, &mut [u8])> {
        let id = self.free.pop()?;
        let slot = &mut self.slots[usize::from(id)];
        *slot = Slot { frame, users: 1 };
        Some((BufferRef { pool: Pool::Parked, id }, &mut slot.frame))
    }

    /// The frame is forwarded, and `operations` queued operations point into it.
    pub(super) fn settle(&mut self, id: u16, operations: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(id)) {
            slot.users += operations;
        }
        self.release(id);
    }

    /// One user of the frame is done.
    pub(super) fn release(&mut self, id: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(id)) else { return };
        slot.users = slot.users.saturating_sub(1);
        if slot.users == 0 {
            slot.frame = Box::default();
            self.free.push(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_stays_until_its_last_operation_is_done() {
        let mut parked = Parked::new();
        let (buffer, frame) = parked.park(Box::new([7; 3])).expect("room");
        assert_eq!(frame, [7; 3]);
        parked.settle(buffer.id, 2);
        parked.release(buffer.id);
        assert_eq!(parked.free.len(), usize::from(SLOTS) - 1);
        parked.release(buffer.id);
        assert_eq!(parked.free.len(), usize::from(SLOTS));
    }

    #[test]
    fn without_a_slot_there_is_no_room() {
        let mut parked = Parked::new();
        while parked.has_room() {
            assert!(parked.park(Box::new([0])).is_some());
        }
        assert!(parked.park(Box::new([0])).is_none());
    }
}
