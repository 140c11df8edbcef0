//! Registration with the Map-Servers: the ETR side (RFC 9301 §5.6, §5.7, §8.2).
use super::{ControlPlane, Event};
use crate::config::MapServer;
use crate::view::RegistrationState;
use mapping::auth;
use mapping::discard::Discard;
use mapping::eid::EidPrefix;
use mapping::timers;
use mapping::transmit::SourcePort;
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, MapNotify, MapNotifyAck, MapRegister, Message,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// Unanswered Map-Registers after which the operator hears of it and the Map-Server's addresses are tried in turn.
const UNANSWERED: u64 = 3;
/// Unanswered Map-Registers after which a withdrawal is left to the registration's expiry at the Map-Server.
const WITHDRAWAL_TRIES: u64 = 6;
/// Octets of an ECM before its message, at most, with the authentication data of a Map-Notify to an RTR; and of a locator in a record.
const ECM_OVERHEAD: usize = 92;
const LOCATOR: usize = 24;

/// What one Map-Register carries to one Map-Server.
#[derive(Debug)]
pub(super) struct Registration {
    /// Index into the configured Map-Servers.
    pub(super) server: usize,
    pub(super) prefixes: Vec<EidPrefix>,
    /// Which of the Map-Server's addresses is used.
    address: usize,
    /// The turn among own RLOCs that it goes from.
    way: usize,
    /// The Map-Register that awaits its Map-Notify, octet for octet (RG-04).
    outstanding: Option<(u64, Vec<u8>)>,
    /// Of the last fresh Map-Register.
    nonce: u64,
    retry: Duration,
    retry_at: Option<Instant>,
    pub(super) next: Instant,
    /// Sent since the last acknowledgement.
    pub(super) unanswered: u64,
    pub(super) last_acknowledged: Option<Instant>,
    /// Acknowledgements that left a prefix out, and whether the last one did.
    refusals: BTreeMap<EidPrefix, (u64, bool)>,
    deregistered: bool,
    /// Takes its prefixes back: what they were is among those that leave the database.
    pub(super) withdrawal: bool,
    /// The Map-Server may know one of its prefixes from before.
    pub(super) was_known: bool,
}

impl Registration {
    pub(super) fn state(&self, prefix: &EidPrefix, has_address: bool) -> RegistrationState {
        let refused = self.refusals.get(prefix).is_some_and(|&(_, last)| last);
        match self.last_acknowledged {
            _ if !has_address => RegistrationState::Unresolved,
            _ if self.unanswered >= UNANSWERED => RegistrationState::Unanswered,
            Some(_) if refused => RegistrationState::Refused,
            Some(_) => RegistrationState::Registered,
            None => RegistrationState::Pending,
        }
    }

    pub(super) fn refusals(&self, prefix: &EidPrefix) -> u64 {
        self.refusals.get(prefix).map_or(0, |&(count, _)| count)
    }

    /// Whether no Map-Register of these prefixes was made yet.
    pub(super) const fn is_unsent(&self) -> bool {
        self.nonce == 0
    }

    /// Whether the Map-Server may know the prefixes.
    pub(super) const fn is_known_there(&self) -> bool {
        self.last_acknowledged.is_some() || self.unanswered > 0 || self.was_known
    }

    /// Whether a Map-Register awaits its Map-Notify.
    pub(super) const fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Whether that is the first one, so that the Map-Server may not know its prefixes yet.
    pub(super) const fn is_first_outstanding(&self) -> bool {
        self.is_outstanding() && self.last_acknowledged.is_none() && !self.withdrawal
    }

    /// Whether there is nothing to wait for but the next turn.
    pub(super) const fn is_settled(&self) -> bool {
        !self.withdrawal
            && !self.deregistered
            && self.last_acknowledged.is_some()
            && self.outstanding.is_none()
            && self.unanswered == 0
    }

    pub(super) fn is_vain_withdrawal(&self, now: Instant) -> bool {
        self.withdrawal
            && self.unanswered >= WITHDRAWAL_TRIES
            && self.due().is_some_and(|due| due <= now)
    }

    pub(super) fn forget(&mut self, prefix: &EidPrefix) {
        self.refusals.remove(prefix);
    }

    /// A prefix went: a Map-Register that awaits its Map-Notify must not bring it back.
    pub(super) fn contents_changed(&mut self, now: Instant) {
        if self.outstanding.take().is_some() && !self.prefixes.is_empty() {
            self.retry_at = None;
            self.next = now;
        }
    }

    /// Takes over what `other` registered; `prefixes` are those of both.
    pub(super) fn join(&mut self, other: Self, prefixes: Vec<EidPrefix>) {
        self.prefixes = prefixes;
        self.refusals.extend(other.refusals);
        self.next = self.next.min(other.next);
        self.last_acknowledged = self.last_acknowledged.min(other.last_acknowledged);
    }

    /// When something is to be sent.
    fn due(&self) -> Option<Instant> {
        if self.deregistered {
            return None;
        }
        Some(self.retry_at.map_or(self.next, |retry| retry.min(self.next)))
    }
}

impl ControlPlane {
    /// Withdraws every registration (Record TTL 0: RG-17, OP-04). Keep driving the state machine until [`Self::is_deregistered`], or
    /// for as long as patience lasts.
    pub fn shutdown(&mut self, now: Instant) {
        self.shutting_down = true;
        for registration in &mut self.registrations {
            // What was never sent needs no withdrawal.
            registration.deregistered = !registration.is_known_there();
            (registration.next, registration.retry) = (now, timers::REGISTER_RETRY_FIRST);
        }
        self.run_registrations(now);
    }

    /// The nonce of the last fresh Map-Register (RG-12).
    pub const fn last_register_nonce(&self) -> u64 {
        self.register_nonce
    }

    /// Whether every Map-Server acknowledged the withdrawal.
    pub fn is_deregistered(&self) -> bool {
        self.registrations.iter().all(|registration| registration.deregistered)
    }

    /// Which EID-prefixes go to which Map-Server in one message (CW-06, RG-01); none on a proxy (PI-13).
    pub(super) fn plan_registrations(&self, now: Instant) -> Vec<Registration> {
        if self.is_proxy() {
            return Vec::new();
        }
        let mut registrations = Vec::new();
        for server in 0..self.config.map_servers.len() {
            let mut batch: Vec<EidPrefix> = Vec::new();
            for (prefix, _) in self.database.iter() {
                batch.push(prefix);
                if batch.len() > 1 && !self.fits(server, &batch) {
                    batch.pop();
                    registrations.push(Registration::new(server, std::mem::take(&mut batch), now));
                    batch.push(prefix);
                }
            }
            if !batch.is_empty() {
                registrations.push(Registration::new(server, batch, now));
            }
        }
        registrations
    }

    /// Whether a Map-Register of these prefixes is within what any path carries.
    pub(super) fn fits(&self, server: usize, prefixes: &[EidPrefix]) -> bool {
        let server = &self.config.map_servers[server];
        let mut limit = timers::control_payload_limit(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if self.nat().is_some() {
            // As many RTRs may come in as there are own RLOCs, and an ECM around it.
            let rtrs = prefixes.len() * self.config.rlocs.len() * LOCATOR;
            limit = limit.saturating_sub(ECM_OVERHEAD + rtrs);
        }
        let register = self.map_register(server, prefixes, 0);
        prefixes.len() <= 255 && Message::MapRegister(register).to_vec().len() <= limit
    }

    fn map_register(&self, server: &MapServer, prefixes: &[EidPrefix], nonce: u64) -> MapRegister {
        let records = prefixes
            .iter()
            .filter_map(|prefix| {
                let (mapping, leaves) = self.database.registered(prefix)?;
                let goes = self.shutting_down || leaves;
                let ttl = if goes { 0 } else { self.config.record_ttl_minutes };
                let locators = self.registered_locators(self.own_locators(&mapping.eid));
                let mut record = EidRecord::new(*prefix, ttl, locators);
                record.authoritative = true;
                record.map_version = self.map_version(prefix);
                Some(record)
            })
            .collect();
        MapRegister {
            proxy_reply: self.config.proxy_reply || self.is_behind_nat(),
            security_capable: self.is_protected(),
            eid_notify: false,
            use_ttl: self.config.timeout_by_ttl,
            merge: self.config.merge,
            want_map_notify: true,
            nonce,
            authentication: AuthenticationData::zeroed(
                server.key_id,
                server.algorithm.id(),
                server.mac_len(),
            ),
            records,
            identity: self.config.identity,
        }
    }

    pub(super) fn next_registration(&self) -> Option<Instant> {
        if self.awaits_nat() {
            return None;
        }
        self.registrations.iter().filter_map(Registration::due).min()
    }

    /// Sends the Map-Registers that are due.
    pub(super) fn run_registrations(&mut self, now: Instant) {
        if self.awaits_nat() {
            return;
        }
        self.forget_vain_withdrawals(now);
        for index in 0..self.registrations.len() {
            let registration = &self.registrations[index];
            if registration.due().is_none_or(|due| due > now) {
                continue;
            }
            if registration.next <= now {
                self.register(now, index);
            } else {
                self.retransmit(now, index);
            }
        }
    }

    /// A fresh Map-Register (RG-12).
    fn register(&mut self, now: Instant, index: usize) {
        self.update_own_versions(now);
        let interval = if now < self.quick_until {
            timers::QUICK_REGISTRATION_INTERVAL.min(self.registration_interval())
        } else {
            self.registration_interval()
        };
        let registration = &self.registrations[index];
        let server = &self.config.map_servers[registration.server];
        let nonce = self.register_nonce.saturating_add(1);
        let register = self.map_register(server, &registration.prefixes, nonce);
        let mut octets = Message::MapRegister(register).to_vec();
        let signed =
            auth::sign_covering(&mut octets, &server.secret, server.algorithm, server.covers);
        self.register_nonce = nonce;
        let registration = &mut self.registrations[index];
        registration.next = now + interval;
        registration.nonce = nonce;
        if signed.is_ok() {
            registration.outstanding = Some((nonce, octets));
            self.send_register(now, index);
        }
    }

    /// The same octets again, waiting twice as long (RG-04); new ones when a Map-Server has had a later nonce from us, for which
    /// it would take the old ones for a replay (RFC 9301 §5.6): whichever, since those of a cluster know each other's.
    fn retransmit(&mut self, now: Instant, index: usize) {
        let registration = &mut self.registrations[index];
        registration.retry = (registration.retry * 2).min(timers::REGISTER_RETRY_MAX);
        let nonce = registration.nonce;
        if self.registrations.iter().any(|other| other.nonce > nonce) {
            self.register(now, index);
        } else {
            self.send_register(now, index);
        }
    }

    fn send_register(&mut self, now: Instant, index: usize) {
        let destination = self.map_server_address(&self.registrations[index]);
        let registration = &mut self.registrations[index];
        registration.retry_at = Some(now + registration.retry);
        let Some(destination) = destination else { return };
        if registration.unanswered > 0 {
            registration.way = registration.way.wrapping_add(1); // The last one may be dead.
        }
        let (Some(source), Some((nonce, octets))) =
            (self.own.in_turn(destination, registration.way), registration.outstanding.clone())
        else {
            return;
        };
        registration.unanswered += 1;
        if registration.unanswered > UNANSWERED {
            registration.address = registration.address.wrapping_add(1);
        }
        if registration.unanswered == UNANSWERED + 1 {
            let prefixes = registration.prefixes.clone();
            for prefix in prefixes {
                self.event(Event::RegistrationUnanswered { prefix, map_server: destination });
            }
        }
        self.count("map_registers_sent");
        if self.register_through_rtr(now, destination, (nonce, &octets)) {
            return self.watch_rtr(now, index);
        }
        let destination = SocketAddr::new(destination, CONTROL_PORT);
        self.transmit(source, SourcePort::Ephemeral, destination, octets);
    }

    /// Through another RTR after so many tries: the locators are others then, so the Map-Registers are too.
    fn watch_rtr(&mut self, now: Instant, index: usize) {
        if !self.registrations[index].unanswered.is_multiple_of(UNANSWERED + 1) {
            return;
        }
        self.rtr_is_silent(now);
        for registration in &mut self.registrations {
            if !registration.deregistered {
                registration.next = now;
            }
        }
    }

    /// Where a registration goes now.
    pub(super) fn map_server_address(&self, registration: &Registration) -> Option<IpAddr> {
        let addresses = self.addresses_of(&self.config.map_servers[registration.server].endpoint);
        addresses.get(registration.address % addresses.len().max(1)).copied()
    }

    /// Own mappings changed: register them at once, and quickly for a while (RG-03).
    pub(super) fn register_change(&mut self, now: Instant) {
        self.quick_until = now + timers::QUICK_REGISTRATION_PERIOD;
        for registration in &mut self.registrations {
            if !registration.deregistered {
                (registration.next, registration.retry) = (now, timers::REGISTER_RETRY_FIRST);
            }
        }
        self.run_registrations(now);
    }

    /// Whether every Map-Server has acknowledged what it was last sent.
    ///
    /// Those of Map-Servers that do not answer at all are not waited for.
    pub(super) fn is_all_acknowledged(&self) -> bool {
        self.registrations.iter().all(|registration| {
            registration.unanswered > UNANSWERED
                || (registration.outstanding.is_none() && registration.nonce != 0)
        })
    }

    /// Names of Map-Servers resolved to something new: register there at once.
    pub(super) fn refresh_map_servers(&mut self, now: Instant) {
        for registration in &mut self.registrations {
            let endpoint = &self.config.map_servers[registration.server].endpoint;
            if matches!(endpoint, crate::config::Endpoint::Name(_)) && !self.shutting_down {
                (registration.next, registration.retry) = (now, timers::REGISTER_RETRY_FIRST);
            }
        }
    }

    /// A Map-Notify: the acknowledgement of a Map-Register, or news of the Map-Server's own (RG-15, RG-16, RG-19).
    pub(super) fn handle_map_notify(
        &mut self,
        now: Instant,
        local: SocketAddr,
        from: SocketAddr,
        notify: &MapNotify,
        octets: &[u8],
    ) {
        let is_register = |r: &Registration| {
            r.outstanding.as_ref().is_some_and(|(nonce, _)| *nonce == notify.nonce)
        };
        if !self.registrations.iter().any(is_register)
            && self.handle_subscription_notify(now, local, from, notify, octets)
        {
            return;
        }
        let server = match self.authenticate(from.ip(), &notify.authentication, octets) {
            Ok(server) => server,
            Err(reason) => return self.discard(reason),
        };
        let outstanding = self.registrations.iter().position(|registration| {
            registration.server == server
                && registration
                    .outstanding
                    .as_ref()
                    .is_some_and(|(nonce, _)| *nonce == notify.nonce)
        });
        match outstanding {
            Some(index) => self.acknowledged(now, index, from.ip(), notify),
            None if self.is_own_nonce(notify.nonce) => self.discard(Discard::NonceUnknown),
            None => {
                self.acknowledge(local, from, server, notify);
                for record in &notify.records {
                    self.host_registered(now, server, record);
                }
            }
        }
    }

    /// A Map-Notify that came through the RTR `way.1` to the own RLOC `way.0` (NT-09): the acknowledgement of a Map-Register that went
    /// that way, or news of the Map-Server's own. News are not acknowledged: nothing goes to the Map-Server but Map-Registers.
    pub(super) fn handle_data_map_notify(
        &mut self,
        now: Instant,
        from: IpAddr,
        notify: &MapNotify,
        octets: &[u8],
        way: (IpAddr, IpAddr),
    ) {
        let server = match self.authenticate(from, &notify.authentication, octets) {
            Ok(server) => server,
            Err(reason) => return self.discard(reason),
        };
        let answers = |registration: &Registration| {
            let outstanding = registration.outstanding.as_ref();
            registration.server == server
                && outstanding.is_some_and(|(nonce, _)| *nonce == notify.nonce)
        };
        match self.registrations.iter().position(answers) {
            Some(index) => {
                self.rtr_answered(now, way, notify.nonce);
                self.acknowledged(now, index, from, notify);
            }
            // The same Map-Register went another way too.
            None if self.is_own_nonce(notify.nonce) => self.rtr_answered(now, way, notify.nonce),
            None => {
                self.count("map_notifies_unsolicited");
                for record in &notify.records {
                    self.host_registered(now, server, record);
                }
            }
        }
    }

    /// Whether a Map-Register of ours carried this nonce: a late or repeated acknowledgement, then.
    fn is_own_nonce(&self, nonce: u64) -> bool {
        nonce > self.first_register_nonce && nonce <= self.register_nonce
    }

    /// The Map-Server that signed the message (AU-11, AU-15).
    pub(super) fn authenticate(
        &self,
        from: IpAddr,
        told: &AuthenticationData,
        octets: &[u8],
    ) -> Result<usize, Discard> {
        let mut reason = Discard::MapServerUnknown;
        for (index, server) in self.config.map_servers.iter().enumerate() {
            if !self.addresses_of(&server.endpoint).contains(&from) {
                continue;
            }
            if server.key_id != told.key_id {
                reason = Discard::KeyUnknown;
                continue;
            }
            match auth::verify(octets, &server.secret, &[server.algorithm]) {
                Ok(_) => return Ok(index),
                Err(error) => reason = error.into(),
            }
        }
        Err(reason)
    }

    fn acknowledged(&mut self, now: Instant, index: usize, from: IpAddr, notify: &MapNotify) {
        let has = |prefix: &EidPrefix| {
            notify.records.is_empty()
                || notify.records.iter().any(|record| record.eid.prefix() == Some(*prefix))
        };
        let registration = &mut self.registrations[index];
        if !registration.prefixes.iter().any(has) {
            return self.discard(Discard::NotifyMismatch);
        }
        let goes = self.shutting_down || registration.withdrawal;
        let was_silent =
            registration.last_acknowledged.is_none() || registration.unanswered > UNANSWERED;
        registration.outstanding = None;
        (registration.retry, registration.retry_at) = (timers::REGISTER_RETRY_FIRST, None);
        registration.unanswered = 0;
        registration.last_acknowledged = Some(now);
        registration.deregistered = self.shutting_down;
        let mut news = Vec::new();
        for &prefix in &registration.prefixes {
            let (count, refused) = registration.refusals.entry(prefix).or_default();
            let was_refused = std::mem::replace(refused, !has(&prefix));
            *count += u64::from(*refused);
            if *refused && (!was_refused || was_silent) && !goes {
                news.push(Event::RegistrationRefused { prefix, map_server: from });
            } else if !*refused && (was_refused || was_silent) && !goes {
                news.push(Event::Registered { prefix, map_server: from });
            }
        }
        for event in news {
            if let Event::Registered { prefix, .. } = event {
                self.ask_who_left(now, prefix);
            }
            self.event(event);
        }
        self.count("map_notifies_received");
        self.tidy_registrations(index);
        self.registrations_settled(now);
    }

    /// RG-16: same contents, own Authentication Data, once per copy received.
    fn acknowledge(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        server: usize,
        notify: &MapNotify,
    ) {
        self.count("map_notifies_unsolicited");
        let server = &self.config.map_servers[server];
        let authentication =
            AuthenticationData::zeroed(server.key_id, server.algorithm.id(), server.mac_len());
        let ack = MapNotifyAck(MapNotify { authentication, ..notify.clone() });
        let mut octets = Message::MapNotifyAck(ack).to_vec();
        if auth::sign(&mut octets, &server.secret, server.algorithm).is_ok() {
            self.count("map_notify_acks_sent");
            self.transmit(local.ip(), SourcePort::Control, from, octets);
        }
    }
}

impl Registration {
    pub(super) fn new(server: usize, prefixes: Vec<EidPrefix>, now: Instant) -> Self {
        Self {
            server,
            prefixes,
            address: 0,
            way: 0,
            outstanding: None,
            nonce: 0,
            retry: timers::REGISTER_RETRY_FIRST,
            retry_at: None,
            next: now,
            unanswered: 0,
            last_acknowledged: None,
            refusals: BTreeMap::new(),
            deregistered: false,
            withdrawal: false,
            was_known: false,
        }
    }
}
