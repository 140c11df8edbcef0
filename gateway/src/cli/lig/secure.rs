//! Lookups protected by LISP-SEC (RFC 9303), with a key that the Map-Resolver knows.

use std::io;
use std::path::Path;
use std::time::Instant;

use ::mapping::config::Secret;
use ::mapping::sec::{self, Authorized, Otk, Requested, hmac_id, kdf_id};
use ::mapping::wire::EncapsulatedControlMessage;
use ::mapping::wire::security::{EcmSecurity, EidAd};

use super::super::Failure;
use crate::config;

const REQUESTED: Requested =
    Requested { hmac_id: hmac_id::SHA_256_128, kdf_id: kdf_id::HKDF_SHA256 };

/// A secret shared with the Map-Resolver.
#[derive(Debug)]
pub(super) struct Key {
    id: u8,
    secret: Secret,
}

/// A Map-Request that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) nonce: u64,
    pub(super) at: Instant,
    /// Its one-time key, if it is protected.
    pub(super) otk: Option<Otk>,
}

impl Key {
    /// Key `id` from `file`.
    pub(super) fn read(id: u8, file: &Path) -> Result<Self, Failure> {
        match config::read_key_file(file) {
            Ok((octets, _)) if octets.is_empty() => {
                Err(Failure::Usage(format!("key file {} is empty", file.display())))
            }
            Ok((octets, _)) => Ok(Self { id, secret: Secret::new(octets) }),
            Err(error) => Err(Failure::Failed(format!("key file {}: {error}", file.display()))),
        }
    }

    /// Protects the Map-Request in `ecm`; what is returned opens the reply.
    pub(super) fn protect(
        &self,
        ecm: &mut EncapsulatedControlMessage,
        nonce: u64,
    ) -> io::Result<Otk> {
        let mut octets = [0; 16];
        getrandom::fill(&mut octets).map_err(io::Error::other)?;
        let otk = Otk::new(octets);
        let wrapped = sec::wrap(&otk, nonce, &self.secret);
        let security = EcmSecurity {
            requested_hmac: REQUESTED.hmac_id,
            key_id: self.id,
            wrapping_id: wrapped.wrapping_id,
            preamble: wrapped.preamble,
            otk: wrapped.otk,
            eid_ad: EidAd::request(REQUESTED.kdf_id),
        };
        ecm.security = Some(security.to_vec());
        Ok(otk)
    }
}

impl Sent {
    /// What is vouched for in the reply; `None` without a key.
    pub(super) fn open(&self, reply: &[u8]) -> Result<Option<Authorized>, sec::SecError> {
        self.otk.as_ref().map(|otk| sec::open_reply(reply, otk, REQUESTED)).transpose()
    }
}
