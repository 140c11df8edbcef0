//! Authentication of Map-Register, Map-Notify and Map-Notify-Ack (RFC 9301 §5.6, §5.7): the MAC over the encoded octets.
//!
//! Pure: which key a Key ID selects, replay checks and what a failure leads to are the caller's business.

use std::fmt;
use std::sync::LazyLock;

use hkdf::HkdfExtract;
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::config::{Algorithm, Secret};
use crate::wire::{SignedKind, SignedLayout, WireError};

/// Octets of the MAC field of Algorithm IDs 2 and 3 (RFC 4868 §2.3: half of the hash).
pub const MAC_LEN: usize = 16;
/// Octets of the untruncated MAC of HMAC-SHA-256, which lispers.net sends and requires.
pub const UNTRUNCATED_MAC_LEN: usize = 32;
/// Octets of the MAC field of Algorithm ID 1 (RFC 2404 §2).
pub const SHA1_MAC_LEN: usize = 12;
/// Octets of the untruncated MAC of HMAC-SHA-1, which OOR and lispers.net send and require.
pub const UNTRUNCATED_SHA1_MAC_LEN: usize = 20;

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
    /// Every algorithm this suite knows.
    pub const ALL: [Self; 3] = [Self::HmacSha1, Self::HmacSha256, Self::HmacSha256Hkdf];
    /// Those allowed in the public Internet (RFC 9301 §1.1, CW-36).
    pub const STRONG: [Self; 2] = [Self::HmacSha256, Self::HmacSha256Hkdf];

    /// The Algorithm ID (RFC 9301 §12.5).
    pub const fn id(self) -> u8 {
        match self {
            Self::HmacSha1 => 1,
            Self::HmacSha256 => 2,
            Self::HmacSha256Hkdf => 3,
        }
    }

    /// The algorithm of an Algorithm ID; `None` for those not known. Whether a key accepts it is another question (AU-15).
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            1 => Some(Self::HmacSha1),
            2 => Some(Self::HmacSha256),
            3 => Some(Self::HmacSha256Hkdf),
            _ => None,
        }
    }

    /// Octets of the Authentication Data as the algorithm's name has it (AU-14).
    pub const fn mac_len(self) -> usize {
        match self {
            Self::HmacSha1 => SHA1_MAC_LEN,
            Self::HmacSha256 | Self::HmacSha256Hkdf => MAC_LEN,
        }
    }

    /// Octets of the whole hash, as deployed peers send it (AU-14).
    pub const fn untruncated_mac_len(self) -> usize {
        match self {
            Self::HmacSha1 => UNTRUNCATED_SHA1_MAC_LEN,
            Self::HmacSha256 | Self::HmacSha256Hkdf => UNTRUNCATED_MAC_LEN,
        }
    }
}

/// A secret made ready: what a MAC computes of the key alone is computed once, and signing and verifying take no heap.
///
/// Every [`Secret`] holds its own, see [`Secret::prepared`].
#[derive(Clone)]
pub struct PreparedKey {
    secret: Box<[u8]>,
    sha1: Hmac<Sha1>,
    sha256: Hmac<Sha256>,
}

impl PreparedKey {
    /// Prepares the octets of a pre-shared key.
    pub fn new(secret: &[u8]) -> Self {
        Self { secret: secret.into(), sha1: keyed(secret), sha256: keyed(secret) }
    }

    /// Fills the Authentication Data of an encoded message with a MAC.
    ///
    /// The field has a length that `algorithm` permits ([`Algorithm::mac_len`] or [`Algorithm::untruncated_mac_len`]); what it
    /// holds does not matter.
    ///
    /// # Errors
    /// [`AuthError::Algorithm`] when the message names another algorithm, [`AuthError::Length`] for any other field length.
    pub fn sign(
        &self,
        message: &mut [u8],
        algorithm: Algorithm,
        covered: Covered,
    ) -> Result<(), AuthError> {
        let layout = SignedLayout::of(message)?;
        let field = layout.mac.clone();
        if layout.algorithm_id != algorithm.id() {
            return Err(AuthError::Algorithm(layout.algorithm_id));
        }
        permitted_length(algorithm, field.len())?;
        let end = match covered {
            Covered::Message => message.len(),
            Covered::Records => layout.records_end(message)?,
        };
        let mac = self.mac(algorithm, &layout).of(&message[..end], &layout);
        message[field.clone()].copy_from_slice(&mac[..field.len()]);
        Ok(())
    }

    /// Verifies the Authentication Data of an encoded message and says how far it reaches.
    ///
    /// Accepts the truncated and the untruncated length (AU-14) and both readings of the reach; the comparison takes the same time
    /// wherever the octets differ (AU-13).
    ///
    /// # Errors
    /// See [`AuthError`]; `allowed` are the only algorithms accepted (AU-15).
    pub fn verify(&self, message: &[u8], allowed: &[Algorithm]) -> Result<Covered, AuthError> {
        let layout = SignedLayout::of(message)?;
        let algorithm = Algorithm::from_id(layout.algorithm_id)
            .filter(|algorithm| allowed.contains(algorithm))
            .ok_or(AuthError::Algorithm(layout.algorithm_id))?;
        let received = &message[layout.mac.clone()];
        permitted_length(algorithm, received.len())?;
        let mac = self.mac(algorithm, &layout);
        let matches = |end: usize| {
            let computed = mac.of(&message[..end], &layout);
            bool::from(computed[..received.len()].ct_eq(received))
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

    /// The untruncated MAC of octets that have no field for it themselves, keyed by the secret (AU-06); octets beyond the hash are zero.
    ///
    /// # Errors
    /// [`AuthError::Algorithm`] for one that makes a key per message.
    pub fn mac_of(
        &self,
        octets: &[u8],
        algorithm: Algorithm,
    ) -> Result<[u8; UNTRUNCATED_MAC_LEN], AuthError> {
        let mut mac = [0; UNTRUNCATED_MAC_LEN];
        match algorithm {
            Algorithm::HmacSha1 => mac[..UNTRUNCATED_SHA1_MAC_LEN]
                .copy_from_slice(&self.sha1.clone().chain_update(octets).finalize().into_bytes()),
            Algorithm::HmacSha256 => mac
                .copy_from_slice(&self.sha256.clone().chain_update(octets).finalize().into_bytes()),
            Algorithm::HmacSha256Hkdf => return Err(AuthError::Algorithm(algorithm.id())),
        }
        Ok(mac)
    }

    /// Verifies a MAC made by [`Self::mac_of`], truncated or not (AU-13, AU-14).
    ///
    /// # Errors
    /// See [`AuthError`].
    pub fn verify_mac_of(
        &self,
        octets: &[u8],
        algorithm: Algorithm,
        received: &[u8],
    ) -> Result<(), AuthError> {
        permitted_length(algorithm, received.len())?;
        let computed = self.mac_of(octets, algorithm)?;
        match bool::from(computed[..received.len()].ct_eq(received)) {
            true => Ok(()),
            false => Err(AuthError::Mismatch),
        }
    }

    /// The MAC with its key in: the secret itself (AU-06), or one per message (AU-07).
    fn mac(&self, algorithm: Algorithm, layout: &SignedLayout) -> KeyedMac {
        match algorithm {
            Algorithm::HmacSha1 => KeyedMac::Sha1(self.sha1.clone()),
            Algorithm::HmacSha256 => KeyedMac::Sha256(self.sha256.clone()),
            Algorithm::HmacSha256Hkdf => {
                let key = per_message_key(&self.secret, layout.nonce, layout.kind);
                KeyedMac::Sha256(keyed(&key))
            }
        }
    }
}

impl fmt::Debug for PreparedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PreparedKey(..)")
    }
}

/// Signs with a MAC up to the end of the last RLOC-Record (RFC 9301 §5.6); see [`PreparedKey::sign`].
///
/// # Errors
/// As [`PreparedKey::sign`].
pub fn sign(message: &mut [u8], key: &Secret, algorithm: Algorithm) -> Result<(), AuthError> {
    sign_covering(message, key, algorithm, Covered::Records)
}

/// As [`sign`], with the reach of the MAC that the peer expects.
///
/// # Errors
/// As [`PreparedKey::sign`].
pub fn sign_covering(
    message: &mut [u8],
    key: &Secret,
    algorithm: Algorithm,
    covered: Covered,
) -> Result<(), AuthError> {
    key.prepared().sign(message, algorithm, covered)
}

/// Verifies a message and says how far its MAC reaches; see [`PreparedKey::verify`].
///
/// # Errors
/// As [`PreparedKey::verify`].
pub fn verify(message: &[u8], key: &Secret, allowed: &[Algorithm]) -> Result<Covered, AuthError> {
    key.prepared().verify(message, allowed)
}

fn permitted_length(algorithm: Algorithm, length: usize) -> Result<(), AuthError> {
    if length == algorithm.mac_len() || length == algorithm.untruncated_mac_len() {
        Ok(())
    } else {
        Err(AuthError::Length(length))
    }
}

fn keyed<M: KeyInit>(key: &[u8]) -> M {
    M::new_from_slice(key).expect("HMAC takes a key of any length")
}

enum KeyedMac {
    Sha1(Hmac<Sha1>),
    Sha256(Hmac<Sha256>),
}

impl KeyedMac {
    /// The untruncated MAC of `covered` with the Authentication Data taken as zero (AU-05); octets beyond the hash are zero.
    fn of(&self, covered: &[u8], layout: &SignedLayout) -> [u8; UNTRUNCATED_MAC_LEN] {
        let mut mac = [0; UNTRUNCATED_MAC_LEN];
        match self {
            Self::Sha1(state) => {
                mac[..UNTRUNCATED_SHA1_MAC_LEN].copy_from_slice(&computed(state, covered, layout));
            }
            Self::Sha256(state) => mac.copy_from_slice(&computed(state, covered, layout)),
        }
        mac
    }
}

fn computed<M: Mac + Clone>(
    state: &M,
    covered: &[u8],
    layout: &SignedLayout,
) -> hmac::digest::Output<M> {
    const ZERO: [u8; UNTRUNCATED_MAC_LEN] = [0; UNTRUNCATED_MAC_LEN];
    let mut mac = state.clone();
    mac.update(&covered[..layout.mac.start]);
    mac.update(&ZERO[..layout.mac.len()]);
    mac.update(&covered[layout.mac.end..]);
    mac.finalize().into_bytes()
}

/// HKDF-SHA256 with the message's salt over nonce and secret; empty info, 32 octets.
///
/// RFC 9301 §5.6 leaves info, length and the order of salt and key to the reader; this is the one place that chooses.
fn per_message_key(secret: &[u8], nonce: u64, kind: SignedKind) -> [u8; 32] {
    /// Extraction with its salt in: the salts never change.
    static SALTED: LazyLock<[HkdfExtract<Sha256>; 5]> = LazyLock::new(|| {
        [
            SignedKind::Register,
            SignedKind::Notify,
            SignedKind::NotifyAck,
            SignedKind::InfoRequest,
            SignedKind::InfoReply,
        ]
        .map(|kind| HkdfExtract::new(Some(salt(kind).as_bytes())))
    });
    let mut extract = SALTED[kind as usize].clone();
    extract.input_ikm(&nonce.to_be_bytes());
    extract.input_ikm(secret);
    let mut output = [0; 32];
    let (_, expand) = extract.finalize();
    expand.expand(&[], &mut output).expect("HKDF gives 32 octets");
    output
}

/// The salt of each message type (AU-08).
const fn salt(kind: SignedKind) -> &'static str {
    match kind {
        SignedKind::Register => "Map-Register Authentication",
        SignedKind::Notify => "Map-Notify Authentication",
        SignedKind::NotifyAck => "Map-Notify-Ack Authentication",
        // Named by nobody: made after the others.
        SignedKind::InfoRequest => "Info-Request Authentication",
        SignedKind::InfoReply => "Info-Reply Authentication",
    }
}

#[cfg(test)]
mod tests;
