//! LISP-SEC (RFC 9303): One-Time Keys, what a Map-Server vouches for, and the MAC over a whole Map-Reply.
//!
//! Pure, and the only place that fills the gaps of the text: salt absent, info empty and 128 bits of output for every KDF; the EID
//! HMAC field, not the EID HMAC ID, is zero while the EID HMAC is computed. MACs are computed and verified over octets as they are on
//! the wire, so that bits with no meaning here still count.

use std::fmt;

use aes_kw::KwAes128;
use hkdf::GenericHkdfExtract;
use hmac::digest::Output;
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::config::Secret;
use crate::eid::EidPrefix;
use crate::wire::security::{self, EcmSecurity, EidAd, EidAdBody, ReplySecurity};
use crate::wire::{EidField, MacField, MapReply, WireError};

/// HMAC IDs (RFC 9303 §8.3).
pub mod hmac_id {
    /// No preference.
    pub const NO_PREFERENCE: u16 = 0;
    /// HMAC-SHA-1, 96 bits; for old peers.
    pub const SHA_1_96: u16 = 1;
    /// HMAC-SHA-256, 128 bits.
    pub const SHA_256_128: u16 = 2;
}

/// Key Derivation Function IDs (RFC 9303 §8.5).
pub mod kdf_id {
    /// No preference.
    pub const NO_PREFERENCE: u16 = 0;
    /// HKDF-SHA1-128; for old peers.
    pub const HKDF_SHA1_128: u16 = 1;
    /// HKDF-SHA256.
    pub const HKDF_SHA256: u16 = 2;
}

/// OTK Wrapping IDs (RFC 9303 §8.4).
pub mod wrapping_id {
    /// The One-Time Key as it is: only where something else keeps it secret.
    pub const NULL_KEY_WRAP_128: u8 = 1;
    /// AES key wrap with a key per message.
    pub const AES_KEY_WRAP_128_HKDF_SHA256: u8 = 2;
}

/// What the key-wrap key is derived from, beside nonce and secret (RFC 9303 §6.5).
const KEY_WRAP: &[u8] = b"OTK-Key-Wrap";
const OTK_LEN: usize = 16;

/// Why LISP-SEC data cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum SecError {
    /// The message or its authentication data is not well formed.
    #[error(transparent)]
    Malformed(#[from] WireError),
    /// The OTK Wrapping ID is not known.
    #[error("OTK Wrapping ID {0} is not supported")]
    Wrapping(u8),
    /// NULL-KEY-WRAP-128 without protection of the transport (SE-04).
    #[error("the one-time key is not encrypted")]
    Unencrypted,
    /// The unwrapped IV is another one: another secret or nonce, or damage (SE-06).
    #[error("the one-time key does not unwrap")]
    Unwrap,
    /// The HMAC ID is not known.
    #[error("HMAC ID {0} is not supported")]
    Hmac(u16),
    /// The KDF ID is not known.
    #[error("KDF ID {0} is not supported")]
    Kdf(u16),
    /// A reply to a protected request has no S-bit, or its EID-AD nothing but a KDF ID (SE-17).
    #[error("the reply is not protected")]
    Unprotected,
    /// The EID HMAC does not verify (SE-18).
    #[error("EID HMAC does not verify")]
    EidMismatch,
    /// The PKT HMAC does not verify (SE-18).
    #[error("PKT HMAC does not verify")]
    PacketMismatch,
    /// The reply has another PKT HMAC ID than requested (SE-20).
    #[error("PKT HMAC ID {0} is not the one requested")]
    OtherHmac(u16),
    /// The reply has another KDF ID than requested (SE-20).
    #[error("KDF ID {0} is not the one requested")]
    OtherKdf(u16),
}

/// A One-Time Key: ITR-OTK or MS-OTK; never printed.
#[derive(Clone)]
pub struct Otk([u8; OTK_LEN]);

impl Otk {
    /// Wraps the octets of a key.
    pub const fn new(octets: [u8; OTK_LEN]) -> Self {
        Self(octets)
    }

    /// A fresh key (SE-01); `rng` has to be cryptographically secure.
    pub fn random(rng: &mut impl Rng) -> Self {
        let mut octets = [0; OTK_LEN];
        rng.fill_bytes(&mut octets);
        Self(octets)
    }

    /// What stands for the key where used ones are remembered (PS-22): its SHA-256, cut to 128 bits.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&Sha256::digest(self.0)[..16]);
        fingerprint
    }
}

impl PartialEq for Otk {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Otk {}

impl fmt::Debug for Otk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otk(..)")
    }
}

/// How a One-Time Key travels in an ECM.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedOtk {
    /// OTK Wrapping ID.
    pub wrapping_id: u8,
    /// One-Time-Key Preamble.
    pub preamble: u64,
    /// One-Time Key.
    pub otk: [u8; OTK_LEN],
}

impl fmt::Debug for WrappedOtk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedOtk").field("wrapping_id", &self.wrapping_id).finish_non_exhaustive()
    }
}

/// Wraps `otk` for the Map-Request with `nonce` by AES-KEY-WRAP-128+HKDF-SHA256 (SE-05).
pub fn wrap(otk: &Otk, nonce: u64, secret: &Secret) -> WrappedOtk {
    let mut wrapped = [0; 8 + OTK_LEN];
    KwAes128::new(&key_wrap_key(nonce, secret).into())
        .wrap_key(&otk.0, &mut wrapped)
        .expect("a key of 16 octets wraps to 24");
    let (preamble, key) = wrapped.split_first_chunk().expect("24 octets");
    WrappedOtk {
        wrapping_id: wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256,
        preamble: u64::from_be_bytes(*preamble),
        otk: key.try_into().expect("16 octets"),
    }
}

/// `otk` as it is, NULL-KEY-WRAP-128: only between nodes whose transport keeps it secret (RFC 9303 §6.5.1).
pub const fn wrap_null(otk: &Otk) -> WrappedOtk {
    WrappedOtk { wrapping_id: wrapping_id::NULL_KEY_WRAP_128, preamble: 0, otk: otk.0 }
}

/// The One-Time Key of the Map-Request with `nonce`.
///
/// # Errors
/// [`SecError::Unwrap`] for another secret or nonce, [`SecError::Unencrypted`] for NULL-KEY-WRAP-128 (SE-04),
/// [`SecError::Wrapping`] for anything else.
pub fn unwrap(security: &EcmSecurity, nonce: u64, secret: &Secret) -> Result<Otk, SecError> {
    match security.wrapping_id {
        wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256 => {}
        wrapping_id::NULL_KEY_WRAP_128 => return Err(SecError::Unencrypted),
        other => return Err(SecError::Wrapping(other)),
    }
    let mut wrapped = [0; 8 + OTK_LEN];
    wrapped[..8].copy_from_slice(&security.preamble.to_be_bytes());
    wrapped[8..].copy_from_slice(&security.otk);
    let mut otk = [0; OTK_LEN];
    KwAes128::new(&key_wrap_key(nonce, secret).into())
        .unwrap_key(&wrapped, &mut otk)
        .map_err(|_| SecError::Unwrap)?;
    Ok(Otk(otk))
}

/// The One-Time Key of NULL-KEY-WRAP-128, from a peer whose transport keeps it secret.
///
/// # Errors
/// [`SecError::Wrapping`] for another OTK Wrapping ID.
pub const fn unwrap_null(security: &EcmSecurity) -> Result<Otk, SecError> {
    match security.wrapping_id {
        wrapping_id::NULL_KEY_WRAP_128 => Ok(Otk(security.otk)),
        other => Err(SecError::Wrapping(other)),
    }
}

/// The MS-OTK that a Map-Server derives of the ITR-OTK, and so does the ITR (SE-13).
///
/// # Errors
/// [`SecError::Kdf`] for a KDF ID not known; see [`choose_kdf`].
pub fn ms_otk(itr_otk: &Otk, kdf_id: u16) -> Result<Otk, SecError> {
    derive(kdf_id, &[&itr_otk.0]).map(Otk)
}

/// The key of the Map-Notifies for a subscription that came with `otk` and `nonce` (PS-21).
///
/// # Errors
/// [`SecError::Wrapping`] for an OTK Wrapping ID not known.
pub fn pubsub_key(otk: &Otk, nonce: u64, wrapping_id: u8) -> Result<Secret, SecError> {
    let key = match wrapping_id {
        wrapping_id::NULL_KEY_WRAP_128 => otk.0,
        wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256 => {
            derive(kdf_id::HKDF_SHA256, &[&otk.0, &nonce.to_be_bytes()])?
        }
        other => return Err(SecError::Wrapping(other)),
    };
    Ok(Secret::new(key.to_vec()))
}

/// The KDF ID for a requested one: itself if known, else HKDF-SHA256 (SE-13, SE-15).
pub const fn choose_kdf(requested: u16) -> u16 {
    match requested {
        kdf_id::HKDF_SHA1_128 => kdf_id::HKDF_SHA1_128,
        _ => kdf_id::HKDF_SHA256,
    }
}

/// The HMAC ID for a requested one: itself if known, else HMAC-SHA-256-128 (SE-14).
pub const fn choose_hmac(requested: u16) -> u16 {
    match requested {
        hmac_id::SHA_1_96 => hmac_id::SHA_1_96,
        _ => hmac_id::SHA_256_128,
    }
}

/// Signs what `eid_ad` vouches for with the ITR-OTK, by its EID HMAC ID (SE-12). What its EID HMAC holds does not matter.
///
/// # Errors
/// [`SecError::Unprotected`] without a body, [`SecError::Hmac`] for an EID HMAC ID not known.
pub fn sign_eid_ad(eid_ad: &mut EidAd, itr_otk: &Otk) -> Result<(), SecError> {
    let body = eid_ad.body.as_mut().ok_or(SecError::Unprotected)?;
    let hmac_id = body.hmac_id;
    body.hmac = MacField::zeroed(hmac_len(hmac_id)?);
    let computed = hmac(hmac_id, itr_otk, [&eid_ad.to_vec(), &[]])?;
    if let Some(body) = &mut eid_ad.body {
        body.hmac = computed;
    }
    Ok(())
}

/// Verifies an EID-AD, `octets` from its EID-AD Length to the end of its EID HMAC, with the ITR-OTK.
///
/// # Errors
/// [`SecError::EidMismatch`] unless it verifies; [`SecError::Unprotected`] when it has nothing but a KDF ID.
pub fn verify_eid_ad(octets: &[u8], itr_otk: &Otk) -> Result<EidAd, SecError> {
    let eid_ad = EidAd::parse(octets)?;
    let body = eid_ad.body.as_ref().ok_or(SecError::Unprotected)?;
    match verify_last(octets, &body.hmac, body.hmac_id, itr_otk)? {
        true => Ok(eid_ad),
        false => Err(SecError::EidMismatch),
    }
}

/// The EID-AD of a protected ECM, octet for octet as an ETR has to copy it (SE-16): from its EID-AD Length on.
///
/// `security` is what [`EcmSecurity::parse`] takes.
///
/// # Errors
/// [`SecError::Malformed`] when it does not parse.
pub fn eid_ad_octets(security: &[u8]) -> Result<&[u8], SecError> {
    EcmSecurity::parse(security)?;
    Ok(&security[security::eid_ad_range(security, security::ECM_EID_AD)?])
}

/// Encodes `reply` with the S-bit, `eid_ad` (from [`eid_ad_octets`] or [`EidAd::to_vec`]) and a PKT HMAC over all of it (SE-16).
///
/// # Errors
/// [`SecError::Hmac`] for an HMAC ID not known.
pub fn protect_reply(
    mut reply: MapReply,
    eid_ad: &[u8],
    ms_otk: &Otk,
    hmac_id: u16,
) -> Result<Vec<u8>, SecError> {
    let zero = MacField::zeroed(hmac_len(hmac_id)?);
    reply.security = Some(security::encode_reply(eid_ad, hmac_id, &zero));
    let mut octets = Vec::new();
    reply.encode(&mut octets);
    fill_last(&mut octets, hmac_id, ms_otk)?;
    Ok(octets)
}

/// Fills the PKT HMAC of an encoded Map-Reply that names its PKT HMAC ID and ends with a field of the right length.
///
/// # Errors
/// [`SecError::Unprotected`] without the S-bit, [`SecError::Hmac`] for an HMAC ID not known, [`SecError::PacketMismatch`] when the
/// field has another length.
pub fn sign_reply(octets: &mut [u8], ms_otk: &Otk) -> Result<(), SecError> {
    let security = reply_security(octets)?.1;
    if security.packet_hmac.len() != hmac_len(security.packet_hmac_id)? {
        return Err(SecError::PacketMismatch);
    }
    fill_last(octets, security.packet_hmac_id, ms_otk)
}

/// Verifies the PKT HMAC of an encoded Map-Reply with the MS-OTK. Alone it proves nothing about EIDs: see [`open_reply`].
///
/// # Errors
/// [`SecError::PacketMismatch`] unless it verifies.
pub fn verify_reply(octets: &[u8], ms_otk: &Otk) -> Result<(), SecError> {
    let security = reply_security(octets)?.1;
    match verify_last(octets, &security.packet_hmac, security.packet_hmac_id, ms_otk)? {
        true => Ok(()),
        false => Err(SecError::PacketMismatch),
    }
}

/// The IDs that an ITR put into its protected Map-Request; 0 = no preference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requested {
    /// Requested HMAC ID.
    pub hmac_id: u16,
    /// KDF ID.
    pub kdf_id: u16,
}

/// What the Map-Server of a verified Map-Reply vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorized {
    /// E-bit: some ETR of the EID-prefix does not speak LISP-SEC (SE-22).
    pub etr_cant_sign: bool,
    /// The EID-prefixes.
    pub prefixes: Vec<EidField>,
}

impl Authorized {
    /// The part of `record`, the EID-prefix of a record, that may be used (SE-21): all of it within one authorised prefix, else nothing.
    ///
    /// As in the example of RFC 9303 §6.9.1, a record that is wider than what was authorised is an overclaim, not an intersection.
    pub fn intersection(&self, record: &EidPrefix) -> Option<EidPrefix> {
        let covered =
            |authorized: &EidField| authorized.prefix().is_some_and(|prefix| prefix.covers(record));
        self.prefixes.iter().any(covered).then_some(*record)
    }
}

/// Verifies a whole Map-Reply to a protected Map-Request (SE-17, SE-18, SE-20): EID-AD with the ITR-OTK, packet with the MS-OTK.
///
/// # Errors
/// See [`SecError`]; [`SecError::OtherHmac`] and [`SecError::OtherKdf`] ask for another Map-Request with other IDs.
pub fn open_reply(
    octets: &[u8],
    itr_otk: &Otk,
    requested: Requested,
) -> Result<Authorized, SecError> {
    let (start, security) = reply_security(octets)?;
    if ![hmac_id::NO_PREFERENCE, security.packet_hmac_id].contains(&requested.hmac_id) {
        return Err(SecError::OtherHmac(security.packet_hmac_id));
    }
    let kdf_id = security.eid_ad.kdf_id;
    if ![kdf_id::NO_PREFERENCE, kdf_id].contains(&requested.kdf_id) {
        return Err(SecError::OtherKdf(kdf_id));
    }
    let authentication = &octets[start..];
    let eid_ad = security::eid_ad_range(authentication, security::REPLY_EID_AD)?;
    let verified = verify_eid_ad(&authentication[eid_ad], itr_otk)?;
    verify_reply(octets, &ms_otk(itr_otk, kdf_id)?)?;
    let EidAdBody { etr_cant_sign, prefixes, .. } = verified.body.ok_or(SecError::Unprotected)?;
    Ok(Authorized { etr_cant_sign, prefixes })
}

/// The authentication data of an encoded Map-Reply and where it starts; it ends with the message.
fn reply_security(octets: &[u8]) -> Result<(usize, ReplySecurity), SecError> {
    let reply = MapReply::parse(octets)?;
    let security = reply.security.ok_or(SecError::Unprotected)?;
    Ok((octets.len() - security.len(), ReplySecurity::parse(&security)?))
}

/// The key that a One-Time Key is wrapped with (SE-05).
fn key_wrap_key(nonce: u64, secret: &Secret) -> [u8; 16] {
    hkdf::<Hmac<Sha256>>(&[&nonce.to_be_bytes(), KEY_WRAP, secret.octets()])
}

fn derive(kdf_id: u16, input: &[&[u8]]) -> Result<[u8; 16], SecError> {
    match kdf_id {
        kdf_id::HKDF_SHA1_128 => Ok(hkdf::<Hmac<Sha1>>(input)),
        kdf_id::HKDF_SHA256 => Ok(hkdf::<Hmac<Sha256>>(input)),
        other => Err(SecError::Kdf(other)),
    }
}

/// HKDF over the concatenated `input`: salt absent, info empty, 128 bits.
fn hkdf<H: hkdf::HmacImpl>(input: &[&[u8]]) -> [u8; 16] {
    let mut extract = GenericHkdfExtract::<H>::new(None);
    input.iter().for_each(|part| extract.input_ikm(part));
    let (_, expand) = extract.finalize();
    let mut output = [0; 16];
    expand.expand(&[], &mut output).expect("HKDF gives 16 octets");
    output
}

const fn hmac_len(hmac_id: u16) -> Result<usize, SecError> {
    match hmac_id {
        hmac_id::SHA_1_96 => Ok(12),
        hmac_id::SHA_256_128 => Ok(16),
        other => Err(SecError::Hmac(other)),
    }
}

/// The truncated HMAC over the concatenated `parts`.
fn hmac(hmac_id: u16, otk: &Otk, parts: [&[u8]; 2]) -> Result<MacField, SecError> {
    fn whole<M: Mac + KeyInit>(otk: &Otk, parts: [&[u8]; 2]) -> Output<M> {
        let mut mac = <M as KeyInit>::new_from_slice(&otk.0).expect("HMAC takes any key");
        parts.iter().for_each(|part| mac.update(part));
        mac.finalize().into_bytes()
    }
    let len = hmac_len(hmac_id)?;
    Ok(match hmac_id {
        hmac_id::SHA_1_96 => whole::<Hmac<Sha1>>(otk, parts)[..len].into(),
        _ => whole::<Hmac<Sha256>>(otk, parts)[..len].into(),
    })
}

/// Whether the last octets are `received`, the HMAC over all of them with that field zero.
fn verify_last(
    octets: &[u8],
    received: &MacField,
    hmac_id: u16,
    otk: &Otk,
) -> Result<bool, SecError> {
    if received.len() != hmac_len(hmac_id)? {
        return Ok(false);
    }
    let computed = hmac_with_last_zero(octets, received.len(), hmac_id, otk)?;
    Ok(computed.ct_eq(received).into())
}

/// Puts the HMAC into the last octets.
fn fill_last(octets: &mut [u8], hmac_id: u16, otk: &Otk) -> Result<(), SecError> {
    let len = hmac_len(hmac_id)?;
    let computed = hmac_with_last_zero(octets, len, hmac_id, otk)?;
    let start = octets.len() - len;
    octets[start..].copy_from_slice(&computed);
    Ok(())
}

fn hmac_with_last_zero(
    octets: &[u8],
    len: usize,
    hmac_id: u16,
    otk: &Otk,
) -> Result<MacField, SecError> {
    const ZERO: [u8; 16] = [0; 16];
    hmac(hmac_id, otk, [&octets[..octets.len() - len], &ZERO[..len]])
}

#[cfg(test)]
mod tests;
