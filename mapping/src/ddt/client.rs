//! A DDT client: follows referrals through the tree for each lookup (RFC 8111 §7.3, §8.1, §8.2).
//!
//! Lookups that are under way are in `pending`; what each is waiting for is its [`Step`]: the RLOCs of one referral set, asked one
//! after another. The prefixes of the referrals followed grow strictly longer, so a loop is seen at its second node (DD-12).
//!
//! The Map-Request inside stays the ITR's own, nonce included, since the ETR answers to it. So whoever sees that request knows the
//! nonce of the Map-Referrals; they are taken from the very addresses that were asked only, and a node's word counts only within
//! the prefix that it was asked about. What came to the well-known port is followed for that lookup but not kept: an ITR can write
//! such a Map-Referral itself, and it would count for everybody.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use super::cache::{Entry, Kind, Origin, ReferralCache};
use super::config::DdtConfig;
use super::step::{Ranked, Silence, Step, usable_rlocs};
use crate::discard::Discard;
use crate::eid::{Eid, EidPrefix};
use crate::limits::{KeyedBuckets, Rate, source_key};
use crate::resolver::negative::least_specific;
use crate::resolver::{Lookup, OwnAddresses, is_martian};
use crate::timers::{
    DDT_REQUEST_TIMEOUT, DDT_REQUESTS_BURST, DDT_REQUESTS_PER_SECOND, MAX_REFERRALS,
    MAX_REFERRALS_CACHED, NEGATIVE_TTL_MINUTES, PENDING_LOOKUPS, PENDING_LOOKUPS_PER_NONCE,
    PENDING_LOOKUPS_PER_SOURCE, REFERRAL_TTL_MINUTES, TRACKED_SOURCES, UNREGISTERED_TTL_MINUTES,
    control_payload_limit,
};
use crate::transmit::{SourcePort, Transmit};
use crate::wire::{CONTROL_PORT, MapReferral, ReferralAction, ReferralRecord};

/// The longest DDT Map-Request that any node is sent.
const LONGEST: usize = control_payload_limit(IpAddr::V6(Ipv6Addr::UNSPECIFIED));

/// Who asks for what: an ITR that asks again replaces its request (RFC 8111 §8.1). Outer source, ITR-RLOC with inner source port, EID.
type Key = (IpAddr, SocketAddr, EidPrefix);

/// A Negative Map-Reply to be sent.
#[derive(Debug)]
pub(crate) struct Negative {
    /// The lookup it answers.
    pub(crate) lookup: Lookup,
    /// What was asked for.
    pub(crate) asked: EidPrefix,
    /// The prefix around `asked` that has no mapping.
    pub(crate) prefix: EidPrefix,
    /// For how long, in minutes.
    pub(crate) ttl_minutes: u32,
}

/// What the client did, for `show counters`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) retransmitted: u64,
    pub(crate) received: u64,
    pub(crate) completed: u64,
    pub(crate) held_back: u64,
}

/// A lookup under way (RFC 8111 §3, Pending Request List).
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) lookup: Lookup,
    pub(crate) asked: EidPrefix,
    /// Outer source of the newest request: who the bound per source counts.
    client: IpAddr,
    /// Nonce of the last DDT Map-Request sent.
    nonce: u64,
    pub(crate) step: Step,
    /// Prefix of the last referral received (DD-12).
    pub(crate) last: Option<EidPrefix>,
    /// The learned entry that the search began with.
    learned: Option<EidPrefix>,
    pub(crate) through_root: bool,
    pub(crate) referrals: u32,
    pub(crate) since: Instant,
    due: Instant,
}

/// What is to become of a pending lookup.
enum Next {
    /// It waits for a Map-Referral to what was sent.
    Wait,
    /// It ended without an answer of ours.
    Done,
    /// It ended with a Negative Map-Reply: prefix and TTL in minutes.
    Negative(EidPrefix, u32),
    /// It ended for this reason, without any answer.
    Failed(Discard),
}

/// What becomes of it, and why the record that decided so was not followed.
type Judgement = (Next, Option<Discard>);

/// One record of a Map-Referral that answers a pending lookup.
struct Heard<'a> {
    now: Instant,
    /// The own address that the lookup came to.
    local: IpAddr,
    from: IpAddr,
    prefix: EidPrefix,
    record: &'a ReferralRecord,
    /// Whether `prefix` is no more than the node was asked about as one that knows: only so far is it believed and kept.
    within: bool,
    /// Whether it may be kept for other lookups.
    shared: bool,
}

/// A lookup that was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What was asked for.
    pub(crate) asked: EidPrefix,
    /// Whom the last DDT Map-Request went to.
    pub(crate) node: IpAddr,
    /// Why.
    pub(crate) reason: Discard,
}

/// The client half of a DDT Map-Resolver.
#[derive(Debug)]
pub(crate) struct Client {
    own: OwnAddresses,
    cache: ReferralCache,
    pending: BTreeMap<Key, Pending>,
    nonces: BTreeMap<u64, Vec<Key>>,
    due: BTreeSet<(Instant, Key)>,
    clients: HashMap<IpAddr, usize>,
    silence: Silence,
    rates: KeyedBuckets<IpAddr>,
    transmits: VecDeque<Transmit>,
    negatives: VecDeque<Negative>,
    failures: VecDeque<Failure>,
    tally: Tally,
}

impl Client {
    /// A client of `config` that sends from the addresses `own`.
    pub(crate) fn new(config: &DdtConfig, own: Vec<IpAddr>) -> Self {
        let rate = Rate::new(DDT_REQUESTS_PER_SECOND, DDT_REQUESTS_BURST);
        Self {
            own: OwnAddresses::new(own),
            cache: ReferralCache::new(config, MAX_REFERRALS_CACHED),
            pending: BTreeMap::new(),
            nonces: BTreeMap::new(),
            due: BTreeSet::new(),
            clients: HashMap::new(),
            silence: Silence::default(),
            rates: KeyedBuckets::new(rate, TRACKED_SOURCES),
            transmits: VecDeque::new(),
            negatives: VecDeque::new(),
            failures: VecDeque::new(),
            tally: Tally::default(),
        }
    }

    /// Takes the lookup of `asked`, its only record, that came from `from`.
    ///
    /// # Errors
    /// Why it is not taken: too many lookups are under way, or its message is too long to be passed on.
    pub(crate) fn handle_request(
        &mut self,
        now: Instant,
        from: IpAddr,
        lookup: Lookup,
        asked: EidPrefix,
    ) -> Result<(), Discard> {
        let itr = lookup.itr_rlocs.first().ok_or(Discard::NoItrRloc)?;
        let key = (from, SocketAddr::new(*itr, lookup.ecm.source.port()), asked);
        if lookup.ddt_len(true) > LONGEST {
            return Err(Discard::RequestTooLong);
        }
        if let Some(pending) = self.pending.get_mut(&key) {
            pending.lookup = lookup;
            return Ok(());
        }
        let Some(entry) = self.cache.find(now, &asked) else {
            let hole = least_specific(&asked, 0, &[&self.cache]).unwrap_or(asked);
            self.negative(lookup, asked, hole, NEGATIVE_TTL_MINUTES);
            return Ok(());
        };
        if let (true, Some(prefix), Some(expires)) =
            (entry.kind.is_negative(), entry.prefix, entry.expires)
        {
            let minutes = expires.saturating_duration_since(now).as_secs().div_ceil(60).max(1);
            self.negative(lookup, asked, prefix, u32::try_from(minutes).unwrap_or(1));
            return Ok(());
        }
        let source = source_key(from);
        let nonce = lookup.request.nonce;
        let full = self.pending.len() >= PENDING_LOOKUPS
            || self.nonces.get(&nonce).is_some_and(|keys| keys.len() >= PENDING_LOOKUPS_PER_NONCE)
            || self.clients.get(&source).is_some_and(|&held| held >= PENDING_LOOKUPS_PER_SOURCE);
        if full {
            return Err(Discard::PendingFull);
        }
        let pending = self.begin(now, source, lookup, asked, &entry.clone())?;
        *self.clients.entry(source).or_default() += 1;
        self.keep(now, key, pending);
        Ok(())
    }

    /// Takes a Map-Referral from `from`, to be kept for other lookups if `shared`; returns, record by record, why it was not followed.
    pub(crate) fn handle_referral(
        &mut self,
        now: Instant,
        from: IpAddr,
        shared: bool,
        referral: &MapReferral,
    ) -> Vec<Discard> {
        self.tally.received += 1;
        self.silence.heard(from);
        let mut refused = Vec::new();
        for record in &referral.records {
            match self.addressees(referral.nonce, record) {
                Err(reason) => refused.push(reason),
                Ok((prefix, keys)) => refused.extend(keys.into_iter().filter_map(|key| {
                    self.handle_record(now, from, shared, key, prefix, record).err()
                })),
            }
        }
        refused
    }

    /// Asks again what nobody answered (DD-18), and forgets what is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.cache.expire(now);
        while let Some(&(at, key)) = self.due.first()
            && at <= now
        {
            let Some(mut pending) = self.take(&key) else {
                self.due.pop_first();
                continue;
            };
            if let Some(silent) = pending.step.current() {
                self.silence.silent(now, silent);
            }
            let next = match pending.step.retry() {
                true => Next::Wait,
                false => match pending.step.unregistered() {
                    Some(prefix) => Next::Negative(prefix, UNREGISTERED_TTL_MINUTES),
                    None => Next::Failed(Discard::DdtUnanswered),
                },
            };
            self.tally.retransmitted += u64::from(matches!(next, Next::Wait));
            self.proceed(now, key, pending, next);
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = self.due.first().map(|(at, _)| *at);
        due.into_iter().chain(self.cache.next_expiry()).min()
    }

    /// The next DDT Map-Request to send.
    pub(crate) fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// The next Negative Map-Reply to send.
    pub(crate) fn poll_negative(&mut self) -> Option<Negative> {
        self.negatives.pop_front()
    }

    /// The next lookup that was given up.
    pub(crate) fn poll_failure(&mut self) -> Option<Failure> {
        self.failures.pop_front()
    }

    /// The referral cache.
    pub(crate) fn cache(&self) -> &ReferralCache {
        &self.cache
    }

    /// The lookups under way, in the order of client and EID.
    pub(crate) fn pending(&self) -> impl ExactSizeIterator<Item = &Pending> {
        self.pending.values()
    }

    /// What was done so far.
    pub(crate) fn tally(&self) -> Tally {
        self.tally
    }

    fn begin(
        &self,
        now: Instant,
        client: IpAddr,
        lookup: Lookup,
        asked: EidPrefix,
        entry: &Entry,
    ) -> Result<Pending, Discard> {
        let step = self.step(now, &lookup, &entry.rlocs, entry.kind.is_map_server(), entry.prefix);
        if step.is_empty() {
            let fits = lookup.ddt_len(true) <= control_payload_limit(lookup.local);
            return Err(if fits { Discard::ReferralUnusable } else { Discard::RequestTooLong });
        }
        let learned = matches!(entry.origin, Origin::Learned(_)).then_some(entry.prefix).flatten();
        Ok(Pending {
            nonce: lookup.request.nonce,
            lookup,
            asked,
            client,
            step,
            last: None,
            learned,
            through_root: entry.origin == Origin::Root,
            referrals: 0,
            since: now,
            due: now + DDT_REQUEST_TIMEOUT,
        })
    }

    /// A referral set in the order to ask it: the silent ones last, the others by turns.
    fn step(
        &self,
        now: Instant,
        lookup: &Lookup,
        rlocs: &[Ranked],
        secure: bool,
        within: Option<EidPrefix>,
    ) -> Step {
        let length = lookup.ddt_len(secure);
        let mut askable = self.askable(lookup.local, rlocs);
        askable.retain(|(_, rloc)| length <= control_payload_limit(*rloc));
        let ordered = self.silence.order(now, askable, lookup.request.nonce);
        Step::new(ordered, secure, within)
    }

    /// The RLOCs of other nodes that there is a way to.
    fn askable(&self, local: IpAddr, rlocs: &[Ranked]) -> Vec<Ranked> {
        let mut askable = rlocs.to_vec();
        askable.retain(|&(_, rloc)| {
            let way = self.own.source_for(rloc, local).is_some();
            way && !self.own.contains(rloc) && !is_martian(rloc, local)
        });
        askable
    }

    /// The prefix of a record, and the lookups with this nonce that it may be about.
    fn addressees(
        &self,
        nonce: u64,
        record: &ReferralRecord,
    ) -> Result<(EidPrefix, Vec<Key>), Discard> {
        let keys = self.nonces.get(&nonce).ok_or(Discard::NonceUnknown)?;
        let prefix = record.eid.prefix().ok_or(Discard::UnsupportedEid)?;
        let within = keys.iter().filter(|(.., asked)| prefix.contains(target(asked)));
        let within: Vec<Key> = within.copied().collect();
        if within.is_empty() { Err(Discard::ReferralMismatch) } else { Ok((prefix, within)) }
    }

    fn handle_record(
        &mut self,
        now: Instant,
        from: IpAddr,
        shared: bool,
        key: Key,
        prefix: EidPrefix,
        record: &ReferralRecord,
    ) -> Result<(), Discard> {
        let pending = self.pending.get(&key).ok_or(Discard::NonceUnknown)?;
        if !pending.step.was_asked(from) {
            return Err(Discard::ReferralNotAsked);
        }
        if let ReferralAction::Unassigned(_) = record.action {
            return Err(Discard::ReferralUnusable);
        }
        let within = pending.step.within.is_none_or(|asked| prefix.mask_len() >= asked.mask_len());
        let mut pending = self.take(&key).ok_or(Discard::NonceUnknown)?;
        let local = pending.lookup.local;
        let heard = Heard { now, local, from, prefix, record, within, shared };
        let (next, refused) = self.judge(&heard, &mut pending);
        self.proceed(now, key, pending, next);
        refused.map_or(Ok(()), Err)
    }

    /// RFC 8111 §8.2.
    fn judge(&mut self, heard: &Heard<'_>, pending: &mut Pending) -> Judgement {
        let prefix = heard.prefix;
        match heard.record.action {
            ReferralAction::NodeReferral | ReferralAction::MsReferral => {
                let looped = pending.last.is_some_and(|last| prefix.mask_len() <= last.mask_len());
                let reason = match looped {
                    true => Discard::ReferralLoop,
                    false if pending.referrals >= MAX_REFERRALS => Discard::ReferralLimit,
                    false => return self.follow(heard, pending),
                };
                let alone = target(&pending.asked).host_prefix();
                let negative = Next::Negative(alone, UNREGISTERED_TTL_MINUTES);
                self.begin_anew(heard.now, pending, reason, negative)
            }
            ReferralAction::MsAck => self.acknowledged(heard, pending),
            ReferralAction::MsNotRegistered if heard.within => self.not_registered(heard, pending),
            ReferralAction::DelegationHole if heard.within => {
                let minutes = heard.record.ttl_minutes.clamp(1, NEGATIVE_TTL_MINUTES);
                self.learn(heard, Kind::Hole, minutes);
                (Next::Negative(prefix, minutes), None)
            }
            ReferralAction::MsNotRegistered | ReferralAction::DelegationHole => {
                let reason = Discard::ReferralMismatch;
                self.begin_anew(heard.now, pending, reason, Next::Failed(reason))
            }
            ReferralAction::NotAuthoritative => {
                let reason = Discard::ReferralNotAuthoritative;
                self.begin_anew(heard.now, pending, reason, Next::Failed(reason))
            }
            ReferralAction::Unassigned(_) => (Next::Wait, None),
        }
    }

    /// NODE-REFERRAL, MS-REFERRAL: keep it and ask the next nodes.
    fn follow(&mut self, heard: &Heard<'_>, pending: &mut Pending) -> Judgement {
        let secure = heard.record.action == ReferralAction::MsReferral;
        let rlocs = usable_rlocs(heard.record);
        let step = self.step(heard.now, &pending.lookup, &rlocs, secure, Some(heard.prefix));
        if step.is_empty() {
            let reason = Discard::ReferralUnusable;
            return self.begin_anew(heard.now, pending, reason, Next::Failed(reason));
        }
        let kind = if secure { Kind::MapServer } else { Kind::Node };
        self.learn(heard, kind, heard.record.ttl_minutes);
        pending.step = step;
        pending.last = Some(heard.prefix);
        pending.referrals += 1;
        (Next::Wait, None)
    }

    /// MS-ACK (DD-14): done, unless the Map-Server has not seen the LISP-SEC data of the request.
    fn acknowledged(&mut self, heard: &Heard<'_>, pending: &mut Pending) -> Judgement {
        self.learn(heard, Kind::Acknowledged, heard.record.ttl_minutes);
        if pending.lookup.security.is_none() || pending.step.secure {
            return (Next::Done, None);
        }
        let within = pending.step.within;
        let rlocs = [(0, heard.from)];
        let step = self.step(heard.now, &pending.lookup, &rlocs, true, within);
        if step.is_empty() {
            return (Next::Failed(Discard::RequestTooLong), None);
        }
        pending.step = step;
        (Next::Wait, None)
    }

    /// MS-NOT-REGISTERED (DD-15): another Map-Server of the set may know better.
    fn not_registered(&mut self, heard: &Heard<'_>, pending: &mut Pending) -> Judgement {
        if pending.step.not_registered(heard.from, heard.prefix) {
            return (Next::Wait, None);
        }
        self.learn(heard, Kind::NotRegistered, UNREGISTERED_TTL_MINUTES);
        (Next::Negative(heard.prefix, UNREGISTERED_TTL_MINUTES), None)
    }

    /// From the root once more, without the learned entry that led astray; `otherwise` when that is where the search began (DD-17).
    fn begin_anew(
        &mut self,
        now: Instant,
        pending: &mut Pending,
        reason: Discard,
        otherwise: Next,
    ) -> Judgement {
        if let Some(learned) = pending.learned.take() {
            self.cache.forget(&learned);
        }
        let step = self
            .cache
            .begin(&pending.asked)
            .filter(|_| !pending.through_root)
            .map(|entry| {
                let secure = entry.kind.is_map_server();
                self.step(now, &pending.lookup, &entry.rlocs, secure, entry.prefix)
            })
            .filter(|step| !step.is_empty());
        let Some(step) = step else {
            // A failure is reported with the lookup.
            let reported = matches!(otherwise, Next::Failed(_));
            return (otherwise, (!reported).then_some(reason));
        };
        pending.step = step;
        pending.last = None;
        pending.through_root = true;
        (Next::Wait, Some(reason))
    }

    /// Keeps what was heard, unless it is not to be kept (DD-10), anybody may have sent it, or it is about more than the node was asked
    /// about as one that knows.
    fn learn(&mut self, heard: &Heard<'_>, kind: Kind, minutes: u32) {
        if heard.record.incomplete || !heard.within || !heard.shared {
            return;
        }
        let rlocs = match kind.is_negative() {
            true => Vec::new(),
            false => self.askable(heard.local, &usable_rlocs(heard.record)),
        };
        if rlocs.is_empty() && !kind.is_negative() {
            return;
        }
        let ttl = Duration::from_secs(u64::from(minutes.min(REFERRAL_TTL_MINUTES)) * 60);
        let (prefix, origin) = (Some(heard.prefix), Origin::Learned(heard.from));
        let entry = Entry { prefix, kind, rlocs, origin, expires: None };
        self.cache.learn(heard.now, heard.prefix, entry, ttl);
    }

    fn proceed(&mut self, now: Instant, key: Key, pending: Pending, next: Next) {
        let client = pending.client;
        match next {
            Next::Wait => return self.keep(now, key, pending),
            Next::Done => self.tally.completed += 1,
            Next::Negative(prefix, minutes) => {
                self.tally.completed += 1;
                self.negative(pending.lookup, pending.asked, prefix, minutes);
            }
            Next::Failed(reason) => {
                let node = pending.step.current().unwrap_or(client);
                self.failures.push_back(Failure { asked: pending.asked, node, reason });
            }
        }
        if let Some(held) = self.clients.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.clients.remove(&client);
            }
        }
    }

    fn negative(&mut self, lookup: Lookup, asked: EidPrefix, prefix: EidPrefix, ttl_minutes: u32) {
        self.negatives.push_back(Negative { lookup, asked, prefix, ttl_minutes });
    }

    /// Sends what the lookup waits for, and puts it back.
    fn keep(&mut self, now: Instant, key: Key, mut pending: Pending) {
        self.send(now, &mut pending);
        pending.due = now + DDT_REQUEST_TIMEOUT;
        self.due.insert((pending.due, key));
        self.nonces.entry(pending.nonce).or_default().push(key);
        self.pending.insert(key, pending);
    }

    /// Takes a lookup out of every table.
    fn take(&mut self, key: &Key) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.due.remove(&(pending.due, *key));
        if let Some(keys) = self.nonces.get_mut(&pending.nonce) {
            keys.retain(|other| other != key);
            if keys.is_empty() {
                self.nonces.remove(&pending.nonce);
            }
        }
        Some(pending)
    }

    /// Sends a DDT Map-Request (DD-01) to the RLOC whose turn it is; beyond that node's share it is held back until the next try.
    fn send(&mut self, now: Instant, pending: &mut Pending) {
        let lookup = &pending.lookup;
        pending.nonce = lookup.request.nonce;
        let Some(rloc) = pending.step.ask() else { return };
        let Some(source) = self.own.source_for(rloc, lookup.local) else { return };
        // The ITR may have replaced its request by a longer one.
        let fits = lookup.ddt_len(pending.step.secure) <= control_payload_limit(rloc);
        if !fits || !self.rates.take(now, rloc) {
            self.tally.held_back += 1;
            return;
        }
        self.tally.sent += 1;
        self.transmits.push_back(Transmit {
            source,
            source_port: SourcePort::Ephemeral,
            destination: SocketAddr::new(rloc, CONTROL_PORT),
            payload: lookup.ddt_map_request(pending.step.secure),
        });
    }
}

/// The EID that stands for what was asked: of a prefix, its first.
fn target(asked: &EidPrefix) -> Eid {
    asked.first()
}
