//! What a Map-Server/Map-Resolver is configured with, after parsing and validation.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use crate::eid::EidPrefix;

/// A shared secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Wraps the octets of a pre-shared key.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(octets)
    }

    /// The octets, for a MAC or a KDF only.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An authentication algorithm of RFC 9301 §12.5 that this suite signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 2: HMAC-SHA-256-128, key used as it is.
    HmacSha256,
    /// 3: HMAC-SHA256-128+HKDF-SHA256, a key per message. The default.
    HmacSha256Hkdf,
}

/// A Map-Server and Map-Resolver.
#[derive(Clone, Debug)]
pub struct MappingConfig {
    /// Shown in `show status`.
    pub name: String,
    /// Own addresses to serve on, port 4342.
    pub listen: Vec<IpAddr>,
    /// Sites that may register.
    pub sites: Vec<Site>,
    /// How long a registration lives without refresh (RFC 9301 §8.2: 3 minutes).
    pub registration_timeout: Duration,
}

/// A LISP site.
#[derive(Clone, Debug)]
pub struct Site {
    /// For humans; unique.
    pub name: String,
    /// Keys the site may sign with; a Key ID may name two while one secret replaces the other (AU-09).
    pub keys: Vec<SiteKey>,
    /// EID-prefixes the site may register. Sites may have a prefix in common, so that its EIDs can move between them.
    pub eid_prefixes: Vec<SitePrefix>,
    /// If not empty: locators must lie in one of these.
    pub allowed_locators: Vec<IpNet>,
}

/// One key of a site.
#[derive(Clone, Debug)]
pub struct SiteKey {
    /// Key ID.
    pub id: u8,
    /// The secret.
    pub secret: Secret,
    /// The only algorithms accepted with it (AU-15). Default both.
    pub algorithms: Vec<Algorithm>,
}

/// An EID-prefix of a site.
#[derive(Clone, Debug)]
pub struct SitePrefix {
    /// The prefix.
    pub prefix: EidPrefix,
    /// Whether more-specifics may be registered too (MS-02).
    pub accept_more_specifics: bool,
}
