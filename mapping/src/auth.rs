//! Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6, §5.7): the MAC over the encoded octets.
//!
//! Pure: which key a Key ID selects, replay checks and what a failure leads to are the caller's business.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::{Algorithm, Secret};
use crate::wire::{SignedKind, SignedLayout, WireError};

/// Octets of the MAC field of Algorithm IDs 2 and 3 (RFC 4868 §2.3: half of the hash).
pub const MAC_LEN: usize = 16;
/// Octets of the untruncated MAC that lispers.net sends and requires.
pub const UNTRUNCATED_MAC_LEN: usize = 32;

/// How far a MAC reaches. RFC 9301 §5.6 says the end of the last RLOC-Record; deployed peers go on to the end of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Covered {
    /// Every octet, xTR-ID and Site-ID included where the message has them.
    Message,
    /// Up to the end of the last RLOC-Record; what follows (xTR-ID, Site-ID) proves nothing.
    Records,
}

/// Why a message is not authentic, or cannot be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum AuthError {
    /// Not a well-formed Map-Register, Map-Notify or Map-Notify-Ack.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// The Algorithm ID is not one of those allowed for this key (AU-04, AU-12, AU-15).
    #[error("algorithm {0} is not allowed")]
    Algorithm(u8),
    /// The Authentication Data has a length that the algorithm does not permit (AU-13).
    #[error("authentication data of {0} octets")]
    Length(usize),
    /// The MAC is of other octets or of another key (AU-11).
    #[error("authentication data does not verify")]
    Mismatch,
}

impl Algorithm {
    /// Every algorithm this suite signs with.
    pub const ALL: [Self; 2] = [Self::HmacSha256, Self::HmacSha256Hkdf];

    /// The Algorithm ID (RFC 9301 §12.5).
    pub const fn id(self) -> u8 {
        match self {
            Self::HmacSha1 => 1,
            Self::HmacSha256 => 2,
            Self::HmacSha256Hkdf => 3,
        }
    }

    /// The algorithm of an Algorithm ID; `None` for those not signed with.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            2 => Some(Self::HmacSha256),
            3 => Some(Self::HmacSha256Hkdf),
            _ => None,
        }
    }
}

/// Fills the Authentication Data of an encoded message with a MAC up to the end of the last RLOC-Record (RFC 9301 §5.6).
///
/// The field has [`MAC_LEN`] octets, or [`UNTRUNCATED_MAC_LEN`] for peers that want so; what it holds does not matter.
///
/// # Errors
/// [`AuthError::Algorithm`] when the message names another algorithm, [`AuthError::Length`] for any other field length.
pub fn sign(message: &mut [u8], key: &Secret, algorithm: Algorithm) -> Result<(), AuthError> {
    sign_covering(message, key, algorithm, Covered::Records)
}

/// As [`sign`], with the reach of the MAC that the peer expects.
pub fn sign_covering(
    message: &mut [u8],
    key: &Secret,
    algorithm: Algorithm,
    covered: Covered,
) -> Result<(), AuthError> {
    let layout = SignedLayout::of(message)?;
    let field = layout.mac.clone();
    if layout.algorithm_id != algorithm.id() {
        return Err(AuthError::Algorithm(layout.algorithm_id));
    }
    permitted_length(field.len())?;
    let end = match covered {
        Covered::Message => message.len(),
        Covered::Records => layout.records_end(message)?,
    };
    let mac = compute(&message[..end], &layout, &message_key(key, algorithm, &layout));
    message[field.clone()].copy_from_slice(&mac[..field.len()]);
    Ok(())
}

/// Verifies the Authentication Data of an encoded message and says how far it reaches.
///
/// Accepts the truncated and the untruncated length (AU-14) and both readings of the reach; the comparison takes the same time
/// wherever the octets differ (AU-13).
///
/// # Errors
/// See [`AuthError`]; `allowed` are the only algorithms accepted with `key` (AU-15).
pub fn verify(message: &[u8], key: &Secret, allowed: &[Algorithm]) -> Result<Covered, AuthError> {
    let layout = SignedLayout::of(message)?;
    let algorithm = Algorithm::from_id(layout.algorithm_id)
        .filter(|algorithm| allowed.contains(algorithm))
        .ok_or(AuthError::Algorithm(layout.algorithm_id))?;
    let received = &message[layout.mac.clone()];
    permitted_length(received.len())?;
    let key = message_key(key, algorithm, &layout);
    let matches = |end: usize| {
        let mac = compute(&message[..end], &layout, &key);
        bool::from(mac[..received.len()].ct_eq(received))
    };
    if matches(message.len()) {
        return Ok(Covered::Message);
    }
    let records_end = layout.records_end(message)?;
    if records_end < message.len() && matches(records_end) {
        return Ok(Covered::Records);
    }
    Err(AuthError::Mismatch)
}

fn permitted_length(length: usize) -> Result<(), AuthError> {
    match length {
        MAC_LEN | UNTRUNCATED_MAC_LEN => Ok(()),
        other => Err(AuthError::Length(other)),
    }
}

/// HMAC-SHA-256 of `covered` with the Authentication Data taken as zero (AU-05).
fn compute(covered: &[u8], layout: &SignedLayout, key: &[u8]) -> [u8; 32] {
    const ZERO: [u8; UNTRUNCATED_MAC_LEN] = [0; UNTRUNCATED_MAC_LEN];
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(&covered[..layout.mac.start]);
    mac.update(&ZERO[..layout.mac.len()]);
    mac.update(&covered[layout.mac.end..]);
    mac.finalize().into_bytes().into()
}

/// The key the MAC is computed with: the secret itself (AU-06), or one per message (AU-07).
fn message_key(key: &Secret, algorithm: Algorithm, layout: &SignedLayout) -> Vec<u8> {
    match algorithm {
        Algorithm::HmacSha1 | Algorithm::HmacSha256 => key.octets().to_vec(),
        Algorithm::HmacSha256Hkdf => per_message_key(key, layout.nonce, salt(layout.kind)).to_vec(),
    }
}

/// HKDF-SHA256 with the message's salt over nonce and secret; empty info, 32 octets.
///
/// RFC 9301 §5.6 leaves info, length and the order of salt and key to the reader; this is the one place that chooses.
fn per_message_key(key: &Secret, nonce: u64, salt: &str) -> [u8; 32] {
    let input = [nonce.to_be_bytes().as_slice(), key.octets()].concat();
    let mut output = [0; 32];
    Hkdf::<Sha256>::new(Some(salt.as_bytes()), &input)
        .expand(&[], &mut output)
        .expect("HKDF gives 32 octets");
    output
}

/// The salt of each message type (AU-08).
const fn salt(kind: SignedKind) -> &'static str {
    match kind {
        SignedKind::Register => "Map-Register Authentication",
        SignedKind::Notify => "Map-Notify Authentication",
        SignedKind::NotifyAck => "Map-Notify-Ack Authentication",
    }
}

#[cfg(test)]
mod tests;
