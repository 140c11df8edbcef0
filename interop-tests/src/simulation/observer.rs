//! Reads along on the wire: counts messages, and judges their rates by the RFCs with nothing to go by but the packets.
use super::network::NodeId;
use super::oracle::Oracle;
use mapping::eid::EidPrefix;
use mapping::transmit::Transmit;
use mapping::wire::{MapNotify, MapRegister, MapReply, MapRequest, Message};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Violations told in full; further ones are only counted.
const TOLD: usize = 20;
/// Between two Map-Requests for one EID-prefix (RFC 9301 §5.3).
const MAP_REQUEST_INTERVAL: Duration = Duration::from_secs(1);
/// Map-Requests without an answer before the pause: the first and ten retransmissions (RFC 9301 §5.3).
const MAP_REQUEST_TRIES: u32 = 11;
/// The pause (RFC 9301 §5.3).
const MAP_REQUEST_PAUSE: Duration = Duration::from_secs(30);
/// Between two SMRs to one RLOC, and two SMR-invoked Map-Requests for one EID-prefix (RFC 9301 §6.1).
const SMR_INTERVAL: Duration = Duration::from_secs(3);
/// Map-Replies to one RLOC about one EID-prefix are this far apart on average (RFC 9301 §5.4).
const MAP_REPLY_INTERVAL: Duration = Duration::from_secs(3);
/// Map-Replies in a row: to as many Map-Requests as an ITR sends in a row.
const MAP_REPLY_BURST: u32 = MAP_REQUEST_TRIES;
/// The first wait for a Map-Notify; doubles (RFC 9301 §5.7).
const REGISTER_RETRY: Duration = Duration::from_secs(1);
/// The longest wait for a Map-Notify (RFC 9301 §5.7).
const REGISTER_RETRY_MAX: Duration = Duration::from_secs(60);
/// Between two Map-Registers without a change (RFC 9301 §8.2).
const QUICK_REGISTRATION: Duration = Duration::from_secs(20);
/// Between two copies of an unsolicited Map-Notify (RFC 9301 §5.7).
const NOTIFY_RETRY: Duration = Duration::from_secs(3);
/// Copies of an unsolicited Map-Notify: at first three at 3 s, then three at doubling intervals (RFC 9301 §5.7).
const NOTIFY_TRIES: u32 = 7;
/// The largest control message without knowledge of the path (CW-06).
const LARGEST: usize = 1_232;

/// What goes over the wire.
#[derive(Debug, Default)]
pub(super) struct Observer {
    pub(super) oracle: Oracle,
    nodes: Vec<Watched>,
    /// Messages sent, by what they are.
    pub(super) sent: BTreeMap<&'static str, u64>,
    /// What was not right, in words.
    pub(super) violations: Vec<String>,
    pub(super) violation_count: u64,
    /// When a Map-Server acknowledged an EID-prefix last.
    acknowledged: HashMap<(NodeId, EidPrefix), Duration>,
}

/// What one node sent lately.
#[derive(Debug, Default)]
struct Watched {
    is_server: bool,
    requests: HashMap<EidPrefix, Requests>,
    nonces: HashMap<u64, EidPrefix>,
    smrs: HashMap<IpAddr, Duration>,
    /// By Map-Server and what was said.
    registers: HashMap<(IpAddr, u64), Registers>,
    /// The last that was said of an EID-prefix to a Map-Server.
    said: HashMap<(IpAddr, EidPrefix), u64>,
    register_nonces: HashSet<u64>,
    /// By destination and octets. Two of a kind are no copies of each other: the nonces of two subscriptions of one xTR may meet, and with
    /// them a publication and the answer to a Map-Request.
    notifies: HashMap<(SocketAddr, u64), Vec<Copies>>,
    /// Nonces of Map-Requests that came to subscribe: whether their Map-Notify is still to come.
    subscribing: HashMap<u64, bool>,
    /// When the Map-Replies in a row would be forgiven.
    replies: HashMap<(IpAddr, EidPrefix), Duration>,
}

#[derive(Debug)]
struct Requests {
    last: Duration,
    last_smr_invoked: Option<Duration>,
    /// Since the last answer, or the last pause.
    tries: u32,
}

#[derive(Debug)]
struct Registers {
    octets: u64,
    nonce: u64,
    last: Duration,
    last_fresh: Duration,
    /// Before the next copy.
    wait: Duration,
    answered: bool,
}

#[derive(Debug)]
struct Copies {
    last: Duration,
    sent: u32,
}

impl Watched {
    /// A Map-Server speaks of EID-prefixes by itself: where it is wrong about own ones it may be told at once what it was told before.
    fn hear(&mut self, payload: &[u8]) {
        if let Ok(Message::MapNotify(notify)) = Message::parse(payload) {
            let told = |prefix| notify.records.iter().any(|of| of.eid.prefix() == Some(prefix));
            self.said.retain(|&(_, prefix), _| !told(prefix));
        }
    }
}

impl Observer {
    /// From now on `id` is watched as a Map-Server.
    pub(super) fn watch_server(&mut self, id: NodeId) {
        self.watched(id).is_server = true;
    }

    /// A node starts anew: it cannot know what it did before.
    pub(super) fn forget(&mut self, id: NodeId) {
        let is_server = self.watched(id).is_server;
        *self.watched(id) = Watched { is_server, ..Watched::default() };
    }

    /// The own mappings of a node changed: it may register at once (RG-03), even what it has said before.
    pub(super) fn own_mappings_changed(&mut self, id: NodeId) {
        self.watched(id).said.clear();
    }

    /// A Map-Server starts with nothing.
    pub(super) fn forget_registrations(&mut self, server: NodeId) {
        self.acknowledged.retain(|(at, _), _| *at != server);
    }

    /// When a Map-Server acknowledged an EID-prefix last.
    pub(super) fn acknowledged(&self, server: NodeId, prefix: &EidPrefix) -> Option<Duration> {
        self.acknowledged.get(&(server, *prefix)).copied()
    }

    pub(super) fn sent(&mut self, now: Duration, id: NodeId, transmit: &Transmit) {
        let payload = transmit.payload.as_slice();
        if payload.len() > LARGEST {
            self.violation(now, id, format_args!("{} octets (CW-06)", payload.len()));
        }
        let is_server = self.watched(id).is_server;
        let (kind, flags) = payload.first().map_or((0, 0), |first| (first >> 4, first & 0x0f));
        let name = match (kind, flags) {
            (1, flags) if flags & 0x02 != 0 => "probe",
            (1, flags) if flags & 0x01 != 0 => "smr",
            (1, _) => "map-request (to the site)",
            (2, flags) if flags & 0x08 != 0 => "probe reply",
            (2, _) => "map-reply",
            (3, _) => "map-register",
            (4, _) => "map-notify",
            (5, _) => "map-notify-ack",
            (8, _) if is_server => "map-request (passed on)",
            (8, _) => "map-request",
            _ => "other",
        };
        *self.sent.entry(name).or_default() += 1;
        if name.starts_with("probe") || name == "map-notify-ack" || (is_server && kind == 8) {
            return;
        }
        match Message::parse(payload) {
            Ok(Message::MapRequest(_)) if name == "smr" => {
                self.smr(now, id, transmit.destination.ip());
            }
            Ok(Message::MapRequest(request)) => self.request(now, id, &request),
            Ok(Message::Encapsulated(ecm)) => match ecm.map_request() {
                Ok(request) => self.request(now, id, &request),
                Err(error) => self.violation(now, id, format_args!("ECM: {error}")),
            },
            Ok(Message::MapReply(reply)) => self.reply(now, id, transmit.destination.ip(), &reply),
            Ok(Message::MapRegister(register)) => self.register(now, id, transmit, register),
            Ok(Message::MapNotify(notify)) if is_server => {
                self.notify(now, id, transmit, &notify);
            }
            Ok(_) => self.violation(now, id, format_args!("sends a {name}")),
            Err(error) => self.violation(now, id, format_args!("{name}: {error}")),
        }
    }

    /// A datagram came to a node: it may be an answer.
    pub(super) fn arrived(&mut self, id: NodeId, payload: &[u8]) {
        let kind = payload.first().map_or(0, |first| first >> 4);
        let Some(nonce) = payload.get(4..12).and_then(|octets| octets.try_into().ok()) else {
            return;
        };
        let nonce = u64::from_be_bytes(nonce);
        let watched = self.watched(id);
        match kind {
            2 | 4 => {
                if let Some(prefix) = watched.nonces.remove(&nonce)
                    && let Some(requests) = watched.requests.get_mut(&prefix)
                {
                    requests.tries = 0;
                }
                if kind == 4 {
                    let mut is_news = true;
                    for registers in watched.registers.values_mut() {
                        if registers.nonce == nonce {
                            (registers.answered, registers.wait) = (true, REGISTER_RETRY);
                            is_news = false;
                        }
                    }
                    if is_news {
                        watched.hear(payload);
                    }
                }
            }
            3 => drop(watched.register_nonces.insert(nonce)),
            8 if watched.is_server => {
                if let Ok(Message::Encapsulated(ecm)) = Message::parse(payload)
                    && let Ok(request) = ecm.map_request()
                    && request.records.iter().any(|record| record.notify)
                {
                    watched.subscribing.entry(request.nonce).or_insert(true);
                }
            }
            _ => {}
        }
    }

    /// RQ-12, RQ-13, SM-05. The end of a subscription asks for nothing, and comes at its own pace (RFC 9437 §5).
    fn request(&mut self, now: Duration, id: NodeId, request: &MapRequest) {
        if request.unsubscribes() {
            return;
        }
        let Some(prefix) = request.records.first().and_then(|record| record.eid.prefix()) else {
            return self.violation(now, id, format_args!("a Map-Request for nothing"));
        };
        let watched = self.watched(id);
        let Some(requests) = watched.requests.get_mut(&prefix) else {
            let last_smr_invoked = request.smr_invoked.then_some(now);
            watched.requests.insert(prefix, Requests { last: now, last_smr_invoked, tries: 1 });
            watched.nonces.insert(request.nonce, prefix);
            return;
        };
        let gap = now - requests.last;
        let since_invoked = requests.last_smr_invoked.map(|last| now - last);
        let paused = gap >= MAP_REQUEST_PAUSE;
        let tries = if paused { 0 } else { requests.tries };
        requests.last = now;
        requests.tries = tries + 1;
        if request.smr_invoked {
            requests.last_smr_invoked = Some(now);
        }
        watched.nonces.insert(request.nonce, prefix);
        if gap < MAP_REQUEST_INTERVAL {
            self.violation(now, id, format_args!("asks for {prefix} after {gap:?} (RQ-12)"));
        }
        if tries >= MAP_REQUEST_TRIES {
            self.violation(now, id, format_args!("asks for {prefix} without a pause (RQ-13)"));
        }
        if let Some(gap) = since_invoked.filter(|gap| request.smr_invoked && *gap < SMR_INTERVAL) {
            self.violation(now, id, format_args!("{prefix} SMR-invoked after {gap:?} (SM-05)"));
        }
    }

    /// SM-03.
    fn smr(&mut self, now: Duration, id: NodeId, rloc: IpAddr) {
        let last = self.watched(id).smrs.insert(rloc, now);
        if let Some(gap) = last.map(|last| now - last).filter(|gap| *gap < SMR_INTERVAL) {
            self.violation(now, id, format_args!("an SMR to {rloc} after {gap:?} (SM-03)"));
        }
    }

    /// RP-15.
    fn reply(&mut self, now: Duration, id: NodeId, rloc: IpAddr, reply: &MapReply) {
        let Some(prefix) = reply.records.first().and_then(|record| record.eid.prefix()) else {
            return;
        };
        let forgiven = self.watched(id).replies.entry((rloc, prefix)).or_default();
        *forgiven = (*forgiven).max(now) + MAP_REPLY_INTERVAL;
        // Limits may count in coarse steps.
        let slack = MAP_REPLY_INTERVAL;
        if *forgiven > now + MAP_REPLY_INTERVAL * MAP_REPLY_BURST + slack {
            self.violation(now, id, format_args!("tells {rloc} of {prefix} too often (RP-15)"));
        }
    }

    /// RG-03, RG-04. What it says is what the oracle knows.
    fn register(&mut self, now: Duration, id: NodeId, transmit: &Transmit, register: MapRegister) {
        for record in register.records.iter().filter(|record| record.ttl_minutes > 0) {
            if let Some(prefix) = record.eid.prefix() {
                let rlocs = record.locators.iter().filter_map(|locator| locator.address.rloc());
                self.oracle.register(prefix, rlocs);
            }
        }
        let Some(first) = register.records.first().and_then(|record| record.eid.prefix()) else {
            return self.violation(now, id, format_args!("registers nothing"));
        };
        let octets = digest(&transmit.payload[..]);
        let server = transmit.destination.ip();
        let prefixes = register.records.iter().filter_map(|record| record.eid.prefix());
        let said = digest(&register.records);
        let watched = self.watched(id);
        let mut changed = false;
        for prefix in prefixes {
            changed |= watched.said.insert((server, prefix), said) != Some(said);
        }
        let fresh = Registers {
            octets,
            nonce: register.nonce,
            last: now,
            last_fresh: now,
            wait: REGISTER_RETRY,
            answered: false,
        };
        let Some(before) = watched
            .registers
            .get_mut(&(server, said))
            .filter(|before| !changed || before.octets == octets)
        else {
            watched.registers.insert((server, said), fresh);
            return;
        };
        let gap = now - before.last;
        let is_copy = before.octets == octets;
        let in_time = !before.answered && gap >= before.wait;
        let fresh_in_time = now - before.last_fresh >= QUICK_REGISTRATION;
        let wait = before.wait;
        before.last = now;
        if is_copy || !fresh_in_time {
            before.wait = (wait * 2).min(REGISTER_RETRY_MAX);
        }
        if !is_copy {
            *before = Registers { wait: before.wait, ..fresh };
        }
        let is_right = in_time || (!is_copy && fresh_in_time);
        if !is_right {
            self.violation(
                now,
                id,
                format_args!("registers {first} after {gap:?}, due after {wait:?} (RG-04)"),
            );
        }
    }

    /// MS-08: only what answers no Map-Register. The last word to a subscriber (PS-08) has the nonce of the publication before.
    fn notify(&mut self, now: Duration, id: NodeId, transmit: &Transmit, notify: &MapNotify) {
        if self.watched(id).register_nonces.contains(&notify.nonce) {
            let prefixes = notify.records.iter().filter_map(|record| record.eid.prefix());
            self.acknowledged.extend(prefixes.map(|prefix| ((id, prefix), now)));
            return;
        }
        let watched = self.watched(id);
        let destination = transmit.destination;
        let key = (destination, digest(&transmit.payload[..]));
        let all = watched.notifies.entry(key).or_default();
        let in_time = |of: &&mut Copies| now - of.last >= NOTIFY_RETRY && of.sent < NOTIFY_TRIES;
        let answers = watched.subscribing.get_mut(&notify.nonce).is_some_and(std::mem::take);
        if answers || all.is_empty() {
            return all.push(Copies { last: now, sent: 1 });
        }
        if let Some(copies) = all.iter_mut().find(in_time) {
            (copies.last, copies.sent) = (now, copies.sent + 1);
            return;
        }
        let Some(Copies { last, sent }) = all.last_mut() else { return };
        let (gap, sent) = (now - std::mem::replace(last, now), *sent + 1);
        self.violation(
            now,
            id,
            format_args!("notifies {destination} for the {sent}. time after {gap:?} (MS-08)"),
        );
    }

    fn watched(&mut self, id: NodeId) -> &mut Watched {
        let at = id as usize;
        if at >= self.nodes.len() {
            self.nodes.resize_with(at + 1, Watched::default);
        }
        &mut self.nodes[at]
    }

    fn violation(&mut self, now: Duration, id: NodeId, what: std::fmt::Arguments<'_>) {
        self.violation_count += 1;
        if self.violations.len() < TOLD {
            self.violations.push(format!("{:.3} s: node {id} {what}", now.as_secs_f64()));
        }
    }
}

fn digest(what: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}
