//! Who may ask, and what is relaxed for whom (MR-08, MR-09).

use std::net::IpAddr;

use ipnet::IpNet;
use prefix_trie::joint::map::JointPrefixMap;

use crate::config::{Client, Profile};
use crate::wire::Tolerance;

/// The configured clients; without any, everybody may ask by the rules of RFC 9301.
#[derive(Debug, Default)]
pub(crate) struct Clients {
    table: JointPrefixMap<IpNet, Client>,
    restricted: bool,
}

impl Clients {
    pub(crate) fn new(clients: Vec<Client>) -> Self {
        let restricted = !clients.is_empty();
        let table = clients.into_iter().map(|client| (client.prefix.trunc(), client)).collect();
        Self { table, restricted }
    }

    /// Whether a lookup from `source` is answered (MR-08).
    pub(crate) fn admit(&self, source: IpAddr) -> bool {
        !self.restricted || self.find(source).is_some()
    }

    /// Whether a Map-Request outside an ECM counts as a lookup (MR-09).
    pub(crate) fn admit_plain(&self, source: IpAddr) -> bool {
        self.restricted && self.find(source).is_some_and(|client| client.plain_map_requests)
    }

    /// What the parser is told before it reads a message from `source`.
    pub(crate) fn tolerance(&self, source: IpAddr) -> Tolerance {
        let lispers_net = self.restricted
            && self.find(source).is_some_and(|client| client.profile == Profile::LispersNet);
        if lispers_net { Tolerance::LISPERS_NET } else { Tolerance::default() }
    }

    /// Who is put up with, and what of it.
    pub(crate) fn loosened(&self) -> Vec<String> {
        let told = |(_, client): (IpNet, &Client)| {
            let (prefix, profile) = (client.prefix, client.profile.name());
            let loosened = client.loosened()?;
            Some(format!("{prefix} has the profile {profile}: {loosened}"))
        };
        self.table.iter().filter_map(told).collect()
    }

    fn find(&self, source: IpAddr) -> Option<&Client> {
        self.table.get_lpm(&IpNet::from(source.to_canonical())).map(|(_, client)| client)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(prefix: &str, profile: Profile) -> Client {
        Client { prefix: prefix.parse().unwrap(), profile, plain_map_requests: false }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn mr_08_the_longest_prefix_tells_who_a_client_is() {
        let everybody = Clients::default();
        assert!(everybody.admit(ip("192.0.2.1")) && !everybody.admit_plain(ip("192.0.2.1")));
        let clients = Clients::new(vec![
            client("198.51.100.0/24", Profile::Rfc9301),
            client("198.51.100.7/32", Profile::LispersNet),
            client("2001:db8::/32", Profile::Oor),
        ]);
        assert!(clients.admit(ip("198.51.100.200")) && clients.admit(ip("2001:db8::1")));
        assert!(!clients.admit(ip("192.0.2.1")) && !clients.admit(ip("2001:db9::1")));
        assert!(clients.tolerance(ip("198.51.100.7")).zero_inner_checksum);
        assert!(!clients.tolerance(ip("198.51.100.8")).zero_inner_checksum);
    }
}
