//! Map-Notifies to subscribers: paced, and repeated until they are acknowledged (RFC 9301 §5.7, RFC 9437 §5, §6).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::auth;
use crate::discard::Discard;
use crate::eid::EidPrefix;
use crate::limits::{Rate, TokenBucket};
use crate::server::site::Signer;
use crate::timers::{
    MAP_NOTIFY_BACKOFF_RETRIES, MAP_NOTIFY_RETRY, MAP_NOTIFY_STEADY_RETRIES,
    MAX_PENDING_PUBLICATIONS, MAX_QUEUED_PUBLICATIONS, PUBLICATION_PACE,
};
use crate::transmit::Transmit;
use crate::wire::{MapNotifyAck, XtrIdentity};

/// What is to be told to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Publication {
    pub(super) xtr: XtrIdentity,
    /// What it subscribed to.
    pub(super) subscribed: EidPrefix,
    /// The EID-prefix of the record.
    pub(super) prefix: EidPrefix,
    /// The mapping of a covering EID-prefix changed, and with it that of this one.
    pub(super) inherited: bool,
}

/// A Map-Notify that was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) publication: Publication,
    pub(super) nonce: u64,
    pub(super) transmit: Transmit,
    /// `None`: its acknowledgement is not authenticated either.
    pub(super) signer: Option<Signer>,
    /// Own address and ITR-RLOC to try when the first does not answer (PS-20).
    pub(super) alternatives: VecDeque<(IpAddr, SocketAddr)>,
}

#[derive(Debug)]
struct Pending {
    sent: Sent,
    retries: u32,
    wait: Duration,
    due: Instant,
}

/// What became due.
#[derive(Debug)]
pub(super) enum Due {
    /// Send again.
    Retransmit(Transmit),
    /// Nobody answered at any ITR-RLOC.
    GivenUp(Sent),
}

/// Publications that wait for their turn, and those that wait for their Map-Notify-Ack: of one xTR and EID-prefix, the newest.
#[derive(Debug)]
pub(super) struct Publisher {
    rate: Rate,
    bucket: TokenBucket,
    queue: VecDeque<Publication>,
    queued: HashSet<Publication>,
    resume: Option<Instant>,
    serial: u64,
    pending: BTreeMap<u64, Pending>,
    by_target: HashMap<(XtrIdentity, EidPrefix), u64>,
    by_nonce: BTreeSet<(u64, u64)>,
    by_subscription: BTreeSet<(XtrIdentity, EidPrefix, u64)>,
    due: BTreeSet<(Instant, u64)>,
}

impl Publisher {
    /// Publications per second from now on.
    pub(super) fn set_pace(&mut self, per_second: u32) {
        self.rate = Rate::new(per_second, per_second);
    }

    pub(super) fn new(per_second: u32) -> Self {
        Self {
            rate: Rate::new(per_second, per_second),
            bucket: TokenBucket::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            resume: None,
            serial: 0,
            pending: BTreeMap::new(),
            by_target: HashMap::new(),
            by_nonce: BTreeSet::new(),
            by_subscription: BTreeSet::new(),
            due: BTreeSet::new(),
        }
    }

    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_queued(&self, publication: &Publication) -> bool {
        self.queued.contains(publication)
    }

    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// How many Map-Notifies of one subscription are not acknowledged.
    pub(super) fn unacknowledged(&self, xtr: XtrIdentity, subscribed: &EidPrefix) -> usize {
        self.of_subscription(xtr, subscribed).count()
    }

    /// Puts a publication in the queue, unless it is there: the record is made when its turn comes.
    pub(super) fn enqueue(&mut self, now: Instant, publication: Publication) {
        if self.queue.len() < MAX_QUEUED_PUBLICATIONS && self.queued.insert(publication) {
            self.queue.push_back(publication);
            self.resume.get_or_insert(now);
        }
    }

    /// The next publication that may be sent at `now`.
    pub(super) fn next(&mut self, now: Instant) -> Option<Publication> {
        if self.queue.is_empty() {
            self.resume = None;
            return None;
        }
        if self.pending.len() >= MAX_PENDING_PUBLICATIONS || !self.bucket.take(now, self.rate) {
            self.resume = Some(now + PUBLICATION_PACE);
            return None;
        }
        let publication = self.queue.pop_front()?;
        self.queued.remove(&publication);
        Some(publication)
    }

    /// Watches over a Map-Notify that was just sent; an older one to the same xTR about the same EID-prefix is forgotten.
    pub(super) fn watch(&mut self, now: Instant, sent: Sent) {
        let Publication { xtr, subscribed, prefix, .. } = sent.publication;
        if let Some(&older) = self.by_target.get(&(xtr, prefix)) {
            self.forget(older);
        }
        self.serial += 1;
        let (serial, due) = (self.serial, now + MAP_NOTIFY_RETRY);
        self.by_target.insert((xtr, prefix), serial);
        self.by_nonce.insert((sent.nonce, serial));
        self.by_subscription.insert((xtr, subscribed, serial));
        self.due.insert((due, serial));
        self.pending.insert(serial, Pending { sent, retries: 0, wait: MAP_NOTIFY_RETRY, due });
    }

    /// Stops the retransmission that `ack` answers; returns what it was.
    ///
    /// # Errors
    /// MS-09: no such nonce is outstanding, or the Authentication Data does not verify.
    pub(super) fn acknowledge(
        &mut self,
        ack: &MapNotifyAck,
        octets: &[u8],
    ) -> Result<Publication, Discard> {
        let nonce = ack.0.nonce;
        // Two xTRs may use the same nonce, and one xTR for two prefixes of one Map-Request.
        let prefix = ack.0.records.first().and_then(|record| record.eid.prefix());
        let candidates = self.by_nonce.range((nonce, 0)..=(nonce, u64::MAX)).map(|&(_, s)| s);
        let mut outcome = Discard::AckNotExpected;
        let mut found: Option<(bool, u64)> = None;
        for serial in candidates {
            let Some(Pending { sent, .. }) = self.pending.get(&serial) else { continue };
            match verify(sent.signer.as_ref(), ack, octets) {
                Ok(()) => {
                    found = found.max(Some((prefix == Some(sent.publication.prefix), serial)));
                }
                Err(reason) => outcome = reason,
            }
        }
        let (_, serial) = found.ok_or(outcome)?;
        self.forget(serial).map(|pending| pending.sent.publication).ok_or(outcome)
    }

    /// Nothing more is sent for this subscription; returns what was not acknowledged.
    pub(super) fn cancel(&mut self, xtr: XtrIdentity, subscribed: &EidPrefix) -> Vec<EidPrefix> {
        let serials: Vec<u64> = self.of_subscription(xtr, subscribed).collect();
        let forgotten = serials.into_iter().filter_map(|serial| self.forget(serial));
        forgotten.map(|pending| pending.sent.publication.prefix).collect()
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        let retransmission = self.due.first().map(|(at, _)| *at);
        [retransmission, self.resume].into_iter().flatten().min()
    }

    /// Takes what is due at `now`, one at a time: the schedule of RFC 9301 §5.7 for one ITR-RLOC after the other.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Due> {
        let &(at, serial) = self.due.first()?;
        if at > now {
            return None;
        }
        let pending = self.pending.get_mut(&serial)?;
        if pending.retries == MAP_NOTIFY_STEADY_RETRIES + MAP_NOTIFY_BACKOFF_RETRIES {
            let Some((source, destination)) = pending.sent.alternatives.pop_front() else {
                return self.forget(serial).map(|pending| Due::GivenUp(pending.sent));
            };
            pending.sent.transmit.source = source;
            pending.sent.transmit.destination = destination;
            (pending.retries, pending.wait) = (0, MAP_NOTIFY_RETRY);
        } else {
            pending.retries += 1;
            if pending.retries >= MAP_NOTIFY_STEADY_RETRIES {
                pending.wait *= 2;
            }
        }
        pending.due = now + pending.wait;
        let (due, transmit) = (pending.due, pending.sent.transmit.clone());
        self.due.pop_first();
        self.due.insert((due, serial));
        Some(Due::Retransmit(transmit))
    }

    fn of_subscription(
        &self,
        xtr: XtrIdentity,
        subscribed: &EidPrefix,
    ) -> impl Iterator<Item = u64> {
        let range = (xtr, *subscribed, 0)..=(xtr, *subscribed, u64::MAX);
        self.by_subscription.range(range).map(|&(_, _, serial)| serial)
    }

    fn forget(&mut self, serial: u64) -> Option<Pending> {
        let pending = self.pending.remove(&serial)?;
        let Publication { xtr, subscribed, prefix, .. } = pending.sent.publication;
        self.by_subscription.remove(&(xtr, subscribed, serial));
        self.due.remove(&(pending.due, serial));
        self.by_nonce.remove(&(pending.sent.nonce, serial));
        self.by_target.remove(&(xtr, prefix));
        Some(pending)
    }
}

fn verify(signer: Option<&Signer>, ack: &MapNotifyAck, octets: &[u8]) -> Result<(), Discard> {
    let Some(signer) = signer else { return Ok(()) };
    if ack.0.authentication.key_id != signer.key_id {
        return Err(Discard::KeyUnknown);
    }
    auth::verify(octets, &signer.secret, &[signer.algorithm])
        .map(drop)
        .map_err(|_| Discard::AuthenticationFailed)
}
