//! NAT traversal, the xTR's part (draft-ermagan-lisp-nat-traversal §5.1): whether an own RLOC is behind a NAT, and the RTR that carries
//! what goes through it.
//!
//! An own RLOC that a Map-Server sees otherwise than we do is registered through an RTR, by Map-Registers from port 4341: their binding in
//! the NAT is the one by which the RTR sends data, and each of them keeps it. What goes out goes to the RTR too, whatever its destination.
use super::limit::TokenBucket;
use super::locator::{Candidate, Via};
use super::map_cache::{Mapping, lifetime};
use super::{ControlPlane, Event};
use crate::config::{self, NatXtr};
use mapping::auth;
use mapping::discard::Discard;
use mapping::eid::{EidPrefix, InstanceId};
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{
    Address, AuthenticationData, CONTROL_PORT, EidField, EncapsulatedControlMessage, InfoReply,
    InfoRequest, LocatorRecord, Message, NatTraversal,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// Info-Requests without answer after which an own RLOC is left out of registrations.
const UNANSWERED: u32 = 3;
/// Where inner source ports of Map-Registers through an RTR begin.
const DYNAMIC_PORTS: u16 = 49_152;

/// What is known of NATs before own RLOCs.
#[derive(Debug)]
pub(super) struct Nat {
    config: NatXtr,
    rlocs: BTreeMap<IpAddr, Finding>,
    /// Inner source port of Map-Registers through an RTR.
    inner_port: u16,
    notifies: TokenBucket,
    /// The default map-cache entries that are there.
    defaults: BTreeSet<EidPrefix>,
}

/// What is known of one own RLOC.
#[derive(Debug)]
pub(super) struct Finding {
    pub(super) place: Place,
    pub(super) since: Instant,
    /// The Info-Request that awaits its reply.
    asked: Option<(u64, Instant)>,
    /// Info-Requests since the last reply.
    pub(super) tries: u32,
    next: Instant,
    /// What the Map-Server took to answer.
    pub(super) round_trip: Option<Duration>,
}

/// Where an own RLOC is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// No Map-Server has said yet.
    Unknown,
    /// It is seen as it is.
    Outside,
    /// It is seen as another address or port.
    Behind(Behind),
}

/// Behind a NAT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behind {
    /// How the Map-Server saw the Info-Request.
    pub(super) global: SocketAddr,
    /// RTRs of its family, as the Map-Server listed them.
    pub(super) rtrs: Vec<IpAddr>,
    chosen: usize,
    /// The last Map-Register through the RTR.
    sent: Option<(u64, Instant)>,
    /// When the RTR last brought a Map-Notify.
    pub(super) acknowledged: Option<Instant>,
    /// From a Map-Register to its Map-Notify.
    pub(super) round_trip: Option<Duration>,
}

impl Behind {
    /// The RTR in use.
    pub(super) fn rtr(&self) -> Option<IpAddr> {
        self.rtrs.get(self.chosen).copied()
    }
}

impl Nat {
    pub(super) fn new(config: NatXtr, now: Instant, random: u16) -> Self {
        Self {
            config,
            rlocs: BTreeMap::new(),
            inner_port: DYNAMIC_PORTS | random,
            notifies: TokenBucket::new(now, timers::DATA_MAP_NOTIFIES_PER_SECOND),
            defaults: BTreeSet::new(),
        }
    }

    pub(super) fn findings(&self) -> impl Iterator<Item = (IpAddr, &Finding)> {
        self.rlocs.iter().map(|(&rloc, finding)| (rloc, finding))
    }

    fn behind_mut(&mut self, rloc: IpAddr) -> Option<&mut Behind> {
        match &mut self.rlocs.get_mut(&rloc)?.place {
            Place::Behind(behind) => Some(behind),
            Place::Unknown | Place::Outside => None,
        }
    }

    fn all_behind(&self) -> impl Iterator<Item = (IpAddr, &Behind)> {
        self.rlocs.iter().filter_map(|(&rloc, finding)| match &finding.place {
            Place::Behind(behind) => Some((rloc, behind)),
            Place::Unknown | Place::Outside => None,
        })
    }
}

impl Finding {
    const fn new(now: Instant) -> Self {
        let place = Place::Unknown;
        Self { place, since: now, asked: None, tries: 0, next: now, round_trip: None }
    }

    /// How long until the Info-Request is repeated.
    fn patience(&self) -> Duration {
        let doubled = timers::INFO_RETRY_FIRST * (1 << self.tries.saturating_sub(1).min(5));
        doubled.min(timers::INFO_RETRY_MAX)
    }
}

impl ControlPlane {
    /// What is known of NATs, if that is looked after.
    pub(super) fn nat(&self) -> Option<&Nat> {
        self.nat.as_deref()
    }

    pub(super) fn make_nat(&mut self, now: Instant) {
        if let Some(config::Nat::Xtr(config)) = self.config.nat {
            let random = self.next_nonce() as u16;
            self.nat = Some(Box::new(Nat::new(config, now, random)));
            self.look_for_nats(now);
        }
    }

    /// The own RLOCs that a Map-Server can judge, which are those that are up.
    fn judged_rlocs(&self) -> Vec<IpAddr> {
        let judged = |rloc: &IpAddr| self.own.is_up(*rloc) && self.judge_of(*rloc, 0).is_some();
        self.own.addresses().filter(judged).collect()
    }

    /// Whom to ask about an own RLOC after so many tries: index and address of a Map-Server of its family.
    fn judge_of(&self, rloc: IpAddr, tries: u32) -> Option<(usize, IpAddr)> {
        let servers = self.config.map_servers.iter().enumerate();
        let all: Vec<_> = servers
            .flat_map(|(index, server)| {
                let addresses = self.addresses_of(&server.endpoint);
                addresses.into_iter().map(move |address| (index, address))
            })
            .filter(|(_, address)| address.is_ipv4() == rloc.is_ipv4())
            .collect();
        all.get(tries as usize % all.len().max(1)).copied()
    }

    /// Own RLOCs came or went, or Map-Servers did: those that are new are judged (NT-01).
    pub(super) fn look_for_nats(&mut self, now: Instant) {
        let judged = self.judged_rlocs();
        let Some(nat) = &mut self.nat else { return };
        nat.rlocs.retain(|rloc, _| judged.contains(rloc));
        for rloc in judged {
            nat.rlocs.entry(rloc).or_insert_with(|| Finding::new(now));
        }
        self.update_defaults(now);
    }

    pub(super) fn next_nat(&self) -> Option<Instant> {
        self.nat()?.rlocs.values().map(|finding| finding.next).min()
    }

    /// Sends the Info-Requests that are due.
    pub(super) fn run_nat(&mut self, now: Instant) {
        let Some(nat) = &self.nat else { return };
        let due: Vec<IpAddr> = nat
            .rlocs
            .iter()
            .filter(|(_, finding)| finding.next <= now)
            .map(|(&rloc, _)| rloc)
            .collect();
        for rloc in due {
            self.ask_judge(now, rloc);
        }
    }

    fn ask_judge(&mut self, now: Instant, rloc: IpAddr) {
        let nonce = self.next_nonce();
        let Some(finding) = self.nat.as_mut().and_then(|nat| nat.rlocs.get_mut(&rloc)) else {
            return;
        };
        finding.tries = finding.tries.saturating_add(1);
        (finding.asked, finding.next) = (Some((nonce, now)), now + finding.patience());
        let tries = finding.tries;
        let mut left_out = tries == UNANSWERED + 1 && finding.place == Place::Unknown;
        if let Some((server, address)) = self.judge_of(rloc, tries - 1) {
            match self.info_request(server, nonce) {
                Some(payload) => {
                    self.count("info_requests_sent");
                    let destination = SocketAddr::new(address, CONTROL_PORT);
                    self.transmit(rloc, SourcePort::Ephemeral, destination, payload);
                }
                None => left_out = false,
            }
        }
        if left_out {
            self.event(Event::NatUnknown(rloc));
            self.register_change(now);
        }
    }

    /// Signed as the site whose first EID-prefix it names.
    fn info_request(&self, server: usize, nonce: u64) -> Option<Vec<u8>> {
        let server = self.config.map_servers.get(server)?;
        let eid = EidField::from(self.database.iter().next()?.0);
        let mac_len = server.mac_len();
        let request = InfoRequest {
            nonce,
            authentication: AuthenticationData::zeroed(
                server.key_id,
                server.algorithm.id(),
                mac_len,
            ),
            ttl_minutes: 0,
            eid,
            sender: Address::None,
        };
        let mut octets = Message::InfoRequest(request).to_vec();
        auth::sign_covering(&mut octets, &server.secret, server.algorithm, auth::Covered::Message)
            .ok()?;
        Some(octets)
    }

    /// NT-03: what it says of our address and port tells whether there is a NAT.
    pub(super) fn handle_info_reply(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: IpAddr,
        reply: &InfoReply,
        octets: &[u8],
    ) {
        let Some(nat) = &self.nat else { return self.discard(Discard::UnexpectedMessage) };
        let asked = nat.rlocs.get(&local.ip()).and_then(|finding| finding.asked);
        let Some((_, sent)) = asked.filter(|&(nonce, _)| nonce == reply.nonce) else {
            return self.discard(Discard::NonceUnknown);
        };
        if let Err(reason) = self.authenticate(from, &reply.authentication, octets) {
            return self.discard(reason);
        }
        let Some(global) = reply.nat.global() else { return self.discard(Discard::Malformed) };
        self.count("info_replies_received");
        let ttl = reply.ttl_minutes.clamp(1, timers::RTR_LIST_TTL_MINUTES);
        let place = self.place_of(local, global, &reply.nat);
        let Some(finding) = self.nat.as_mut().and_then(|nat| nat.rlocs.get_mut(&local.ip())) else {
            return;
        };
        (finding.asked, finding.tries) = (None, 0);
        finding.next = now + lifetime(ttl) / 2;
        finding.round_trip = Some(now.saturating_duration_since(sent));
        let is_news = !is_same_way(&finding.place, &place);
        let before = std::mem::replace(&mut finding.place, place);
        if !is_news {
            return;
        }
        finding.since = now;
        match &finding.place {
            Place::Behind(behind) => {
                let event =
                    Event::NatFound { rloc: local.ip(), global: behind.global, rtr: behind.rtr() };
                self.event(event);
            }
            Place::Outside if before != Place::Unknown => self.event(Event::NatGone(local.ip())),
            Place::Outside | Place::Unknown => {}
        }
        self.update_defaults(now);
        self.register_change(now);
    }

    /// What a reply says of the own RLOC `local`; the RTR in use stays in use as long as it is listed.
    fn place_of(&self, local: SocketAddr, global: SocketAddr, told: &NatTraversal) -> Place {
        if global == local {
            return Place::Outside;
        }
        let is_usable = |rtr: &IpAddr| {
            rtr.is_ipv4() == local.is_ipv4()
                && !self.own.contains(*rtr)
                && !self.own.is_martian(*rtr)
        };
        let rtrs: Vec<IpAddr> = told.rtr_addresses().filter(is_usable).collect();
        let finding = self.nat().and_then(|nat| nat.rlocs.get(&local.ip()));
        let before = finding.and_then(|finding| match &finding.place {
            Place::Behind(behind) => Some(behind.clone()),
            Place::Unknown | Place::Outside => None,
        });
        let kept = before.and_then(|before| {
            let rtr = before.rtr()?;
            let chosen = rtrs.iter().position(|listed| *listed == rtr)?;
            Some(Behind { global, rtrs: rtrs.clone(), chosen, ..before })
        });
        Place::Behind(kept.unwrap_or(Behind {
            global,
            rtrs,
            chosen: 0,
            sent: None,
            acknowledged: None,
            round_trip: None,
        }))
    }

    /// Whether registrations have to wait: it is not known yet how own RLOCs are seen.
    pub(super) fn awaits_nat(&self) -> bool {
        let Some(nat) = self.nat() else { return false };
        let unknown = |finding: &&Finding| finding.place == Place::Unknown;
        let is_hopeful = |finding: &Finding| finding.tries <= UNANSWERED;
        nat.rlocs.values().filter(unknown).any(is_hopeful)
            || (!nat.rlocs.is_empty()
                && nat.rlocs.values().filter(unknown).count() == nat.rlocs.len())
    }

    /// Whether an own RLOC is behind a NAT.
    pub(super) fn is_behind_nat(&self) -> bool {
        self.nat().is_some_and(|nat| nat.all_behind().next().is_some())
    }

    /// Between two Map-Registers: less behind a NAT, which forgets (NT-10).
    pub(super) fn registration_interval(&self) -> Duration {
        let usual = self.config.registration_interval;
        match self.nat() {
            Some(nat) if self.is_behind_nat() => nat.config.keepalive.min(usual),
            _ => usual,
        }
    }

    /// NT-05: RTRs take the place of own RLOCs behind a NAT, which stay in the record for the RTR alone, unreachable to all others.
    pub(super) fn registered_locators(&self, mut own: Vec<LocatorRecord>) -> Vec<LocatorRecord> {
        let Some(nat) = self.nat() else { return own };
        let mut rtrs: Vec<LocatorRecord> = Vec::new();
        for locator in &mut own {
            let Some(address) = locator.address.rloc() else { continue };
            match nat.rlocs.get(&address).map(|finding| &finding.place) {
                None | Some(Place::Outside) => {}
                Some(Place::Unknown) => (locator.reachable, locator.priority) = (false, 255),
                Some(Place::Behind(behind)) => {
                    locator.reachable = false;
                    let Some(rtr) = behind.rtr() else { continue };
                    if rtrs.iter().all(|known| known.address.rloc() != Some(rtr)) {
                        let mut record = LocatorRecord::new(rtr, locator.priority, locator.weight);
                        (record.local, record.reachable) = (false, true);
                        rtrs.push(record);
                    }
                }
            }
        }
        own.append(&mut rtrs);
        own.sort_by_key(|locator| locator.address.rloc());
        own
    }

    /// NT-04: sends a Map-Register through the RTR of every own RLOC behind a NAT; false if there is none.
    pub(super) fn register_through_rtr(
        &mut self,
        now: Instant,
        map_server: IpAddr,
        (nonce, octets): (u64, &[u8]),
    ) -> bool {
        let Some(nat) = &mut self.nat else { return false };
        let mut ways = Vec::new();
        for (&rloc, finding) in &mut nat.rlocs {
            let Place::Behind(behind) = &mut finding.place else { continue };
            let Some(rtr) = behind.rtr() else { continue };
            behind.sent = Some((nonce, now));
            ways.push((rloc, rtr));
        }
        let inner_port = nat.inner_port;
        let is_behind = self.is_behind_nat();
        for (rloc, rtr) in
            ways.into_iter().filter(|(rloc, _)| rloc.is_ipv4() == map_server.is_ipv4())
        {
            let ecm = EncapsulatedControlMessage {
                to_rtr: true,
                ..EncapsulatedControlMessage::new(
                    SocketAddr::new(rloc, inner_port),
                    SocketAddr::new(map_server, CONTROL_PORT),
                    octets.to_vec(),
                )
            };
            let mut payload = Vec::with_capacity(ecm.encoded_len());
            ecm.encode(&mut payload);
            self.count("map_registers_through_rtr");
            let destination = SocketAddr::new(rtr, CONTROL_PORT);
            self.transmit(rloc, SourcePort::Data, destination, payload);
        }
        is_behind
    }

    /// The RTR does not answer: the next one is tried, and the Map-Server asked whether the list has changed.
    pub(super) fn rtr_is_silent(&mut self, now: Instant) {
        let Some(nat) = &mut self.nat else { return };
        let mut silent = Vec::new();
        for (&rloc, finding) in &mut nat.rlocs {
            let Place::Behind(behind) = &mut finding.place else { continue };
            silent.extend(behind.rtr().map(|rtr| (rloc, rtr)));
            behind.chosen = (behind.chosen + 1) % behind.rtrs.len().max(1);
            if behind.rtrs.len() > 1 {
                behind.acknowledged = None;
            }
            finding.next = now;
        }
        for (rloc, rtr) in silent {
            self.event(Event::RtrUnanswered { rloc, rtr });
        }
    }

    /// A control message that came behind a LISP header: a Data-Map-Notify, or nothing that concerns us (NT-09).
    pub(super) fn handle_control_in_data(
        &mut self,
        now: Instant,
        local: IpAddr,
        rloc: IpAddr,
        packet: &[u8],
    ) {
        self.count("data_map_notifies_received");
        let Some(nat) = &mut self.nat else { return self.discard(Discard::UnexpectedMessage) };
        let is_rtr = nat.behind_mut(local).is_some_and(|behind| behind.rtrs.contains(&rloc));
        if !is_rtr {
            return self.discard(Discard::NatBindingUnknown);
        }
        if nat.notifies.take(now).is_err() {
            return self.discard(Discard::SourceRateLimited);
        }
        // What is behind an ECM's first four octets is the same: IP, UDP and message.
        let octets = [&ECM_WITHOUT_FLAGS[..], packet].concat();
        let ecm = match Message::parse(&octets) {
            Ok(Message::Encapsulated(ecm)) => ecm,
            Ok(_) => return self.discard(Discard::UnexpectedInner),
            Err(error) => return self.discard(error.into()),
        };
        let notify = match Message::parse(&ecm.message) {
            Ok(Message::MapNotify(notify)) => notify,
            Ok(_) => return self.discard(Discard::UnexpectedInner),
            Err(error) => return self.discard(error.into()),
        };
        let own_id = self.config.identity.map(|own| own.xtr_id);
        if let Some(other) =
            notify.identity.filter(|of| of.xtr_id != 0 && Some(of.xtr_id) != own_id)
        {
            self.event(Event::NotifyOfOther { rtr: rloc, identity: other });
            return self.discard(Discard::XtrOther);
        }
        self.handle_data_map_notify(now, ecm.source.ip(), &notify, &ecm.message, (local, rloc));
    }

    /// A Map-Notify through the RTR of an own RLOC answered the Map-Register with this nonce.
    pub(super) fn rtr_answered(
        &mut self,
        now: Instant,
        (local, rtr): (IpAddr, IpAddr),
        nonce: u64,
    ) {
        let Some(behind) = self.nat.as_mut().and_then(|nat| nat.behind_mut(local)) else { return };
        if behind.rtr() != Some(rtr) {
            return;
        }
        // A recorded one proves nothing.
        let Some((_, sent)) = behind.sent.take_if(|(sent, _)| *sent == nonce) else { return };
        behind.round_trip = Some(now.saturating_duration_since(sent));
        let is_first = behind.acknowledged.replace(now).is_none();
        if is_first {
            self.event(Event::RtrAnswered { rloc: local, rtr });
        }
        self.update_defaults(now);
    }

    /// NT-11: behind a NAT everything goes to the RTRs, by entries for 0/0 and ::/0.
    fn update_defaults(&mut self, now: Instant) {
        let Some(nat) = &self.nat else { return };
        let priority_of = |rloc: IpAddr| self.own.iter().find(|own| own.rloc.address == rloc);
        let mut candidates: Vec<Candidate> = Vec::new();
        for (source, behind) in nat.all_behind() {
            let answered = behind.rtr().filter(|_| behind.acknowledged.is_some());
            let (Some(address), Some(own)) = (answered, priority_of(source)) else { continue };
            if candidates.iter().all(|known| known.address != address) {
                candidates.push(Candidate {
                    address,
                    priority: own.rloc.priority,
                    weight: own.rloc.weight,
                    reachable: true,
                    ordinal: 0,
                    via: Via::Nat(source),
                });
            }
        }
        candidates.sort_by_key(|candidate| candidate.address);
        let wanted = match candidates.is_empty() {
            true => BTreeSet::new(),
            false => self.default_prefixes(),
        };
        let had = match &mut self.nat {
            Some(nat) => std::mem::replace(&mut nat.defaults, wanted.clone()),
            None => return,
        };
        for prefix in had.difference(&wanted) {
            self.remove_entry(now, prefix);
        }
        if had.is_empty() && !wanted.is_empty() {
            // What was looked up before would go past the RTR.
            let learned: Vec<EidPrefix> = self.cache.iter().map(|(prefix, _)| prefix).collect();
            for prefix in learned {
                self.remove_entry(now, &prefix);
                self.entry_left(now, &prefix);
            }
        }
        let expires = now + lifetime(timers::RECORD_TTL_MINUTES);
        for prefix in wanted {
            let mapping = Mapping::Locators(candidates.clone());
            match self.cache.get(&prefix) {
                Some(entry) if entry.mapping == mapping => {
                    self.cache.set_expiry(now, &prefix, expires);
                }
                _ => self.install_entry(now, prefix, mapping, expires),
            }
        }
    }

    /// All of both families, in every instance that is here.
    fn default_prefixes(&self) -> BTreeSet<EidPrefix> {
        let instances: BTreeSet<InstanceId> =
            self.database.iter().map(|(prefix, _)| prefix.instance_id()).collect();
        let everything = ["0.0.0.0/0", "::/0"].into_iter().filter_map(|text| text.parse().ok());
        let everything: Vec<ipnet::IpNet> = everything.collect();
        instances
            .into_iter()
            .flat_map(|id| everything.iter().map(move |&all| EidPrefix::new(id, all)))
            .collect()
    }

    /// Whether an RLOC is beyond a NAT, where no RLOC-probe gets or comes from.
    pub(super) fn is_beyond_nat(&self, rloc: IpAddr) -> bool {
        let mut behind = self.nat().into_iter().flat_map(Nat::all_behind);
        behind.any(|(_, behind)| behind.rtr() == Some(rloc)) || self.is_translated(rloc)
    }
}

/// The first four octets of an ECM.
const ECM_WITHOUT_FLAGS: [u8; 4] = [0x80, 0, 0, 0];

/// Whether two places are registered and used the same way.
fn is_same_way(one: &Place, other: &Place) -> bool {
    match (one, other) {
        (Place::Behind(one), Place::Behind(other)) => {
            one.rtr() == other.rtr() && one.global.ip() == other.global.ip()
        }
        _ => one == other,
    }
}
