//! What a Map-Server/Map-Resolver is configured with, after parsing and validation.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ipnet::IpNet;

use crate::auth::PreparedKey;
use crate::ddt::DdtConfig;
use crate::eid::{EidPrefix, NamePrefix};
use crate::timers;

/// A shared secret; never printed. Clones share it and what MACs make of it.
#[derive(Clone)]
pub struct Secret(Arc<SecretOctets>);

struct SecretOctets {
    octets: Vec<u8>,
    prepared: OnceLock<PreparedKey>,
}

impl Secret {
    /// Wraps the octets of a pre-shared key.
    pub fn new(octets: Vec<u8>) -> Self {
        Self(Arc::new(SecretOctets { octets, prepared: OnceLock::new() }))
    }

    /// The octets, for a KDF only.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0.octets
    }

    /// The key made ready for MACs, computed on first use.
    pub fn prepared(&self) -> &PreparedKey {
        self.0.prepared.get_or_init(|| PreparedKey::new(self.octets()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.octets() == other.octets()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// An authentication algorithm of RFC 9301 §12.5 that this suite signs with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// 1: HMAC-SHA-1-96, for peers of a legacy [`Profile`] only (AU-03).
    HmacSha1,
    /// 2: HMAC-SHA-256-128, key used as it is.
    HmacSha256,
    /// 3: HMAC-SHA256-128+HKDF-SHA256, a key per message. The default.
    HmacSha256Hkdf,
}

impl Algorithm {
    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac-sha-1-96",
            Self::HmacSha256 => "hmac-sha-256-128",
            Self::HmacSha256Hkdf => "hmac-sha-256-128-hkdf",
        }
    }
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
    /// Who may subscribe besides the xTRs of sites: PITRs and RTRs.
    pub subscribers: Vec<Subscriber>,
    /// The bounds of subscriptions.
    pub subscriptions: SubscriptionLimits,
    /// Who may ask (MR-08), and how each of them behaves; empty = everybody, by the rules of RFC 9301.
    pub clients: Vec<Client>,
    /// Directory of the durable state; `None` = nothing survives a restart.
    pub state_dir: Option<PathBuf>,
    /// Start with empty state when what `state_dir` holds is corrupt.
    pub start_empty: bool,
    /// The etcd that keeps the state for several Map-Servers; `None` = this one is alone.
    pub cluster: Option<ClusterConfig>,
    /// The place in the Delegated Database Tree.
    pub ddt: DdtConfig,
    /// LISP-SEC towards the ITRs (RFC 9303).
    pub lisp_sec: LispSec,
    /// RTRs for xTRs behind NATs, in the order they are told; empty = Info-Requests and relayed Map-Registers are refused.
    pub rtrs: Vec<Rtr>,
}

/// An RTR that carries xTRs through their NATs (draft-ermagan-lisp-nat-traversal).
#[derive(Clone, Debug)]
pub struct Rtr {
    /// Where it is.
    pub address: IpAddr,
    /// What Map-Notifies to it are authenticated with; without it, only its nonces protect it (§6).
    pub key: Option<RtrKey>,
}

/// A secret shared by a Map-Server and an RTR (draft-ermagan-lisp-nat-traversal §4.4).
#[derive(Clone, Debug)]
pub struct RtrKey {
    /// Key ID.
    pub id: u8,
    /// The secret.
    pub secret: Secret,
    /// HMAC-SHA-256-128, or HMAC-SHA-1-96 for an old peer: no other is defined.
    pub algorithm: Algorithm,
    /// How the peer deviates; a legacy one wants untruncated MACs (AU-14).
    pub profile: Profile,
}

impl RtrKey {
    /// The octets of the Authentication Data that the peer expects.
    pub const fn mac_len(&self) -> usize {
        match self.profile {
            Profile::Rfc9301 => self.algorithm.mac_len(),
            Profile::Oor | Profile::LispersNet | Profile::Vpp => {
                self.algorithm.untruncated_mac_len()
            }
        }
    }
}

/// LISP-SEC of a Map-Resolver and Map-Server (RFC 9303). Towards an ETR it needs nothing: the ETR's own key wraps its one-time key.
#[derive(Clone, Debug, Default)]
pub struct LispSec {
    /// Secrets shared with the ITRs. None of them may be a site's (SE-07).
    pub itr_keys: Vec<ItrKey>,
    /// Map-Requests without LISP-SEC are dropped (SE-23).
    pub required: bool,
}

/// A secret shared with ITRs, which wrap their one-time keys with it (RFC 9303 §6.5).
#[derive(Clone, Debug)]
pub struct ItrKey {
    /// Key ID; two while one secret replaces the other.
    pub id: u8,
    /// The secret.
    pub secret: Secret,
}

/// An etcd cluster (v3 API), and where in it the state is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// `HOST:PORT` of its members, in the order of preference; `HOST` is a name, an IPv4 address or `[IPv6]`.
    pub endpoints: Vec<String>,
    /// Every key starts with it; the same at all Map-Servers of the cluster.
    pub prefix: String,
    /// User and password, when etcd wants them.
    pub user: Option<(String, Secret)>,
}

/// How a peer deviates from RFC 9301, and so which rules are relaxed for it (REQUIREMENTS §27, AU-19).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Not at all. The default.
    #[default]
    Rfc9301,
    /// Open Overlay Router: HMAC-SHA-1 with 20 octets, a random nonce per Map-Register.
    Oor,
    /// lispers.net: HMAC-SHA-1 or HMAC-SHA-256 untruncated, a constant nonce, Map-Notify to the source port, ECMs without inner UDP
    /// checksum, subscriptions without Site-ID, JSON LCAFs of a wrong Length.
    LispersNet,
    /// VPP's LISP plugin: HMAC-SHA-1 or HMAC-SHA-256, a random nonce per Map-Register.
    Vpp,
}

impl Profile {
    /// Every profile.
    pub const ALL: [Self; 4] = [Self::Rfc9301, Self::Oor, Self::LispersNet, Self::Vpp];

    /// As it is written in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rfc9301 => "rfc9301",
            Self::Oor => "oor",
            Self::LispersNet => "lispers.net",
            Self::Vpp => "vpp",
        }
    }

    /// What a site of this profile is spared, for those who allow it; `None` of the rules as they are.
    pub const fn loosened(self) -> Option<&'static str> {
        const RANDOM: &str = "its nonces need not increase: a recorded Map-Register is accepted again after another one";
        match self {
            Self::Rfc9301 => None,
            Self::Oor | Self::Vpp => Some(RANDOM),
            Self::LispersNet => Some(
                "its nonces are not looked at: a recorded Map-Register is accepted again at any time; Map-Notifies go to the port it sends from; a JSON LCAF of a locator may have a wrong Length",
            ),
        }
    }
}

/// Who may ask the Map-Resolver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where the Map-Request comes from (outer source address).
    pub prefix: IpNet,
    /// What is relaxed for it.
    pub profile: Profile,
    /// Its Map-Requests outside an ECM are lookups too (MR-09).
    pub plain_map_requests: bool,
}

impl Client {
    /// What its profile relaxes, for those who allow it; `None` of the rules as they are.
    pub const fn loosened(&self) -> Option<&'static str> {
        match self.profile {
            Profile::Rfc9301 | Profile::Oor | Profile::Vpp => None,
            Profile::LispersNet => {
                Some("its Map-Requests need no inner checksum, and its subscriptions no Site-ID")
            }
        }
    }
}

/// Who may subscribe without being the xTR of a site (RFC 9437 §7.1): found by its Site-ID.
#[derive(Clone, Debug)]
pub struct Subscriber {
    /// For humans; unique.
    pub name: String,
    /// Site-ID of its Map-Requests. Not 0, and that of no site.
    pub site_id: u64,
    /// What Map-Notifies to it are signed with; its first algorithm counts.
    pub key: SiteKey,
    /// If not empty: ITR-RLOCs must lie in one of these.
    pub allowed_locators: Vec<IpNet>,
}

/// The bounds of subscriptions (RFC 9437 §5, §7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionLimits {
    /// Most subscriptions, over all xTRs; 0 = none, every lookup is answered by Map-Reply.
    pub max: usize,
    /// How long a subscription to what is not registered lives.
    pub lifetime: Duration,
    /// Publications per second, over all xTRs, without retransmissions.
    pub notifies_per_second: u32,
}

impl Default for SubscriptionLimits {
    fn default() -> Self {
        Self {
            max: timers::MAX_SUBSCRIPTIONS,
            lifetime: timers::TEMPORARY_SUBSCRIPTION,
            notifies_per_second: timers::PUBLICATIONS_PER_SECOND,
        }
    }
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
    /// Distinguished names the site may register (RFC 9735).
    pub eid_names: Vec<SiteName>,
    /// If not empty: locators must lie in one of these.
    pub allowed_locators: Vec<IpNet>,
    /// How the site's xTRs deviate from RFC 9301.
    pub profile: Profile,
    /// Shut down by the operator: registrations are refused, Map-Requests answered with ACT 4 (MS-13).
    pub admin_down: bool,
    /// Answer for every registration of the site, whether its ETRs ask for it or not.
    pub force_proxy_reply: bool,
    /// Most registrations of the site.
    pub max_registrations: usize,
    /// Site-ID of the site's xTRs: subscriptions with it are signed with the site's keys (RFC 9437 §7.1). Not 0.
    pub site_id: Option<u64>,
}

impl MappingConfig {
    /// `name` serving on `listen`, without sites, everything else at its default.
    pub fn new(name: impl Into<String>, listen: Vec<IpAddr>) -> Self {
        Self {
            name: name.into(),
            listen,
            sites: Vec::new(),
            registration_timeout: timers::REGISTRATION_TIMEOUT,
            subscribers: Vec::new(),
            subscriptions: SubscriptionLimits::default(),
            clients: Vec::new(),
            state_dir: None,
            start_empty: false,
            cluster: None,
            ddt: DdtConfig::default(),
            lisp_sec: LispSec::default(),
            rtrs: Vec::new(),
        }
    }
}

impl MappingConfig {
    /// Two sites that share a secret, by their places, the first such pair (AU-10); sites of one Site-ID may.
    pub fn shared_secret(&self) -> Option<(usize, usize)> {
        let mut owners: HashMap<&[u8], usize> = HashMap::new();
        for (place, site) in self.sites.iter().enumerate() {
            // Offline, secrets are not read and empty.
            for key in site.keys.iter().filter(|key| !key.secret.octets().is_empty()) {
                let owner = *owners.entry(key.secret.octets()).or_insert(place);
                let same = site.site_id.is_some() && site.site_id == self.sites[owner].site_id;
                if owner != place && !same {
                    return Some((owner, place));
                }
            }
        }
        None
    }
}

impl Site {
    /// A site with everything else at its default.
    pub fn new(name: impl Into<String>, keys: Vec<SiteKey>, eid_prefixes: Vec<SitePrefix>) -> Self {
        Self {
            name: name.into(),
            keys,
            eid_prefixes,
            eid_names: Vec::new(),
            allowed_locators: Vec::new(),
            profile: Profile::default(),
            admin_down: false,
            force_proxy_reply: false,
            max_registrations: timers::MAX_SITE_REGISTRATIONS,
            site_id: None,
        }
    }
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

/// A distinguished name of a site.
#[derive(Clone, Debug)]
pub struct SiteName {
    /// The name.
    pub name: NamePrefix,
    /// Whether names that begin with it may be registered too.
    pub accept_more_specifics: bool,
}
