//! A bounded cursor: nothing can be read beyond the octets it was made with.

use super::{Tolerance, WireError};

/// What is left of some octets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    octets: &'a [u8],
    tolerance: Tolerance,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(octets: &'a [u8]) -> Self {
        Self::tolerant(octets, Tolerance::NONE)
    }

    /// What is read of it is relaxed for a known peer.
    pub(super) const fn tolerant(octets: &'a [u8], tolerance: Tolerance) -> Self {
        Self { octets, tolerance }
    }

    pub(super) const fn tolerance(&self) -> Tolerance {
        self.tolerance
    }

    /// The next `len` octets as a reader of their own, so that the parsing of a field cannot leave it.
    pub(super) fn sub(&mut self, len: usize, field: &'static str) -> Result<Self, WireError> {
        Ok(Self::tolerant(self.take(len, field)?, self.tolerance))
    }

    pub(super) fn take(&mut self, len: usize, field: &'static str) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.octets.split_at_checked(len).ok_or(WireError::Truncated(field))?;
        self.octets = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], WireError> {
        let (taken, rest) = self.octets.split_first_chunk().ok_or(WireError::Truncated(field))?;
        self.octets = rest;
        Ok(*taken)
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.array(field).map(u8::from_be_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.array(field).map(u64::from_be_bytes)
    }

    pub(super) fn u128(&mut self, field: &'static str) -> Result<u128, WireError> {
        self.array(field).map(u128::from_be_bytes)
    }

    /// How many of `count` items of at least `min_len` octets there can be in what is left: what to reserve for them (CW-21).
    pub(super) fn at_most(&self, count: u8, min_len: usize) -> usize {
        usize::from(count).min(self.octets.len() / min_len)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.octets.is_empty()
    }

    /// What has not been read yet.
    pub(super) const fn rest(&self) -> &'a [u8] {
        self.octets
    }
}
