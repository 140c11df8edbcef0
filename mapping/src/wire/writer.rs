//! Lengths that are known only after their content is written.

/// Runs `content`, then writes the number of octets it appended into a 16-bit length field before them.
///
/// A length beyond 65535 is written as 65535; no such message fits a UDP datagram.
pub(super) fn with_length(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    let start = out.len();
    content(out);
    let length = saturated(out.len() - start);
    out[at..start].copy_from_slice(&length.to_be_bytes());
}

/// `length` as a 16-bit field.
pub(super) fn saturated(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// `mask` if `set`, else 0.
pub(super) const fn flag(set: bool, mask: u8) -> u8 {
    if set { mask } else { 0 }
}
