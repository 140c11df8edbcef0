//! `data.trusted-core`: what LISP headers say beside the instance, in networks where everybody is trusted (RFC 9300 §16).

use std::time::Duration;

use mapping::eid::MapVersion;
use mapping::timers;
use xtr::config::{Role, TrustedCore};

use super::node::{Node, Table};
use super::values;

/// The bounds of `use-lsb-timer`.
const USE_LSB_TIMERS: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(3600);

/// `{ rlocs, map-versioning, locator-status-bits, echo-nonce, use-lsb-timer }`.
pub(crate) fn read(node: &Node<'_>, role: Role) -> Option<TrustedCore> {
    let table = node.table()?;
    let rlocs = table
        .require("rlocs", "[\"ADDRESS/LENGTH\"]: the RLOCs of the trusted core")
        .map(|node| node.list_of(trusted_rlocs))
        .unwrap_or_default();
    let is_on = |key: &'static str| table.or(key, false, Node::boolean);
    let core = TrustedCore {
        rlocs,
        map_versioning: is_on("map-versioning"),
        status_bits: is_on("locator-status-bits"),
        echo_nonce: is_on("echo-nonce"),
        use_lsb_timer: table.or("use-lsb-timer", timers::USE_LSB_TIMER, |node| {
            values::duration(node, USE_LSB_TIMERS)
        }),
        ..TrustedCore::default()
    };
    if !core.map_versioning && !core.status_bits && !core.echo_nonce {
        table.error(
            "nothing is turned on",
            "write map-versioning, locator-status-bits or echo-nonce = true, or leave it out",
        );
    }
    if role == Role::Proxy
        && core.echo_nonce
        && let Some(node) = table.get("echo-nonce")
    {
        node.error(
            "a gateway has no site whose return traffic could echo nonces",
            "leave it out; RLOC-probing says what is reachable",
        );
    }
    if let Some(node) = table.get("use-lsb-timer") {
        if role == Role::Proxy {
            node.error(
                "a gateway has no site whose locators it could tell of",
                "leave it out: it is for tunnel routers of a site",
            );
        } else if !core.status_bits {
            node.error("there are no Locator-Status-Bits", "add locator-status-bits = true");
        }
    }
    table.finish();
    node.warning(
        "RLOCs in these prefixes are believed: never over the public Internet (RFC 9300 §16)",
    );
    Some(core)
}

fn trusted_rlocs(node: &Node<'_>) -> Option<ipnet::IpNet> {
    let prefix = values::prefix(node)?;
    if prefix.prefix_len() == 0 {
        node.error(
            &format!("{prefix} is the public Internet, which cannot be trusted"),
            "name the prefixes that the RLOCs of the core are in (RFC 9300 §16)",
        );
        return None;
    }
    Some(prefix)
}

/// With merged registrations neither the ordinals nor the version of the site's mapping are known to any of its tunnel routers.
pub(crate) fn check_merge(root: &Table<'_>, core: Option<&TrustedCore>, merge: bool) {
    let data = root.get("data").and_then(|node| node.table());
    if let Some(place) = data.as_ref().and_then(|data| data.get("trusted-core"))
        && merge
        && core.is_some_and(|core| core.status_bits || core.map_versioning)
    {
        place.error(
            "with merge = true neither the version nor the ordinals of the site's mapping are known here",
            "leave out map-versioning and locator-status-bits",
        );
    }
}

/// What `eid.map-version` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Versions {
    /// Nothing: there is no Map-Versioning.
    Off,
    /// The first one; those after it are kept.
    Kept,
    /// The one to begin with at every start.
    Needed,
}

impl Versions {
    /// `table` is `[xtr]`.
    pub(crate) fn new(core: Option<&TrustedCore>, table: Option<&Table<'_>>) -> Self {
        match core.is_some_and(|core| core.map_versioning) {
            false => Self::Off,
            true if table.is_some_and(|table| table.has("state-dir")) => Self::Kept,
            true => Self::Needed,
        }
    }

    /// `map-version` of an `[[eid]]` section.
    pub(crate) fn read(self, eid: &Table<'_>) -> Option<MapVersion> {
        let node = eid.get("map-version");
        match (node, self) {
            (Some(node), Self::Off) => node.error(
                "there is no Map-Versioning",
                "add data.trusted-core with map-versioning = true",
            ),
            (Some(node), _) => {
                let number = node.integer(1..=i64::from(MapVersion::MAX))?;
                return u16::try_from(number).ok().map(MapVersion::from_bits);
            }
            (None, Self::Needed) => eid.error(
                "after a restart its Map-Version would be another one, and packets with the one before dropped",
                "add xtr.state-dir; or write map-version here, and a higher one with every change of the locators",
            ),
            (None, _) => {}
        }
        None
    }
}
