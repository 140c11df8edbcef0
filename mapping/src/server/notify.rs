//! Map-Notify: acknowledging ones, and unsolicited ones until they are acknowledged (RFC 9301 §5.7).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::auth::{self, Covered};
use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::timers::{
    MAP_NOTIFY_BACKOFF_RETRIES, MAP_NOTIFY_RETRY, MAP_NOTIFY_STEADY_RETRIES, MAX_PENDING_NOTIFIES,
};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, MapNotify, MapNotifyAck, XtrIdentity,
};

use super::site::Signer;

/// Octets that a Map-Notify of one EID-prefix with a few locators takes.
pub(super) const USUAL_NOTIFY: usize = 192;

/// What a Map-Notify says.
#[derive(Debug)]
pub(super) struct MapNotifyBody {
    pub(super) nonce: u64,
    pub(super) records: Vec<EidRecord>,
    pub(super) identity: Option<XtrIdentity>,
    /// Tell of the identity by the I-bit, as only NAT traversal does (draft-ermagan-lisp-nat-traversal §4.4).
    pub(super) flagged: bool,
}

/// A signed Map-Notify, as octets, in the memory of `payload`; `None` only if its records do not encode.
pub(super) fn signed_notify_in(
    mut payload: Vec<u8>,
    said: MapNotifyBody,
    signer: &Signer,
) -> Option<Vec<u8>> {
    const I_BIT: u8 = 0x08;
    let authentication =
        AuthenticationData::zeroed(signer.key_id, signer.algorithm.id(), signer.mac_len);
    let MapNotifyBody { nonce, records, identity, flagged } = said;
    // Without an identity nothing follows the records: both readings of the reach are one.
    let covered = if identity.is_some() { signer.covered } else { Covered::Message };
    let flagged = flagged && identity.is_some();
    MapNotify { nonce, authentication, records, identity }.encode(&mut payload);
    if flagged {
        *payload.first_mut()? |= I_BIT;
    }
    auth::sign_covering(&mut payload, &signer.secret, signer.algorithm, covered).ok()?;
    Some(payload)
}

/// To port 4342, never to the source port of the Map-Register (MS-07).
pub(super) fn to_control_port(local: IpAddr, etr: IpAddr, payload: Vec<u8>) -> Transmit {
    Transmit {
        source: local,
        source_port: SourcePort::Control,
        destination: SocketAddr::new(etr, CONTROL_PORT),
        payload,
    }
}

#[derive(Debug)]
struct Pending {
    prefix: EidPrefix,
    transmit: Transmit,
    signer: Signer,
    retries: u32,
    wait: Duration,
    due: Instant,
}

/// What became due.
#[derive(Debug)]
pub(super) enum Due {
    /// Send again.
    Retransmit(Transmit),
    /// Nobody answered.
    GivenUp { prefix: EidPrefix, destination: IpAddr },
}

/// The unsolicited Map-Notifies that wait for their Map-Notify-Ack: one per ETR and EID-prefix, the newest.
#[derive(Debug, Default)]
pub(super) struct Notifier {
    pending: BTreeMap<u64, Pending>,
    by_target: HashMap<(IpAddr, EidPrefix), u64>,
    due: BTreeSet<(Instant, u64)>,
}

impl Notifier {
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Watches over a Map-Notify that was just sent; an older one to the same ETR about the same prefix is forgotten.
    pub(super) fn watch(
        &mut self,
        now: Instant,
        nonce: u64,
        prefix: EidPrefix,
        transmit: Transmit,
        signer: Signer,
    ) {
        let target = (transmit.destination.ip(), prefix);
        if let Some(&older) = self.by_target.get(&target) {
            self.forget(older);
        }
        if self.pending.len() >= MAX_PENDING_NOTIFIES
            && let Some(&(_, soonest)) = self.due.first()
        {
            self.forget(soonest);
        }
        let due = now + MAP_NOTIFY_RETRY;
        let wait = MAP_NOTIFY_RETRY;
        self.by_target.insert(target, nonce);
        self.due.insert((due, nonce));
        self.pending.insert(nonce, Pending { prefix, transmit, signer, retries: 0, wait, due });
    }

    /// Stops telling `etr` of a mapping that it replaced itself: the old news would have it give up an EID that came back.
    pub(super) fn forget_target(&mut self, etr: IpAddr, prefix: &EidPrefix) {
        if let Some(&nonce) = self.by_target.get(&(etr, *prefix)) {
            self.forget(nonce);
        }
    }

    /// Stops the retransmission that `ack` answers.
    ///
    /// # Errors
    /// MS-09: no such nonce is outstanding, or the Authentication Data does not verify.
    pub(super) fn acknowledge(&mut self, ack: &MapNotifyAck, octets: &[u8]) -> Result<(), Discard> {
        let nonce = ack.0.nonce;
        let pending = self.pending.get(&nonce).ok_or(Discard::AckNotExpected)?;
        let signer = &pending.signer;
        if ack.0.authentication.key_id != signer.key_id {
            return Err(Discard::KeyUnknown);
        }
        auth::verify(octets, &signer.secret, &[signer.algorithm])
            .map_err(|_| Discard::AuthenticationFailed)?;
        self.forget(nonce);
        Ok(())
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what is due at `now`, one at a time: three retransmissions at a steady interval, three with doubling ones (MS-08).
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let &(at, nonce) = self.due.first()?;
        if at > now {
            return None;
        }
        let pending = self.pending.get_mut(&nonce)?;
        if pending.retries == MAP_NOTIFY_STEADY_RETRIES + MAP_NOTIFY_BACKOFF_RETRIES {
            let (prefix, destination) = (pending.prefix, pending.transmit.destination.ip());
            self.forget(nonce);
            return Some(Due::GivenUp { prefix, destination });
        }
        pending.retries += 1;
        if pending.retries >= MAP_NOTIFY_STEADY_RETRIES {
            pending.wait *= 2;
        }
        pending.due = now + pending.wait;
        let (due, transmit) = (pending.due, pending.transmit.clone());
        self.due.pop_first();
        self.due.insert((due, nonce));
        Some(Due::Retransmit(transmit))
    }

    fn forget(&mut self, nonce: u64) {
        if let Some(pending) = self.pending.remove(&nonce) {
            self.due.remove(&(pending.due, nonce));
            self.by_target.remove(&(pending.transmit.destination.ip(), pending.prefix));
        }
    }
}
