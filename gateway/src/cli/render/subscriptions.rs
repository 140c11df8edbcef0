//! `show subscriptions` of a Map-Server, and of a tunnel router.

use ::mapping::view::SubscriptionView;
use ::xtr::view::OwnSubscriptionView;

use super::super::columns::Align::{Left, Right};
use super::super::columns::{clock, clock_or, table};
use super::in_instance;

/// Who subscribed to what.
pub(super) fn of_others(subscriptions: &[SubscriptionView]) -> String {
    if subscriptions.is_empty() {
        return "No subscription.\n".to_owned();
    }
    let header = [
        ("EID-prefix", Left),
        ("xTR-ID", Left),
        ("Site-ID", Right),
        ("Subscriber", Left),
        ("Since", Right),
        ("Ends", Right),
        ("Nonce", Right),
        ("Unacked", Right),
        ("ITR-RLOCs", Left),
    ];
    let row = |subscription: &SubscriptionView| {
        let rlocs: Vec<String> = subscription.itr_rlocs.iter().map(ToString::to_string).collect();
        vec![
            subscription.prefix.to_string(),
            subscription.xtr_id.clone(),
            subscription.site_id.to_string(),
            subscription.subscriber.clone().unwrap_or_else(|| "-".to_owned()),
            clock(subscription.since_seconds),
            clock_or(subscription.ends_seconds, "never"),
            subscription.nonce.clone(),
            subscription.unacknowledged.to_string(),
            if subscription.muted { "muted".to_owned() } else { rlocs.join(", ") },
        ]
    };
    table(0, &header, &subscriptions.iter().map(row).collect::<Vec<_>>())
}

/// What this router subscribed to.
pub(super) fn own(subscriptions: &[OwnSubscriptionView]) -> String {
    let header = [
        ("EID-prefix", Left),
        ("State", Left),
        ("Map-Server", Left),
        ("Since", Right),
        ("Renewal", Right),
        ("Nonce", Right),
        ("Publications", Right),
    ];
    let row = |subscription: &OwnSubscriptionView| {
        vec![
            in_instance(subscription.instance_id, subscription.prefix),
            subscription.state.name().to_owned(),
            subscription.map_server.map_or_else(|| "-".to_owned(), |address| address.to_string()),
            clock(subscription.since_seconds),
            clock(subscription.renewal_seconds),
            subscription.nonce.clone(),
            subscription.publications.to_string(),
        ]
    };
    table(0, &header, &subscriptions.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use ::mapping::eid::{EidPrefix, InstanceId};
    use ::xtr::view::SubscriptionState;

    use super::*;

    #[test]
    fn subscriptions_are_a_table_in_both_roles() {
        assert_eq!(of_others(&[]), "No subscription.\n");
        let prefix: ipnet::IpNet = "10.1.0.0/16".parse().unwrap();
        let text = of_others(&[SubscriptionView {
            prefix: EidPrefix::new(InstanceId::DEFAULT, prefix),
            xtr_id: "ab".to_owned(),
            site_id: 7,
            subscriber: Some("pitr".to_owned()),
            itr_rlocs: vec!["192.0.2.3".parse().unwrap()],
            since_seconds: 61,
            ends_seconds: None,
            nonce: "33".to_owned(),
            unacknowledged: 1,
            muted: false,
        }]);
        let row = text.lines().nth(1).unwrap();
        for part in ["10.1.0.0/16", "ab", "7", "pitr", "never", "33", "192.0.2.3"] {
            assert!(row.contains(part), "{part} in {row}");
        }
        let text = own(&[OwnSubscriptionView {
            prefix,
            instance_id: 5,
            state: SubscriptionState::Temporary,
            map_server: None,
            since_seconds: 1,
            renewal_seconds: 2,
            nonce: "44".to_owned(),
            publications: 3,
        }]);
        let row = text.lines().nth(1).unwrap();
        assert!(row.starts_with("[5]10.1.0.0/16") && row.contains("temporary"), "{row}");
    }
}
