//! The durable form of registrations and nonces: keys and values as octets, numbers in network order.
//!
//! ```text
//!   'r' EID-prefix xTR               registration: version 1, times, flags, addresses, site name, EID-Record
//!   'd' distinguished name xTR       registration of a name: the same value
//!   'n' site name, Key ID, xTR       nonce: version 1, nonce, when it came, first octets of its MAC
//! ```
//!
//! Sites go by their name, so that a change of the configuration cannot mix them up; a secret is never in here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::auth::Covered;
use crate::config::Algorithm;
use crate::eid::{EidPrefix, InstanceId, NamePrefix};
use crate::wire::{EidRecord, XtrIdentity};

use super::registry::Registrant;

/// The first octet of the key of a registration.
pub(super) const REGISTRATION: u8 = b'r';
/// The first octet of the key of the registration of a distinguished name.
pub(super) const NAME: u8 = b'd';
/// The first octet of the key of a nonce.
pub(super) const NONCE: u8 = b'n';

/// The first octet of every value.
const VERSION: u8 = 1;

/// How the peer signed, but for the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptSigning {
    pub(super) key_id: u8,
    pub(super) algorithm: Algorithm,
    pub(super) mac_len: u8,
    pub(super) covered: Covered,
}

/// A registration; times in Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeptRegistration<'a> {
    pub(super) site: &'a str,
    pub(super) since: u64,
    pub(super) expires: u64,
    pub(super) lifetime_seconds: u32,
    pub(super) proxy_reply: bool,
    pub(super) merge: bool,
    pub(super) security_capable: bool,
    pub(super) signing: Option<KeptSigning>,
    pub(super) identity: Option<XtrIdentity>,
    pub(super) source: IpAddr,
    pub(super) local: IpAddr,
    pub(super) record: EidRecord,
}

/// The last accepted nonce of a peer; the time in Unix milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptNonce {
    pub(super) nonce: u64,
    pub(super) at: u64,
    pub(super) mac: [u8; 16],
}

mod flag {
    pub(super) const PROXY_REPLY: u8 = 1;
    pub(super) const MERGE: u8 = 2;
    pub(super) const IDENTITY: u8 = 4;
    pub(super) const SIGNING: u8 = 8;
    pub(super) const MESSAGE_COVERED: u8 = 16;
    pub(super) const SECURITY_CAPABLE: u8 = 32;
}

/// Writes the key of the registration of `prefix` by one xTR.
pub(super) fn registration_key(key: &mut Vec<u8>, prefix: &EidPrefix, registrant: Registrant) {
    key.clear();
    key.push(REGISTRATION);
    put_prefix(key, prefix);
    put_registrant(key, registrant);
}

/// What [`registration_key`] made a key of.
pub(super) fn parse_registration_key(key: &[u8]) -> Option<(EidPrefix, Registrant)> {
    let mut rest = key.strip_prefix(&[REGISTRATION])?;
    let parsed = (take_prefix(&mut rest)?, take_registrant(&mut rest)?);
    rest.is_empty().then_some(parsed)
}

/// Writes the key of the registration of `name` by one xTR.
pub(super) fn name_key(key: &mut Vec<u8>, name: &NamePrefix, registrant: Registrant) {
    key.clear();
    key.push(NAME);
    key.extend_from_slice(&name.instance_id().get().to_be_bytes());
    key.push(name.name().len() as u8);
    key.extend_from_slice(name.name());
    put_registrant(key, registrant);
}

/// Instance, name without its NUL and xTR that [`name_key`] made a key of.
pub(super) fn parse_name_key(key: &[u8]) -> Option<(InstanceId, &[u8], Registrant)> {
    let mut rest = key.strip_prefix(&[NAME])?;
    let instance_id = InstanceId::new(u32::from_be_bytes(take(&mut rest)?))?;
    let [length] = take(&mut rest)?;
    let (name, after) = rest.split_at_checked(length.into())?;
    rest = after;
    let registrant = take_registrant(&mut rest)?;
    rest.is_empty().then_some((instance_id, name, registrant))
}

/// Writes the key of the nonces that one xTR counts with one key of a site.
pub(super) fn nonce_key(key: &mut Vec<u8>, site: &str, key_id: u8, registrant: Registrant) {
    key.clear();
    key.push(NONCE);
    put_name(key, site);
    key.push(key_id);
    put_registrant(key, registrant);
}

/// What [`nonce_key`] made a key of.
pub(super) fn parse_nonce_key(key: &[u8]) -> Option<(&str, u8, Registrant)> {
    let mut rest = key.strip_prefix(&[NONCE])?;
    let site = take_name(&mut rest)?;
    let [key_id] = take(&mut rest)?;
    let registrant = take_registrant(&mut rest)?;
    rest.is_empty().then_some((site, key_id, registrant))
}

impl KeptNonce {
    pub(super) fn encode(&self) -> [u8; 33] {
        let mut value = [0; 33];
        value[0] = VERSION;
        value[1..9].copy_from_slice(&self.nonce.to_be_bytes());
        value[9..17].copy_from_slice(&self.at.to_be_bytes());
        value[17..].copy_from_slice(&self.mac);
        value
    }

    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let mut rest = value.strip_prefix(&[VERSION])?;
        let nonce = take(&mut rest).map(u64::from_be_bytes)?;
        let at = take(&mut rest).map(u64::from_be_bytes)?;
        let mac = take(&mut rest)?;
        rest.is_empty().then_some(Self { nonce, at, mac })
    }
}

impl<'a> KeptRegistration<'a> {
    pub(super) fn encode(&self) -> Vec<u8> {
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        let covered = self.signing.is_some_and(|s| s.covered == Covered::Message);
        let mut value = Vec::with_capacity(128);
        value.push(VERSION);
        value.push(
            bit(self.proxy_reply, flag::PROXY_REPLY)
                | bit(self.merge, flag::MERGE)
                | bit(self.security_capable, flag::SECURITY_CAPABLE)
                | bit(self.identity.is_some(), flag::IDENTITY)
                | bit(self.signing.is_some(), flag::SIGNING)
                | bit(covered, flag::MESSAGE_COVERED),
        );
        value.extend_from_slice(&self.since.to_be_bytes());
        value.extend_from_slice(&self.expires.to_be_bytes());
        value.extend_from_slice(&self.lifetime_seconds.to_be_bytes());
        put_address(&mut value, self.source);
        put_address(&mut value, self.local);
        if let Some(signing) = &self.signing {
            value.extend_from_slice(&[signing.key_id, signing.algorithm.id(), signing.mac_len]);
        }
        if let Some(identity) = &self.identity {
            value.extend_from_slice(&identity.xtr_id.to_be_bytes());
            value.extend_from_slice(&identity.site_id.to_be_bytes());
        }
        put_name(&mut value, self.site);
        self.record.encode(&mut value);
        value
    }

    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let mut rest = value.strip_prefix(&[VERSION])?;
        let [flags] = take(&mut rest)?;
        let set = |bit: u8| flags & bit != 0;
        let since = take(&mut rest).map(u64::from_be_bytes)?;
        let expires = take(&mut rest).map(u64::from_be_bytes)?;
        let lifetime_seconds = take(&mut rest).map(u32::from_be_bytes)?;
        let (source, local) = (take_address(&mut rest)?, take_address(&mut rest)?);
        let signing = if set(flag::SIGNING) {
            let [key_id, algorithm, mac_len] = take(&mut rest)?;
            let covered =
                if set(flag::MESSAGE_COVERED) { Covered::Message } else { Covered::Records };
            Some(KeptSigning {
                key_id,
                algorithm: Algorithm::from_id(algorithm)?,
                mac_len,
                covered,
            })
        } else {
            None
        };
        let identity = if set(flag::IDENTITY) { Some(take_identity(&mut rest)?) } else { None };
        let site = take_name(&mut rest)?;
        Some(Self {
            site,
            since,
            expires,
            lifetime_seconds,
            proxy_reply: set(flag::PROXY_REPLY),
            merge: set(flag::MERGE),
            security_capable: set(flag::SECURITY_CAPABLE),
            signing,
            identity,
            source,
            local,
            record: EidRecord::parse(rest).ok()?,
        })
    }
}

fn put_prefix(out: &mut Vec<u8>, prefix: &EidPrefix) {
    out.extend_from_slice(&prefix.instance_id().get().to_be_bytes());
    out.push(prefix.mask_len());
    put_address(out, prefix.prefix().network());
}

fn take_prefix(rest: &mut &[u8]) -> Option<EidPrefix> {
    let instance_id = InstanceId::new(u32::from_be_bytes(take(rest)?))?;
    let [mask_len] = take(rest)?;
    let prefix = IpNet::new(take_address(rest)?, mask_len).ok()?;
    Some(EidPrefix::new(instance_id, prefix))
}

/// Kinds of xTR: what follows is an xTR-ID and Site-ID, or an address.
const BY_IDENTITY: u8 = 0;
const BY_SOURCE: u8 = 1;

fn put_registrant(out: &mut Vec<u8>, registrant: Registrant) {
    match registrant {
        Registrant::Xtr(xtr_id, site_id) => {
            out.push(BY_IDENTITY);
            out.extend_from_slice(&xtr_id);
            out.extend_from_slice(&site_id);
        }
        Registrant::Source(source) => {
            out.push(BY_SOURCE);
            put_address(out, source);
        }
    }
}

fn take_registrant(rest: &mut &[u8]) -> Option<Registrant> {
    match take(rest)? {
        [BY_IDENTITY] => take_identity(rest).map(Registrant::xtr),
        [BY_SOURCE] => take_address(rest).map(Registrant::Source),
        _ => None,
    }
}

fn take_identity(rest: &mut &[u8]) -> Option<XtrIdentity> {
    let xtr_id = u128::from_be_bytes(take(rest)?);
    Some(XtrIdentity { xtr_id, site_id: u64::from_be_bytes(take(rest)?) })
}

/// The number of octets, then the octets.
fn put_address(out: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            out.push(4);
            out.extend_from_slice(&address.octets());
        }
        IpAddr::V6(address) => {
            out.push(16);
            out.extend_from_slice(&address.octets());
        }
    }
}

fn take_address(rest: &mut &[u8]) -> Option<IpAddr> {
    match take(rest)? {
        [4] => take::<4>(rest).map(|octets| Ipv4Addr::from(octets).into()),
        [16] => take::<16>(rest).map(|octets| Ipv6Addr::from(octets).into()),
        _ => None,
    }
}

/// The longest name of a site in a key, octets; the configuration allows no longer one.
pub(crate) const MAX_NAME: usize = 255;

fn put_name(out: &mut Vec<u8>, name: &str) {
    let octets = &name.as_bytes()[..name.len().min(MAX_NAME)];
    out.push(octets.len() as u8);
    out.extend_from_slice(octets);
}

fn take_name<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    let [length] = take(rest)?;
    let (name, after) = rest.split_at_checked(length.into())?;
    *rest = after;
    std::str::from_utf8(name).ok()
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(*taken)
}
