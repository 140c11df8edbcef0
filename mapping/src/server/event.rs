//! What a Map-Server has to say to humans.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::Algorithm;
use crate::discard::Discard;
use crate::eid::{EidPrefix, NamePrefix};
use crate::wire::XtrIdentity;

/// Something an operator may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// An EID-prefix that nobody had registered is registered now.
    Registered {
        /// The site.
        site: Arc<str>,
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where the Map-Register came from.
        source: IpAddr,
    },
    /// The locator-set of an EID-prefix changed.
    Changed {
        /// The site.
        site: Arc<str>,
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where the Map-Register came from.
        source: IpAddr,
    },
    /// An ETR withdrew its registration (TTL 0).
    Withdrawn {
        /// The site.
        site: Arc<str>,
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where the Map-Register came from.
        source: IpAddr,
    },
    /// A registration was not refreshed in time.
    Expired {
        /// The site.
        site: Arc<str>,
        /// The EID-prefix.
        prefix: EidPrefix,
        /// Where the last Map-Register came from.
        source: IpAddr,
    },
    /// A Map-Register, or a record of it, was refused.
    Refused(Refusal),
    /// The registration of a distinguished name came, changed or went.
    Name {
        /// The site.
        site: Arc<str>,
        /// The name.
        name: NamePrefix,
        /// Where the Map-Register came from.
        source: IpAddr,
        /// What became of it.
        change: NameChange,
    },
    /// At the start: a site's profile and keys allow HMAC-SHA-1 (AU-03).
    WeakAlgorithm {
        /// The site.
        site: Arc<str>,
    },
    /// A site's profile spares it rules that protect it.
    LooseProfile {
        /// The site.
        site: Arc<str>,
        /// The profile, as in the configuration.
        profile: &'static str,
        /// What it is spared.
        loosened: &'static str,
    },
    /// A registration of the durable state was dropped: the configuration does not allow it any more.
    NotRestored(Refusal),
    /// An unsolicited Map-Notify was never acknowledged.
    NotifyUnacknowledged {
        /// The EID-prefix it was about.
        prefix: EidPrefix,
        /// The ETR that did not answer.
        destination: IpAddr,
    },
    /// A lookup through the Delegated Database Tree was given up.
    LookupFailed {
        /// What was asked for.
        asked: EidPrefix,
        /// The DDT node that was asked last.
        node: IpAddr,
        /// Why.
        reason: Discard,
    },
    /// An xTR is told of changes from now on.
    Subscribed {
        /// What it subscribed to.
        prefix: EidPrefix,
        /// The xTR.
        xtr: XtrIdentity,
    },
    /// A subscription ended.
    Unsubscribed {
        /// What it was to.
        prefix: EidPrefix,
        /// The xTR.
        xtr: XtrIdentity,
        /// Why.
        why: &'static str,
    },
    /// The profile of a client relaxes rules; who, and which.
    LooseClient(String),
    /// Another control message was discarded.
    Discarded {
        /// Where it came from.
        source: IpAddr,
        /// Why.
        reason: Discard,
    },
}

/// What became of the registration of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameChange {
    /// It is registered now.
    Registered,
    /// It has other locators.
    Changed,
    /// Its ETR withdrew it.
    Withdrawn,
    /// It was not refreshed in time.
    Expired,
}

/// Which rule refused what, of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The site, when one could be told.
    pub site: Option<Arc<str>>,
    /// The EID-prefix; of a whole message, its first.
    pub prefix: Option<EidPrefix>,
    /// Where the Map-Register came from.
    pub source: IpAddr,
    /// The rule.
    pub reason: Discard,
    /// What of the message broke it, when the rule alone does not tell.
    pub subject: Option<Subject>,
}

/// What of a message broke a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A locator of the record.
    Locator(IpAddr),
    /// The Algorithm ID of the message (RFC 9301 §12.5).
    Algorithm(u8),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locator(rloc) => write!(f, "locator {rloc}"),
            Self::Algorithm(id) => match Algorithm::from_id(*id) {
                Some(algorithm) => write!(f, "algorithm {id} ({})", algorithm.name()),
                None => write!(f, "algorithm {id}"),
            },
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { site, prefix, source, reason, subject } = self;
        write!(f, "refused registration from {source}")?;
        if let Some(prefix) = prefix {
            write!(f, " of {prefix}")?;
        }
        if let Some(site) = site {
            write!(f, " (site {site})")?;
        }
        write!(f, ": {reason}")?;
        if let Some(subject) = subject {
            write!(f, ", {subject}")?;
        }
        write!(f, ": {}", reason.help())
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registered { site, prefix, source } => {
                write!(f, "{prefix} of site {site} registered by {source}")
            }
            Self::Changed { site, prefix, source } => {
                write!(f, "{prefix} of site {site} changed by {source}")
            }
            Self::Withdrawn { site, prefix, source } => {
                write!(f, "{prefix} of site {site} withdrawn by {source}")
            }
            Self::Expired { site, prefix, source } => {
                write!(f, "{prefix} of site {site} expired, not refreshed by {source}")
            }
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Name { site, name, source, change } => {
                let became = match change {
                    NameChange::Registered => "registered by",
                    NameChange::Changed => "changed by",
                    NameChange::Withdrawn => "withdrawn by",
                    NameChange::Expired => "expired, not refreshed by",
                };
                write!(f, "{name} of site {site} {became} {source}")
            }
            Self::WeakAlgorithm { site } => write!(
                f,
                "site {site} may register with HMAC-SHA-1, which is not for the public Internet (RFC 9301 §1.1)"
            ),
            Self::LooseProfile { site, profile, loosened } => {
                write!(f, "site {site} has the profile {profile}: {loosened}")
            }
            Self::LooseClient(told) => write!(f, "client {told}"),
            Self::NotRestored(Refusal { site, prefix, source, reason, .. }) => {
                let (prefix, site) = (prefix.as_ref().map(ToString::to_string), site.as_deref());
                write!(
                    f,
                    "registration of {} (site {}) by {source} was not restored: {reason}: {}",
                    prefix.as_deref().unwrap_or("an EID"),
                    site.unwrap_or("unknown"),
                    reason.help()
                )
            }
            Self::NotifyUnacknowledged { prefix, destination } => {
                write!(f, "Map-Notify about {prefix} was not acknowledged by {destination}")
            }
            Self::LookupFailed { asked, node, reason } => {
                write!(
                    f,
                    "gave up the lookup of {asked}, last at {node}: {reason}: {}",
                    reason.help()
                )
            }
            Self::Subscribed { prefix, xtr } => write!(f, "{prefix} subscribed by {xtr}"),
            Self::Unsubscribed { prefix, xtr, why } => {
                write!(f, "subscription to {prefix} by {xtr} ended: {why}")
            }
            Self::Discarded { source, reason } => {
                write!(f, "discarded message from {source}: {reason}: {}", reason.help())
            }
        }
    }
}
