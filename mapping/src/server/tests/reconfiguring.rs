//! Another configuration while registrations are there.

use super::*;

impl Bench {
    fn reconfigure(&mut self, config: MappingConfig) {
        self.server.reconfigure(self.now, config);
    }
}

fn edited(edit: impl FnOnce(&mut MappingConfig)) -> MappingConfig {
    let mut config = config();
    edit(&mut config);
    config
}

fn revoked(bench: &mut Bench) -> Vec<String> {
    let events = bench.events();
    events.iter().filter(|e| matches!(e, Event::Revoked(_))).map(ToString::to_string).collect()
}

#[test]
fn op_03_what_is_registered_stays_when_sites_come_and_change_places() {
    let mut bench = Bench::new();
    bench.register(&register(5, vec![record("10.9.0.0/16", &[ETR])]));
    bench.register(&register(6, vec![record("10.1.7.0/24", &[ETR])]));
    let site = |name: &str, text: &str| {
        let prefix = SitePrefix { prefix: eid_prefix(text), accept_more_specifics: false };
        Site::new(name, vec![key(1, "secret-c")], vec![prefix])
    };
    bench.reconfigure(edited(|config| {
        config.sites.swap(0, 1);
        config.sites.insert(0, site("c", "10.3.0.0/16"));
    }));
    assert_eq!(bench.prefixes(), ["10.1.7.0/24", "10.9.0.0/16"]);
    let views = bench.server.sites_view(bench.now);
    let names: Vec<_> = views.iter().map(|site| (&*site.name, site.registered)).collect();
    assert_eq!(names, [("c", 0), ("b", 0), ("a", 2)], "in the order of the configuration");
    // The new site registers, the old one goes on with its nonces.
    let new = register(1, vec![record("10.3.0.0/16", &[OTHER_ETR])]);
    assert_eq!(bench.register(&new.signed_by("secret-c").from(OTHER_ETR)).len(), 1);
    assert!(bench.register(&register(5, vec![record("10.9.0.0/16", &[OTHER_ETR])])).is_empty());
    assert_eq!(bench.discarded(Discard::Replayed), 1);
    assert_eq!(bench.register(&register(7, vec![record("10.9.0.0/16", &[ETR])])).len(), 1);
}

#[test]
fn ms_01_what_is_allowed_no_longer_ends_and_comes_back_with_its_site() {
    let mut bench = Bench::new();
    bench.register(&register(5, vec![record("10.9.0.0/16", &[ETR])]));
    bench.register(&register(6, vec![record("10.1.7.0/24", &[ETR])]));
    bench.events();
    bench.reconfigure(edited(|config| {
        config.sites[0].eid_prefixes[0].accept_more_specifics = false;
    }));
    assert_eq!(bench.prefixes(), ["10.9.0.0/16"]);
    let told = revoked(&mut bench);
    assert!(told.len() == 1 && told[0].contains("10.1.7.0/24 (site a)"), "{told:?}");
    bench.reconfigure(edited(|config| drop(config.sites.remove(0))));
    assert!(bench.prefixes().is_empty() && bench.server.sites_view(bench.now).len() == 1);
    assert_eq!(bench.server.get(Count::Revoked), 2);
    assert!(bench.register(&register(7, vec![record("10.9.0.0/16", &[ETR])])).is_empty());
    assert_eq!(bench.reply_to(1, "10.9.0.1/32")[0].locators.len(), 0, "nobody's now");
    bench.reconfigure(config());
    let again = register(6, vec![record("10.9.0.0/16", &[ETR])]);
    assert!(bench.register(&again).is_empty(), "AU-16: its nonces were not forgotten");
    assert_eq!(bench.register(&register(8, vec![record("10.9.0.0/16", &[ETR])])).len(), 1);
}

#[test]
fn ms_13_a_site_that_is_shut_down_loses_its_registrations() {
    let mut bench = Bench::new();
    bench.register(&register(5, vec![record("10.9.0.0/16", &[ETR])]));
    bench.reconfigure(edited(|config| config.sites[0].admin_down = true));
    assert!(bench.prefixes().is_empty());
    assert!(bench.register(&register(6, vec![record("10.9.0.0/16", &[ETR])])).is_empty());
    assert_eq!(bench.discarded(Discard::SiteDown), 1);
}

#[test]
fn au_09_a_key_is_replaced_while_its_site_is_registered() {
    let mut bench = Bench::new();
    bench.register(&register(5, vec![record("10.9.0.0/16", &[ETR])]));
    bench.reconfigure(edited(|config| config.sites[0].keys[0] = key(1, "secret-new")));
    assert_eq!(bench.prefixes(), ["10.9.0.0/16"]);
    assert!(bench.register(&register(6, vec![record("10.9.0.0/16", &[ETR])])).is_empty());
    assert_eq!(bench.discarded(Discard::AuthenticationFailed), 1);
    let new = register(6, vec![record("10.9.0.0/16", &[ETR])]).signed_by("secret-new");
    assert_eq!(bench.register(&new).len(), 1);
    // And one that is gone altogether: what it signed lives until it expires.
    bench.reconfigure(edited(|config| drop(config.sites[0].keys.remove(0))));
    assert_eq!(bench.prefixes(), ["10.9.0.0/16"]);
    assert!(bench.register(&new.edit(|message| message.nonce = 7)).is_empty());
    assert_eq!(bench.discarded(Discard::KeyUnknown), 1);
}

#[test]
fn mr_08_clients_and_timeouts_are_those_configured_last() {
    let mut bench = Bench::new();
    bench.register(&register(5, vec![record("10.9.0.0/16", &[ETR])]));
    let prefix = "192.0.2.0/24".parse().unwrap();
    let client = crate::config::Client {
        prefix,
        profile: crate::config::Profile::default(),
        plain_map_requests: false,
    };
    bench.reconfigure(edited(|config| {
        config.clients = vec![client];
        config.registration_timeout = Duration::from_secs(10);
    }));
    assert!(bench.ask_for(1, "10.9.0.1/32").is_empty(), "not a client any more");
    bench.reconfigure(edited(|config| config.registration_timeout = Duration::from_secs(10)));
    assert_eq!(bench.reply_to(2, "10.9.0.1/32")[0].locators.len(), 1);
    bench.register(&register(6, vec![record("10.9.0.0/16", &[ETR])]));
    bench.advance(12);
    assert!(bench.prefixes().is_empty(), "the refresh had the new timeout");
}

/// As many registrations of site `a` as take several turns to review: /28s of 10.1.0.0/16, and 10.9.0.0/16.
fn crowded(parts: u32) -> Bench {
    let mut bench = Bench::new();
    let parts: Vec<EidRecord> = (0..parts).map(|number| record(&part(number), &[ETR])).collect();
    for (nonce, records) in (1..).zip(parts.chunks(16)) {
        assert_eq!(bench.register(&register(nonce, records.to_vec())).len(), 1);
        bench.now += Duration::from_millis(10);
    }
    bench.register(&register(10_000, vec![record("10.9.0.0/16", &[ETR])]));
    bench.events();
    bench
}

fn part(number: u32) -> String {
    let [.., third, fourth] = (number << 4).to_be_bytes();
    format!("10.1.{third}.{fourth}/28")
}

fn exactly() -> MappingConfig {
    edited(|config| {
        for site in &mut config.sites {
            site.eid_prefixes[0].accept_more_specifics = false;
        }
    })
}

#[test]
fn ms_01_many_registrations_are_reviewed_some_at_a_time() {
    let mut bench = crowded(4_000);
    bench.reconfigure(exactly());
    let mut turns = 0;
    while let Some(at) = bench.server.poll_timeout().filter(|at| *at <= bench.now) {
        assert!(at <= bench.now);
        let before = bench.server.registry.len();
        bench.server.handle_timeout(bench.now);
        assert!(before - bench.server.registry.len() <= 512, "a turn takes no longer");
        turns += 1;
        bench.events();
    }
    assert!(turns > 4, "{turns} turns");
    assert_eq!(bench.prefixes(), ["10.9.0.0/16"]);
    assert_eq!(bench.server.get(Count::Revoked), 4_000);
}

#[test]
fn ms_13_what_is_not_reviewed_yet_is_not_told() {
    let mut bench = crowded(4_000);
    let last = part(3_999);
    bench.reconfigure(exactly());
    assert!(bench.server.registry.get(&eid_prefix(&last)).is_some(), "not its turn yet");
    assert!(bench.reply_to(1, &last)[0].locators.is_empty(), "it has no mapping any more");
    assert!(bench.server.registry.get(&eid_prefix(&last)).is_none());
    // A prefix around many of them, and what may stay.
    for asked in ["10.1.0.0/16", "10.1.240.0/20"] {
        assert!(bench.reply_to(2, asked).iter().all(|told| told.locators.is_empty()), "{asked}");
    }
    assert_eq!(bench.reply_to(3, "10.9.0.1/32")[0].locators.len(), 1);
    assert!(bench.server.registry.len() > 1_000, "most wait for their turn still");
}

#[test]
fn ms_02_messages_are_judged_by_the_new_rules_while_the_old_ones_are_reviewed() {
    let mut bench = crowded(2_000);
    bench.reconfigure(exactly());
    let refused = register(10_001, vec![record(&part(1_999), &[ETR])]);
    assert!(bench.register(&refused).is_empty());
    assert_eq!(bench.discarded(Discard::MoreSpecificRefused), 1);
    let accepted = register(10_002, vec![record("10.1.0.0/16", &[ETR])]);
    assert_eq!(bench.register(&accepted).len(), 1);
    bench.advance(1);
    assert_eq!(bench.prefixes(), ["10.1.0.0/16", "10.9.0.0/16"]);
    // The review begins anew when the rules change meanwhile.
    let mut bench = crowded(2_000);
    bench.reconfigure(exactly());
    bench.reconfigure(config());
    let left = bench.server.registry.len();
    bench.advance(1);
    assert!(left > 1_000 && bench.server.registry.len() == left, "the rest may stay again");
}

#[test]
fn au_09_a_key_that_moves_to_another_place_is_found_before_the_review_comes_by() {
    let mut bench = crowded(2_000);
    let second = register(10_001, vec![record("10.1.255.0/24", &[ETR])]);
    let second = second.signed_by("secret-a2").edit(|message| {
        message.authentication.key_id = 2;
    });
    assert_eq!(bench.register(&second).len(), 1);
    bench.reconfigure(edited(|config| drop(config.sites[0].keys.remove(0))));
    let taken = register(1, vec![record("10.1.255.0/24", &[OTHER_ETR])]);
    let sent = bench.register(&taken.signed_by("secret-b").from(OTHER_ETR));
    let told = sent.iter().find(|sent| sent.destination.ip() == ip(ETR)).expect("it is told");
    assert_eq!(notify(told).authentication.key_id, 2);
    let secret = Secret::new(b"secret-a2".to_vec());
    let algorithms = [Algorithm::HmacSha256Hkdf];
    assert!(auth::verify(&told.payload, &secret, &algorithms).is_ok());
}
