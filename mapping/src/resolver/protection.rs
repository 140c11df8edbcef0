//! What protects a lookup: the ITR's one-time key, unwrapped (RFC 9303 §6.6).

use crate::config::LispSec;
use crate::discard::Discard;
use crate::sec::{self, Otk, Requested};
use crate::wire::security::EcmSecurity;

/// The ITR-OTK of a Map-Request, and what its ITR asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protection {
    pub(crate) otk: Otk,
    pub(crate) requested: Requested,
    /// How the key came.
    pub(crate) wrapping_id: u8,
}

/// The secrets shared with ITRs.
#[derive(Debug)]
pub(crate) struct ItrKeys(LispSec);

impl ItrKeys {
    pub(crate) fn new(config: LispSec) -> Self {
        Self(config)
    }

    /// The protection of a Map-Request with `nonce`, from the authentication data of its ECM. `None` when it has none, or when
    /// nobody here knows any key: then it is answered as by a node without LISP-SEC, and its ITR decides what that is worth.
    ///
    /// # Errors
    /// What is neither: nothing where LISP-SEC is required (SE-23), a key that does not unwrap (SE-06), that is not wrapped (SE-04), or
    /// that is wrapped with a Key ID that is unknown.
    pub(crate) fn protection(
        &self,
        security: Option<&[u8]>,
        nonce: u64,
    ) -> Result<Option<Protection>, Discard> {
        let Some(octets) = security.filter(|_| !self.0.itr_keys.is_empty()) else {
            let missing = self.0.required.then_some(Discard::SecurityMissing);
            return missing.map_or(Ok(None), Err);
        };
        let security = EcmSecurity::parse(octets).map_err(|_| Discard::SecurityMalformed)?;
        let mut outcome = Discard::OtkKeyUnknown;
        for key in self.0.itr_keys.iter().filter(|key| key.id == security.key_id) {
            match sec::unwrap(&security, nonce, &key.secret) {
                Ok(otk) => {
                    let requested = Requested {
                        hmac_id: security.requested_hmac,
                        kdf_id: security.eid_ad.kdf_id,
                    };
                    let wrapping_id = security.wrapping_id;
                    return Ok(Some(Protection { otk, requested, wrapping_id }));
                }
                Err(error) => outcome = error.into(),
            }
        }
        // Whoever sends a key in the clear has no Key ID to name.
        let wrapped = security.wrapping_id == sec::wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256;
        Err(if wrapped { outcome } else { Discard::KeyUnwrapped })
    }
}
