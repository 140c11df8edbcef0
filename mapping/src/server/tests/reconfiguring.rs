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
fn what_is_registered_stays_when_sites_come_and_change_places() {
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
