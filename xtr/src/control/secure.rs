//! LISP-SEC (RFC 9303): the ITR's one-time keys, and the ETR's signature under what it answers.
use super::{ControlPlane, Event};
use mapping::config::Secret;
use mapping::discard::Discard;
use mapping::eid::EidPrefix;
use mapping::sec::{self, Authorized, Otk, Requested, SecError, hmac_id, kdf_id};
use mapping::wire::security::{EcmSecurity, EidAd};
use mapping::wire::{EncapsulatedControlMessage, MapReply, Message};
use std::net::IpAddr;
use std::time::Instant;

/// Refused Map-Replies told to the operator, per second; counted are all.
pub(super) const REFUSALS_TOLD_PER_SECOND: u32 = 5;

/// What an ITR asks for first (SE-14, SE-15).
pub(super) const PREFERRED: Requested =
    Requested { hmac_id: hmac_id::SHA_256_128, kdf_id: kdf_id::HKDF_SHA256 };

/// What protects one Map-Request; it goes with its nonce (SE-19).
#[derive(Clone, Debug)]
pub(super) struct Protection {
    otk: Otk,
    requested: Requested,
}

/// What an ETR signs its Map-Reply with (RFC 9303 §6.8).
#[derive(Debug)]
pub(super) struct Seal {
    /// As the Map-Server sent it, octet for octet.
    eid_ad: Vec<u8>,
    ms_otk: Otk,
    hmac_id: u16,
}

impl Protection {
    /// The key of Map-Notifies for a subscription with this Map-Request (RFC 9437 §7.1, PS-21).
    pub(super) fn pubsub_key(&self, nonce: u64) -> Option<Secret> {
        let wrapping_id = sec::wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256;
        sec::pubsub_key(&self.otk, nonce, wrapping_id).ok()
    }
}

impl Seal {
    /// The Map-Reply with S-bit, EID-AD and PKT-AD.
    pub(super) fn close(&self, reply: MapReply) -> Result<Vec<u8>, SecError> {
        sec::protect_reply(reply, &self.eid_ad, &self.ms_otk, self.hmac_id)
    }
}

/// Asks for other IDs after a reply that did not keep to them (SE-20): there are two of each.
fn other_ids(requested: Requested, error: SecError) -> Requested {
    let other = |id: u16| if id == 1 { 2 } else { 1 };
    match error {
        SecError::OtherHmac(_) => Requested { hmac_id: other(requested.hmac_id), ..requested },
        SecError::OtherKdf(_) => Requested { kdf_id: other(requested.kdf_id), ..requested },
        _ => requested,
    }
}

impl ControlPlane {
    /// Whether lookups go without protection nowhere: LISP-SEC is on.
    pub(super) fn is_protected(&self) -> bool {
        self.config.lisp_sec.is_some()
    }

    /// Whether what comes without LISP-SEC is refused (SE-23), and no lookup is repeated without it (SE-22).
    pub(super) fn requires_protection(&self) -> bool {
        self.config.lisp_sec.as_ref().is_some_and(|lisp_sec| lisp_sec.required)
    }

    /// Protects the Map-Request in `ecm` with a fresh one-time key (SE-01, SE-02, SE-05); `None` without LISP-SEC.
    pub(super) fn protect(
        &mut self,
        ecm: &mut EncapsulatedControlMessage,
        nonce: u64,
        requested: Requested,
    ) -> Option<Protection> {
        let lisp_sec = self.config.lisp_sec.as_ref()?;
        let otk = Otk::random(&mut self.rng);
        let wrapped = sec::wrap(&otk, nonce, &lisp_sec.secret);
        let security = EcmSecurity {
            requested_hmac: requested.hmac_id,
            key_id: lisp_sec.key_id,
            wrapping_id: wrapped.wrapping_id,
            preamble: wrapped.preamble,
            otk: wrapped.otk,
            eid_ad: EidAd::request(requested.kdf_id),
        };
        ecm.security = Some(security.to_vec());
        self.count("protected_map_requests_sent");
        Some(Protection { otk, requested })
    }

    /// What the Map-Server of a Map-Reply vouches for (RFC 9303 §6.9); `None` when the Map-Request was not protected.
    ///
    /// # Errors
    /// The reply is to be discarded. The lookup goes on, with other IDs if those were not kept to (SE-20): whoever tampers with a
    /// reply does not keep the genuine one from being used.
    pub(super) fn verify_reply(
        &mut self,
        requested: EidPrefix,
        nonce: u64,
        octets: &[u8],
    ) -> Result<Option<Authorized>, Discard> {
        let Some(protection) = self.lookups.protection(&requested, nonce) else {
            return Ok(None);
        };
        match sec::open_reply(octets, &protection.otk, protection.requested) {
            Ok(authorized) => Ok(Some(authorized)),
            Err(error) => {
                let ids = other_ids(protection.requested, error);
                self.lookups.ask_for(&requested, ids);
                Err(error.into())
            }
        }
    }

    /// SE-18, SE-21: what was refused is counted, and told as far as a reader can follow.
    pub(super) fn refuse_reply(
        &mut self,
        now: Instant,
        prefix: EidPrefix,
        from: IpAddr,
        reason: Discard,
    ) {
        self.discard(reason);
        if self.refusals_told.take(now).is_ok() {
            self.event(Event::ReplyRefused { prefix, from, reason });
        }
    }

    /// What to sign the answer to an encapsulated Map-Request with (RFC 9303 §6.8); `None` when it is not protected, or this ETR does
    /// not speak LISP-SEC and said so when it registered.
    ///
    /// # Errors
    /// The Map-Request is to be discarded.
    pub(super) fn open_request(
        &self,
        from: IpAddr,
        ecm: &EncapsulatedControlMessage,
        nonce: u64,
    ) -> Result<Option<Seal>, Discard> {
        if !self.is_protected() {
            return Ok(None);
        }
        let Some(octets) = &ecm.security else {
            return if self.requires_protection() {
                Err(Discard::SecurityMissing)
            } else {
                Ok(None)
            };
        };
        let security = EcmSecurity::parse(octets).map_err(|_| Discard::SecurityMalformed)?;
        if security.wrapping_id != sec::wrapping_id::AES_KEY_WRAP_128_HKDF_SHA256 {
            return Err(Discard::KeyUnwrapped);
        }
        if security.eid_ad.body.is_none() {
            return Err(Discard::SecurityMalformed);
        }
        let mut outcome = Discard::OtkKeyUnknown;
        // Those that the message may be from come first: the address proves nothing, but then one key is tried.
        let of_sender = |server: &&crate::config::MapServer| {
            !self.addresses_of(&server.endpoint).contains(&from)
        };
        let mut servers: Vec<_> = self.config.map_servers.iter().collect();
        servers.sort_by_key(of_sender);
        for server in servers.into_iter().filter(|server| server.key_id == security.key_id) {
            match sec::unwrap(&security, nonce, &server.secret) {
                Ok(ms_otk) => {
                    let eid_ad = sec::eid_ad_octets(octets)?.to_vec();
                    let hmac_id = sec::choose_hmac(security.requested_hmac);
                    return Ok(Some(Seal { eid_ad, ms_otk, hmac_id }));
                }
                Err(error) => outcome = error.into(),
            }
        }
        Err(outcome)
    }

    /// The octets of a Map-Reply, signed if there is something to sign it with.
    pub(super) fn reply_octets(&self, reply: MapReply, seal: Option<&Seal>) -> Option<Vec<u8>> {
        match seal {
            Some(seal) => seal.close(reply).ok(),
            None => Some(Message::MapReply(reply).to_vec()),
        }
    }
}
