//! The keys of subscribers: configured ones, found by Site-ID, and one-time keys (RFC 9437 §7.1).

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::auth::Covered;
use crate::config::{Algorithm, MappingConfig, Profile, Secret, SiteKey};
use crate::server::site::Signer;
use crate::timers::MAX_USED_KEYS;

/// What the configuration knows of one Site-ID.
#[derive(Debug)]
struct Credential {
    name: String,
    signer: Option<Signer>,
    allowed_locators: Vec<IpNet>,
}

/// Credentials by Site-ID.
#[derive(Debug)]
pub(super) struct Keyring(BTreeMap<u64, Credential>);

impl Keyring {
    pub(super) fn new(config: &MappingConfig) -> Self {
        let sites = config.sites.iter().filter_map(|site| {
            let credential = Credential {
                name: site.name.clone(),
                signer: site.keys.first().and_then(|key| signer(key, site.profile)),
                allowed_locators: site.allowed_locators.clone(),
            };
            Some((site.site_id?, credential))
        });
        let subscribers = config.subscribers.iter().map(|subscriber| {
            let credential = Credential {
                name: subscriber.name.clone(),
                signer: signer(&subscriber.key, Profile::Rfc9301),
                allowed_locators: subscriber.allowed_locators.clone(),
            };
            (subscriber.site_id, credential)
        });
        Self(sites.chain(subscribers).collect())
    }

    /// The pre-shared key of a Site-ID: the first one of its site, while another replaces it.
    pub(super) fn signer(&self, site_id: u64) -> Option<Signer> {
        self.0.get(&site_id)?.signer.clone()
    }

    pub(super) fn is_known(&self, site_id: u64) -> bool {
        self.0.get(&site_id).is_some_and(|credential| credential.signer.is_some())
    }

    /// The name of the site or subscriber.
    pub(super) fn name(&self, site_id: u64) -> Option<&str> {
        self.0.get(&site_id).map(|credential| credential.name.as_str())
    }

    /// Whether xTRs with this Site-ID may have Map-Notifies sent to `rlocs` (RFC 9437 §1.1).
    pub(super) fn permits(&self, site_id: u64, rlocs: &[IpAddr]) -> bool {
        self.0.get(&site_id).is_none_or(|credential| {
            let allowed = &credential.allowed_locators;
            allowed.is_empty()
                || rlocs.iter().all(|rloc| allowed.iter().any(|net| net.contains(rloc)))
        })
    }
}

fn signer(key: &SiteKey, profile: Profile) -> Option<Signer> {
    let algorithm = *key.algorithms.first()?;
    Some(Signer {
        secret: key.secret.clone(),
        key_id: key.id,
        algorithm,
        mac_len: match profile {
            Profile::Rfc9301 => algorithm.mac_len(),
            _ => algorithm.untruncated_mac_len(),
        },
        covered: Covered::Message,
    })
}

/// RFC 9437 §7.1 does not say which Key ID and Algorithm ID go with a PubSubKey: 0, and HMAC-SHA-256-128.
pub(super) fn derived_signer(key: &Secret) -> Signer {
    Signer {
        secret: key.clone(),
        key_id: 0,
        algorithm: Algorithm::HmacSha256,
        mac_len: Algorithm::HmacSha256.mac_len(),
        covered: Covered::Message,
    }
}

/// What stands for a one-time key.
pub(super) type UsedKey = [u8; 16];

/// One-time keys that were used (PS-22); at the bound the oldest are forgotten.
#[derive(Debug, Default)]
pub(super) struct UsedKeys {
    keys: HashSet<UsedKey>,
    order: VecDeque<UsedKey>,
}

impl UsedKeys {
    pub(super) fn contains(&self, key: &UsedKey) -> bool {
        self.keys.contains(key)
    }

    /// Returns what was forgotten for it.
    pub(super) fn insert(&mut self, key: UsedKey) -> Option<UsedKey> {
        if !self.keys.insert(key) {
            return None;
        }
        self.order.push_back(key);
        if self.order.len() <= MAX_USED_KEYS {
            return None;
        }
        let oldest = self.order.pop_front()?;
        self.keys.remove(&oldest);
        Some(oldest)
    }
}
