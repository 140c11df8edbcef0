//! The configuration files of the scenario's routers and of its Map-Server.

use std::net::IpAddr;
use std::path::PathBuf;

use super::plan::{GATEWAY, MS, TENANT, XTR};
use crate::lab::network::Network;
use crate::lab::topology::SITE_LINK;

/// The station address of the default gateway in both data centres.
pub(super) const GATEWAY_STATION: [u8; 6] = [0, 0, 0x5e, 0, 1, 1];
/// The dynamic-EID ranges, IPv4 and IPv6; at home in the first data centre.
pub(super) const RANGES: [&str; 2] = ["172.16.4.0/24", "2001:db8:e004::/64"];
/// What is at home in the second.
pub(super) const SECOND: [&str; 2] = ["172.16.9.0/24", "2001:db8:e009::/64"];
/// What site P registers as a whole.
pub(super) const WHOLE: [&str; 2] = ["172.16.20.0/24", "2001:db8:e014::/64"];
/// The EID-prefixes of the client's site, and of the other tenant's client.
pub(super) const CLIENTS: [&str; 2] = ["192.168.1.0/24", "2001:db8:e00c::/64"];
pub(super) const OF_D: [&str; 2] = ["192.168.2.0/24", "2001:db8:e00d::/64"];
pub(super) const OF_E: [&str; 2] = ["192.168.3.0/24", "2001:db8:e00e::/64"];
/// EID-prefixes that are registered when the network is up.
pub(super) const REGISTRATIONS: usize = 16;
/// The Site-ID of the subscriber.
const SITE_ID: u64 = 5;

/// The Map-Server's sites.
pub(super) const SITES: [&str; 6] = ["c", "dc", "d", "e", "p", "tenant"];

/// The directory that the sites' keys are in.
#[derive(Clone, Debug)]
pub(super) struct Keys(PathBuf);

impl Keys {
    pub(super) fn of(network: &Network) -> Self {
        Self(network.directory().to_owned())
    }

    fn of_site(&self, site: &str) -> String {
        self.0.join(format!("site-{site}.key")).display().to_string()
    }
}

/// A tunnel router.
pub(super) struct Router<'a> {
    pub(super) name: &'a str,
    /// Its locators, each with its name.
    pub(super) rlocs: &'a [(&'a str, IpAddr)],
    /// Which of them its EID-prefixes have; all without a name.
    pub(super) locator_set: Option<&'a str>,
    pub(super) site: &'a str,
    pub(super) prefixes: [&'a str; 2],
    pub(super) instance_id: u32,
    pub(super) subscribes: bool,
}

impl<'a> Router<'a> {
    /// With one locator, in instance 0.
    pub(super) fn new(
        name: &'a str,
        rlocs: &'a [(&'a str, IpAddr)],
        site: &'a str,
        prefixes: [&'a str; 2],
    ) -> Self {
        let (locator_set, instance_id, subscribes) = (None, 0, false);
        Self { name, rlocs, locator_set, site, prefixes, instance_id, subscribes }
    }

    pub(super) fn text(&self, keys: &Keys) -> String {
        let named =
            |(name, address): &(&str, IpAddr)| format!("{name} = {{ address = \"{address}\" }}");
        let rlocs: Vec<String> = self.rlocs.iter().map(named).collect();
        let mut text = format!(
            "[xtr]\nname = \"{}\"\nrlocs = {{ {} }}\n\
             map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{}\" }}]\n\
             map-resolvers = [\"{MS}\"]\nregistration-interval = \"10s\"\ntun = {{ queues = 1 }}\n",
            self.name,
            rlocs.join(", "),
            keys.of_site(self.site)
        );
        if self.subscribes {
            text.push_str(&format!("xtr-id = \"e1\"\nsite-id = {SITE_ID}\nsubscribe = true\n"));
        }
        for prefix in self.prefixes {
            text.push_str(&format!(
                "\n[[eid]]\nprefix = \"{prefix}\"\ninstance-id = {}\ninterfaces = [\"{SITE_LINK}\"]\n",
                self.instance_id
            ));
            if let Some(name) = self.locator_set {
                text.push_str(&format!("locator-set = \"{name}\"\n"));
            }
        }
        text
    }
}

/// The router of a data centre; `leases` is the file of its DHCP server, `extended` says that the subnet reaches the other one.
pub(super) fn data_centre(keys: &Keys, at: usize, leases: &str, extended: bool) -> String {
    let (name, prefixes) = [("xtr-1", RANGES), ("xtr-2", SECOND)][at];
    let rlocs = [("core", XTR[at])];
    let mut text = Router::new(name, &rlocs, "dc", prefixes).text(keys);
    for (range, gateway) in RANGES.iter().zip(GATEWAY) {
        text.push_str(&format!(
            "\n[[dynamic-eid]]\nrange = \"{range}\"\ninterfaces = [\"{SITE_LINK}\"]\ntimeout = \"3s\"\n\
             extended-subnet = {extended}\nleases = \"{leases}\"\n\
             gateway = {{ mac = \"00:00:5e:00:01:01\", addresses = [\"{gateway}\"] }}\n"
        ));
    }
    text
}

/// The Map-Server's.
pub(super) fn map_server(keys: &Keys) -> String {
    let plain = |prefixes: &[[&str; 2]], more: &str| {
        let prefixes = prefixes.iter().flatten();
        let listed = prefixes.map(|prefix| format!("{{ prefix = \"{prefix}\"{more} }}"));
        listed.collect::<Vec<_>>().join(", ")
    };
    let data_centres =
        [plain(&[RANGES], ", accept-more-specifics = true"), plain(&[SECOND], "")].join(", ");
    let mut text = format!("[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n");
    for (site, prefixes) in SITES.into_iter().zip([
        plain(&[CLIENTS], ""),
        data_centres,
        plain(&[OF_D], ""),
        plain(&[OF_E], ""),
        plain(&[WHOLE], ""),
        plain(&[RANGES, CLIENTS], &format!(", instance-id = {TENANT}")),
    ]) {
        text.push_str(&format!(
            "\n[[site]]\nname = \"{site}\"\nkeys = [{{ id = 1, file = \"{}\" }}]\neid-prefixes = [{prefixes}]\n",
            keys.of_site(site)
        ));
        if site == "e" {
            text.push_str(&format!("site-id = {SITE_ID}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config;
    use crate::lab::scenarios::mobility::plan::{P, XTR_E, XTR_T};

    #[test]
    fn every_file_passes_the_products_own_check() {
        let directory = tempfile::tempdir().unwrap();
        for site in SITES {
            let key = directory.path().join(format!("site-{site}.key"));
            fs::write(&key, "0123456789abcdef").unwrap();
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        }
        let keys = Keys(directory.path().to_owned());
        let subscriber =
            Router { subscribes: true, ..Router::new("xtr-e", &[("core", XTR_E)], "e", OF_E) };
        let tenant = Router {
            instance_id: TENANT,
            ..Router::new("xtr-t", &[("core", XTR_T)], "tenant", RANGES)
        };
        let whole = [("dc1", P[0]), ("dc2", P[1])];
        let whole = Router { locator_set: Some("dc2"), ..Router::new("xtr-p", &whole, "p", WHOLE) };
        for text in [
            map_server(&keys),
            subscriber.text(&keys),
            tenant.text(&keys),
            whole.text(&keys),
            data_centre(&keys, 0, "/tmp/dc1.leases", false),
            data_centre(&keys, 1, "/tmp/dc2.leases", true),
        ] {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }
}
