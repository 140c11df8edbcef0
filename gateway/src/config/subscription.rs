//! Publish and subscribe: `xtr-id`, `site-id`, `subscribe` of `[xtr]` and `[gateway]`; `[[subscriber]]`, `[subscriptions]` and `site-id`
//! of `[[site]]` in `mapping.toml`.

use std::collections::BTreeMap;
use std::time::Duration;

use mapping::config::{Algorithm, SiteKey, Subscriber, SubscriptionLimits};
use mapping::wire::XtrIdentity;
use xtr::config::{NotifyKey, Subscribe};

use super::node::{Node, Table};
use super::{Environment, gateway::owned_text, secret, values};

/// Hexadecimal digits of 128 bits.
const XTR_ID_DIGITS: usize = 32;
/// The bounds of `lifetime`: whole minutes on the wire.
const LIFETIMES: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(86_400);

/// `xtr-id` and `site-id` of a tunnel router: both or neither.
pub(crate) fn identity(table: &Table<'_>) -> Option<XtrIdentity> {
    let (xtr_id, site_id) = (table.get("xtr-id"), table.get("site-id"));
    let lonely = match (&xtr_id, &site_id) {
        (Some(node), None) => Some((node, "site-id = 1")),
        (None, Some(node)) => Some((node, "xtr-id = \"HEXADECIMAL DIGITS\"")),
        _ => None,
    };
    if let Some((node, other)) = lonely {
        node.error("is half an identity", &format!("add {other}"));
    }
    let xtr_id = xtr_id.and_then(|node| read_xtr_id(&node));
    let site_id = site_id.and_then(|node| read_site_id(&node));
    Some(XtrIdentity { xtr_id: xtr_id?, site_id: site_id? })
}

/// `subscribe` of a tunnel router: `true`, or a table with the key of Map-Notifies. `has_key`: it has some key without.
pub(crate) fn subscribe(
    table: &Table<'_>,
    environment: &Environment,
    has_key: bool,
) -> Option<Subscribe> {
    let node = table.get("subscribe")?;
    if !table.has("xtr-id") || !table.has("site-id") {
        node.error(
            "needs a name for this router",
            "add xtr-id = \"HEXADECIMAL DIGITS\", which no other router of the Site-ID has, and site-id = 1",
        );
    }
    if !node.is_table() {
        let wanted = node.boolean()?;
        if wanted && !has_key {
            node.error(
                "has no key for Map-Notifies",
                "write subscribe = { key-id = 1, key-file = \"PATH\" }, or add lisp-sec",
            );
        }
        return wanted.then(Subscribe::default);
    }
    let own = node.table()?;
    let accept_unsubscribed = own.or("accept-unsubscribed", false, Node::boolean);
    let named = ["key-id", "key-file", "key-env", "algorithm"].iter().any(|key| own.has(key));
    let mut key = None;
    if named || !has_key {
        let key_id = own.require("key-id", "1").and_then(|node| values::octet(&node));
        let secret = secret::read(&own, "key-file", "key-env", environment);
        let algorithm = own.or("algorithm", Algorithm::HmacSha256Hkdf, values::algorithm);
        key = key_id.zip(secret).map(|(key_id, secret)| NotifyKey { key_id, secret, algorithm });
    }
    own.finish();
    Some(Subscribe { key, accept_unsubscribed })
}

/// The Site-IDs of a Map-Server's file, by the line that gave them.
#[derive(Debug, Default)]
pub(crate) struct SiteIds(BTreeMap<u64, usize>);

impl SiteIds {
    /// `site-id`, which no other section has.
    pub(crate) fn read(&mut self, node: &Node<'_>) -> Option<u64> {
        let site_id = read_site_id(node)?;
        let line = node.report().line(node.path());
        if let Some(earlier) = self.0.get(&site_id) {
            node.error(
                &format!("Site-ID {site_id} is already given in line {earlier}"),
                "give every site and subscriber its own: it chooses the key",
            );
        } else {
            self.0.insert(site_id, line);
        }
        Some(site_id)
    }
}

/// Reads every `[[subscriber]]`.
pub(crate) fn subscribers(
    root: &Table<'_>,
    environment: &Environment,
    site_ids: &mut SiteIds,
) -> Vec<Subscriber> {
    let sections = root.get("subscriber").and_then(|node| node.list()).unwrap_or_default();
    let mut subscribers = Vec::new();
    for node in &sections {
        let Some(table) = node.table() else { continue };
        let name = table.require("name", "\"NAME\"").and_then(|node| owned_text(&node));
        let site_id = table.require("site-id", "1").and_then(|node| site_ids.read(&node));
        let key_id = table.require("key-id", "1").and_then(|node| values::octet(&node));
        let secret = secret::read(&table, "key-file", "key-env", environment);
        let algorithm = table.or("algorithm", Algorithm::HmacSha256Hkdf, values::algorithm);
        let allowed_locators =
            table.get("allowed-locators").map(|n| n.list_of(values::prefix)).unwrap_or_default();
        table.finish();
        if let (Some(name), Some(site_id), Some(id), Some(secret)) = (name, site_id, key_id, secret)
        {
            let key = SiteKey { id, secret, algorithms: vec![algorithm] };
            subscribers.push(Subscriber { name, site_id, key, allowed_locators });
        }
    }
    subscribers
}

/// Reads `[subscriptions]`.
pub(crate) fn limits(root: &Table<'_>) -> SubscriptionLimits {
    let mut limits = SubscriptionLimits::default();
    if let Some(table) = root.get("subscriptions").and_then(|node| node.table()) {
        limits.max = table.or("max", limits.max, |node| {
            node.integer(0..=10_000_000).and_then(|value| usize::try_from(value).ok())
        });
        limits.lifetime =
            table.or("lifetime", limits.lifetime, |node| values::duration(node, LIFETIMES));
        limits.notifies_per_second =
            table.or("notifies-per-second", limits.notifies_per_second, |node| {
                node.integer(1..=1_000_000).and_then(|value| u32::try_from(value).ok())
            });
        table.finish();
    }
    limits
}

fn read_site_id(node: &Node<'_>) -> Option<u64> {
    node.integer(1..=i64::MAX).and_then(|value| u64::try_from(value).ok())
}

/// 1 to 32 hexadecimal digits; hyphens as in a UUID are skipped.
fn read_xtr_id(node: &Node<'_>) -> Option<u128> {
    let digits = node.text()?.replace('-', "");
    let hexadecimal = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let value = u128::from_str_radix(&digits, 16).ok();
    if !hexadecimal || digits.len() > XTR_ID_DIGITS || value.is_none() {
        node.error(
            "is no xTR-ID",
            "write up to 32 hexadecimal digits, such as those of /etc/machine-id",
        );
        return None;
    }
    value
}
