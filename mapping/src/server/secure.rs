//! LISP-SEC on the Map-Server's side: what it vouches for, and the one-time key it passes on (RFC 9303 §6.7).

use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::resolver::Protection;
use crate::sec::{self, SecError};
use crate::timers::MAX_VOUCHED_PREFIXES;
use crate::wire::security::{EcmSecurity, EidAd, EidAdBody};
use crate::wire::{EidField, MacField, MapReply};

use super::site::Signer;

/// What the EID-AD of an answer says: the longest-match registered EID-prefix of each record asked for, of an answer without one the
/// EID-prefix that it is about (SE-12).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Voucher {
    prefix: EidPrefix,
    others: Vec<EidPrefix>,
    /// E-bit: some ETR of the EID-prefixes registered without the S-bit.
    etr_cant_sign: bool,
}

impl Voucher {
    pub(super) fn new(prefix: EidPrefix, etr_cant_sign: bool) -> Self {
        Self { prefix, others: Vec::new(), etr_cant_sign }
    }

    /// Vouches for what `other` vouches for too, as far as the bound allows.
    pub(super) fn join(&mut self, other: Self) {
        self.etr_cant_sign |= other.etr_cant_sign;
        for prefix in std::iter::once(other.prefix).chain(other.others) {
            let known = prefix == self.prefix || self.others.contains(&prefix);
            if !known && self.others.len() + 1 < MAX_VOUCHED_PREFIXES {
                self.others.push(prefix);
            }
        }
    }

    /// The unsigned EID-AD, its HMAC field as long as it will be.
    fn eid_ad(&self, kdf_id: u16, hmac_id: u16) -> EidAd {
        let prefixes = std::iter::once(&self.prefix).chain(&self.others);
        let body = EidAdBody {
            etr_cant_sign: self.etr_cant_sign,
            hmac_id,
            prefixes: prefixes.copied().map(EidField::from).collect(),
            hmac: MacField::zeroed(LONGEST_HMAC),
        };
        EidAd { kdf_id, body: Some(body) }
    }
}

/// Octets of the longer of the two HMACs.
const LONGEST_HMAC: usize = 16;

/// The most octets that [`protect`] adds to a Map-Reply.
pub(super) fn reply_octets(voucher: &Voucher) -> usize {
    const AD_TYPE: usize = 4;
    const PACKET_AD: usize = 4 + LONGEST_HMAC;
    AD_TYPE + eid_ad_octets(voucher) + PACKET_AD
}

/// The most octets that [`ecm_security`] has.
pub(super) fn ecm_octets(voucher: &Voucher) -> usize {
    const OTK_AD: usize = 32;
    OTK_AD + eid_ad_octets(voucher)
}

fn eid_ad_octets(voucher: &Voucher) -> usize {
    let kdf_id = sec::kdf_id::HKDF_SHA256;
    voucher.eid_ad(kdf_id, sec::hmac_id::SHA_256_128).to_vec().len()
}

/// A proxy Map-Reply with EID-AD and PKT-AD (RFC 9303 §6.7.2).
pub(super) fn protect(
    reply: MapReply,
    protection: &Protection,
    voucher: &Voucher,
) -> Result<Vec<u8>, Discard> {
    let kdf_id = sec::choose_kdf(protection.requested.kdf_id);
    let hmac_id = sec::choose_hmac(protection.requested.hmac_id);
    let seal = || -> Result<Vec<u8>, SecError> {
        let mut eid_ad = voucher.eid_ad(kdf_id, hmac_id);
        sec::sign_eid_ad(&mut eid_ad, &protection.otk)?;
        let ms_otk = sec::ms_otk(&protection.otk, kdf_id)?;
        sec::protect_reply(reply, &eid_ad.to_vec(), &ms_otk, hmac_id)
    };
    Ok(seal()?)
}

/// The authentication data of the ECM to an ETR that registered as `signer` (RFC 9303 §6.7.1): the MS-OTK wrapped for it, and the
/// EID-AD that it copies. The HMAC ID that the ITR asked for is the ETR's to judge.
pub(super) fn ecm_security(
    protection: &Protection,
    nonce: u64,
    signer: &Signer,
    voucher: &Voucher,
) -> Result<Vec<u8>, Discard> {
    let kdf_id = sec::choose_kdf(protection.requested.kdf_id);
    let mut eid_ad = voucher.eid_ad(kdf_id, sec::choose_hmac(protection.requested.hmac_id));
    sec::sign_eid_ad(&mut eid_ad, &protection.otk)?;
    let wrapped = sec::wrap(&sec::ms_otk(&protection.otk, kdf_id)?, nonce, &signer.secret);
    let security = EcmSecurity {
        requested_hmac: protection.requested.hmac_id,
        key_id: signer.key_id,
        wrapping_id: wrapped.wrapping_id,
        preamble: wrapped.preamble,
        otk: wrapped.otk,
        eid_ad,
    };
    Ok(security.to_vec())
}
