//! Messages made ahead of time: in order, of equal size, each with its sender.
//!
//! Site `s` has the EID-prefix fd00 + `s` (32 bits) and registers /64s in it; its ETR is sender `s` modulo their number. Names of
//! unregistered EID-prefixes start with fdff.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, EncapsulatedControlMessage, LocatorRecord,
    MapRegister, MapRequest, RequestedEid,
};

/// The secret in the key file of [`crate::daemon::Daemon`].
pub const SECRET: &str = "a-secret-for-tests-only";

/// EID-prefixes of each site that are never registered: so many that none is asked for twice by one sender within the 3 seconds in
/// which the second reply is withheld (RFC 9301 §5.4).
const UNREGISTERED: usize = 4;

/// What is registered and asked for.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Sites, at most 65,000.
    pub sites: usize,
    /// EID-prefixes, spread over the sites.
    pub registrations: usize,
    /// Consecutive messages of one sender.
    pub train: usize,
    /// The addresses of ETRs and ITRs, which are locators and ITR-RLOCs as well.
    pub senders: Vec<IpAddr>,
    /// The secret of every site, Key ID 1.
    pub secret: String,
    /// What Map-Registers are signed with.
    pub algorithm: Algorithm,
}

/// Messages one after the other.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    octets: Vec<u8>,
    /// Octets of each message.
    pub size: usize,
    /// The sender of each, by its place in [`Plan::senders`].
    pub senders: Vec<u16>,
}

impl Messages {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.senders.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// Some of them, without anything between them.
    pub fn octets(&self, range: Range<usize>) -> &[u8] {
        &self.octets[range.start * self.size..range.end * self.size]
    }

    fn push(&mut self, sender: usize, message: &[u8]) {
        assert!(self.is_empty() || message.len() == self.size, "messages of equal size");
        self.size = message.len();
        self.senders.push(sender as u16);
        self.octets.extend_from_slice(message);
    }
}

impl Plan {
    /// Map-Registers with the nonces `numbers`; number `n` is of EID-prefix `n` modulo the registrations.
    pub fn registers(&self, numbers: Range<u64>) -> Messages {
        let secret = Secret::new(self.secret.clone().into_bytes());
        let mut messages = Messages::default();
        for number in numbers {
            let (site, prefix) = self.eid(number as usize % self.registrations);
            let sender = site % self.senders.len();
            messages.push(sender, &self.register(prefix, sender, number, &secret));
        }
        messages
    }

    /// Lookups with the nonces `numbers` of registered EIDs; no sender asks for the same one again soon.
    pub fn lookups(&self, numbers: Range<u64>) -> Messages {
        let mut messages = Messages::default();
        for number in numbers {
            let turn = number as usize / self.registrations;
            let sender = (number as usize / self.train + 7 * turn) % self.senders.len();
            let (_, prefix) = self.eid(number as usize % self.registrations);
            messages.push(sender, &lookup(number, prefix, self.senders[sender]));
        }
        messages
    }

    /// Lookups of EIDs that belong to a site but are not registered; no sender asks for the same one again soon.
    pub fn vain_lookups(&self, numbers: Range<u64>) -> Messages {
        let mut messages = Messages::default();
        let prefixes = self.sites * UNREGISTERED;
        for number in numbers {
            let turn = number as usize / prefixes;
            let sender = (number as usize / self.train + 7 * turn) % self.senders.len();
            let prefix = unregistered(number as usize % prefixes);
            messages.push(sender, &lookup(number, prefix, self.senders[sender]));
        }
        messages
    }

    /// `[mapping]` and `[[site]]` for a Map-Server at `listen`, with state that survives or not.
    pub fn configuration(&self, listen: IpAddr, durable: bool) -> String {
        let mut text =
            format!("[mapping]\nlisten = [\"{listen}\"]\nregistration-timeout = \"1h\"\n");
        if durable {
            text += "state-dir = \"STATE\"\n";
        }
        for site in 0..self.sites {
            text += &format!(
                "[[site]]\nname = \"s{site}\"\nkeys = [{{ id = 1, file = \"KEY\", algorithms = [\"hmac-sha-256-128\"] }}]\n\
                 eid-prefixes = [{{ prefix = \"{}\", accept-more-specifics = true }}",
                site_prefix(site).prefix(),
            );
            for prefix in unregistered_of(site) {
                text += &format!(", \"{}\"", prefix.prefix());
            }
            text += "]\n";
        }
        text
    }

    /// The same sites for Open Overlay Router.
    pub fn oor_configuration(&self, interface: &str) -> String {
        let mut text = format!("debug = 0\noperating-mode = MS\ncontrol-iface = {interface}\n");
        for prefix in (0..self.sites)
            .flat_map(|site| std::iter::once(site_prefix(site)).chain(unregistered_of(site)))
        {
            text += &format!(
                "lisp-site {{\n eid-prefix = {}\n key-type = 1\n key = \"{}\"\n iid = 0\n accept-more-specifics = true\n}}\n",
                prefix.prefix(),
                self.secret,
            );
        }
        text
    }

    /// Site and EID-prefix number `number`: as many as [`Self::train`] of one site in a row.
    fn eid(&self, number: usize) -> (usize, EidPrefix) {
        let site = number / self.train % self.sites;
        let host = number / (self.train * self.sites) * self.train + number % self.train;
        let bits = site_bits(site) | (host as u128) << 64;
        (site, EidPrefix::new(InstanceId::DEFAULT, prefix(bits, 64)))
    }

    fn register(&self, prefix: EidPrefix, sender: usize, nonce: u64, secret: &Secret) -> Vec<u8> {
        let mut locator = LocatorRecord::new(self.senders[sender], 1, 100);
        locator.reachable = true;
        let mac_len = if self.algorithm == Algorithm::HmacSha1 { 20 } else { auth::MAC_LEN };
        let mut octets = Vec::new();
        MapRegister {
            proxy_reply: true,
            security_capable: false,
            eid_notify: false,
            use_ttl: false,
            merge: false,
            want_map_notify: true,
            nonce,
            authentication: AuthenticationData::zeroed(1, self.algorithm.id(), mac_len),
            records: vec![EidRecord::new(prefix, 1_440, vec![locator])],
            identity: None,
        }
        .encode(&mut octets);
        auth::sign(&mut octets, secret, self.algorithm).expect("a message made here can be signed");
        octets
    }
}

fn lookup(nonce: u64, prefix: EidPrefix, itr: IpAddr) -> Vec<u8> {
    let eid = prefix.first();
    let mut message = Vec::new();
    let asked = vec![RequestedEid::new(eid.host_prefix())];
    MapRequest::new(nonce, vec![itr.into()], asked).encode(&mut message);
    let source = SocketAddr::new("fd80::1".parse().expect("an address"), CONTROL_PORT);
    let mut octets = Vec::new();
    EncapsulatedControlMessage::new(source, SocketAddr::new(eid.address, CONTROL_PORT), message)
        .encode(&mut octets);
    octets
}

fn site_prefix(site: usize) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, prefix(site_bits(site), 32))
}

fn unregistered_of(site: usize) -> impl Iterator<Item = EidPrefix> {
    (0..UNREGISTERED).map(move |at| unregistered(site * UNREGISTERED + at))
}

fn unregistered(number: usize) -> EidPrefix {
    let bits = 0xfdff << 112 | (number as u128) << 94;
    EidPrefix::new(InstanceId::DEFAULT, prefix(bits, 34))
}

fn site_bits(site: usize) -> u128 {
    0xfd00 << 112 | (site as u128) << 96
}

fn prefix(bits: u128, length: u8) -> ipnet::IpNet {
    ipnet::Ipv6Net::new(Ipv6Addr::from_bits(bits), length).expect("a mask length").into()
}
