//! This host's interfaces and addresses, as far as a configuration refers to them.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;

/// The interfaces and addresses of a host at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    interfaces: BTreeSet<String>,
    addresses: Vec<(String, IpAddr)>,
    /// Interfaces that carry no Ethernet frames.
    not_ethernet: BTreeSet<String>,
    /// CPUs on-line; none if that is not known.
    cpus: BTreeSet<usize>,
}

impl Host {
    /// A host with these (interface, address) pairs.
    pub fn new(addresses: impl IntoIterator<Item = (String, IpAddr)>) -> Self {
        let addresses: Vec<_> = addresses.into_iter().collect();
        let interfaces = addresses.iter().map(|(name, _)| name.clone()).collect();
        Self { interfaces, addresses, ..Self::default() }
    }

    /// This host, in this network namespace, now.
    pub fn read() -> io::Result<Self> {
        let mut host = Self::default();
        for entry in getifaddrs()? {
            host.interfaces.insert(entry.interface_name.clone());
            let Some(address) = entry.address else { continue };
            let v4 = address.as_sockaddr_in().map(|a| IpAddr::V4(a.ip()));
            let v6 = || address.as_sockaddr_in6().map(|a| IpAddr::V6(a.ip()));
            if let Some(address) = v4.or_else(v6) {
                host.addresses.push((entry.interface_name, address));
            }
        }
        host.not_ethernet =
            host.interfaces.iter().filter(|name| !carries_ethernet(name)).cloned().collect();
        let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
        host.cpus = numbers(&online);
        Ok(host)
    }

    /// Whether this CPU is on-line, as far as that is known.
    pub fn has_cpu(&self, cpu: usize) -> bool {
        self.cpus.is_empty() || self.cpus.contains(&cpu)
    }

    /// Whether an interface carries Ethernet frames, as far as that is known.
    pub fn is_ethernet(&self, interface: &str) -> bool {
        !self.not_ethernet.contains(interface)
    }

    /// Whether `address` is one of this host's; all of 127.0.0.0/8 is, listed or not.
    pub fn has_address(&self, address: IpAddr) -> bool {
        let loopback = address.is_ipv4() && address.is_loopback();
        loopback || self.addresses.iter().any(|&(_, own)| own == address)
    }

    /// Whether there is an interface of this name.
    pub fn has_interface(&self, name: &str) -> bool {
        self.interfaces.contains(name)
    }

    /// The names of all interfaces.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        self.interfaces.iter().map(String::as_str)
    }

    /// The addresses of `interface` that can be locators, in the kernel's order.
    pub fn locators_of(&self, interface: &str) -> impl Iterator<Item = IpAddr> {
        self.addresses
            .iter()
            .filter(move |(name, address)| name == interface && !is_local_only(*address))
            .map(|&(_, address)| address)
    }
}

/// By the kernel's ARPHRD number; what it does not say counts as Ethernet.
fn carries_ethernet(interface: &str) -> bool {
    const ARPHRD_ETHER: &str = "1";
    let kind = std::fs::read_to_string(format!("/sys/class/net/{interface}/type"));
    kind.map_or(true, |kind| kind.trim() == ARPHRD_ETHER)
}

/// A list as the kernel writes it: `0-3,8`.
fn numbers(list: &str) -> BTreeSet<usize> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

fn is_local_only(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => a.is_link_local() || a.is_loopback(),
        IpAddr::V6(a) => a.is_unicast_link_local() || a.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_has_loopback() {
        let host = Host::read().expect("getifaddrs");
        assert!(host.has_interface("lo"), "{host:?}");
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(numbers("0-2,8\n").into_iter().collect::<Vec<_>>(), [0, 1, 2, 8]);
        assert!(numbers("").is_empty());
        let host = Host::read().expect("getifaddrs");
        assert!(!host.has_cpu(100_000) && !host.is_ethernet("lo"), "{host:?}");
    }

    #[test]
    fn link_local_addresses_are_no_locators() {
        let host = Host::new(
            ["fe80::1", "2001:db8::1", "169.254.1.1", "198.51.100.1"]
                .map(|text| ("eth1".to_owned(), text.parse().expect("address"))),
        );
        let found: Vec<String> = host.locators_of("eth1").map(|a| a.to_string()).collect();
        assert_eq!(found, ["2001:db8::1", "198.51.100.1"]);
    }
}
