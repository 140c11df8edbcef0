//! A set of prefixes that the data plane asks per packet: no allocation, no pointers to chase.
use ipnet::IpNet;
use std::net::IpAddr;

/// A set of addresses given by prefixes, kept as sorted ranges that do not touch each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixSet {
    v4: Box<[(u32, u32)]>,
    v6: Box<[(u128, u128)]>,
}

impl PrefixSet {
    /// Whether `address` lies in any of the prefixes: a binary search over the ranges of its family.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => in_ranges(&self.v4, address.to_bits()),
            IpAddr::V6(address) => in_ranges(&self.v6, address.to_bits()),
        }
    }

    /// The widest of the prefixes that contains `address`.
    pub fn covering(&self, address: IpAddr) -> Option<IpNet> {
        let len = match address {
            IpAddr::V4(address) => {
                let (first, last) = range(&self.v4, address.to_bits())?;
                (first ^ last).leading_zeros()
            }
            IpAddr::V6(address) => {
                let (first, last) = range(&self.v6, address.to_bits())?;
                (first ^ last).leading_zeros()
            }
        };
        IpNet::new(address, u8::try_from(len).ok()?).ok().map(|net| net.trunc())
    }

    /// Whether there is no prefix at all.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl FromIterator<IpNet> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(prefixes: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix {
                IpNet::V4(p) => v4.push((p.network().to_bits(), p.broadcast().to_bits())),
                IpNet::V6(p) => v6.push((p.network().to_bits(), p.broadcast().to_bits())),
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }
}

fn in_ranges<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> bool {
    range(ranges, value).is_some()
}

/// Each range is one of the prefixes.
fn range<T: Ord + Copy>(ranges: &[(T, T)], value: T) -> Option<(T, T)> {
    let after = ranges.partition_point(|&(first, _)| first <= value);
    after.checked_sub(1).map(|at| ranges[at]).filter(|&(_, last)| value <= last)
}

/// Prefixes nest or are disjoint, so a range that starts inside the one before also ends there.
fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Box<[(T, T)]> {
    ranges.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for range in ranges {
        if kept.last().is_none_or(|last| range.0 > last.1) {
            kept.push(range);
        }
    }
    kept.into_boxed_slice()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn empty_set_contains_nothing() {
        let set = PrefixSet::default();
        assert!(set.is_empty());
        assert!(!set.contains("192.0.2.1".parse().unwrap()));
        assert!(!set.contains("::".parse().unwrap()));
    }

    #[test]
    fn edges_of_a_prefix() {
        let set: PrefixSet = ["203.0.113.64/26", "2001:db8:e000::/36"]
            .map(|text| text.parse::<IpNet>().unwrap())
            .into_iter()
            .collect();
        for (address, inside) in [
            ("203.0.113.63", false),
            ("203.0.113.64", true),
            ("203.0.113.127", true),
            ("203.0.113.128", false),
            ("2001:db8:dfff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db8:e000::", true),
            ("2001:db8:efff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db8:f000::", false),
        ] {
            assert_eq!(set.contains(address.parse().unwrap()), inside, "{address}");
        }
    }

    #[test]
    fn the_widest_prefix_is_named() {
        let texts =
            ["203.0.113.64/26", "203.0.113.128/26", "203.0.113.64/28", "2001:db8::/36", "::/0"];
        let set: PrefixSet = texts.map(|text| text.parse::<IpNet>().unwrap()).into_iter().collect();
        for (address, prefix) in [
            ("203.0.113.65", Some("203.0.113.64/26")),
            ("203.0.113.128", Some("203.0.113.128/26")),
            ("203.0.113.1", None),
            ("2001:db8::1", Some("::/0")),
        ] {
            let expected = prefix.map(|prefix| prefix.parse::<IpNet>().unwrap());
            assert_eq!(set.covering(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn a_default_route_contains_everything_of_its_family() {
        let set: PrefixSet = ["::/0".parse::<IpNet>().unwrap()].into_iter().collect();
        assert!(set.contains("ffff::1".parse().unwrap()));
        assert!(!set.contains("192.0.2.1".parse().unwrap()));
    }

    fn prefix() -> impl Strategy<Value = IpNet> {
        // Few bits vary, so that prefixes nest, touch and repeat.
        (0u32..16, 26u8..=32).prop_map(|(low, length)| {
            IpNet::new(IpAddr::V4((0x0a00_0000 + low).into()), length).unwrap().trunc()
        })
    }

    proptest! {
        #[test]
        fn agrees_with_asking_every_prefix(
            prefixes in proptest::collection::vec(prefix(), 0..12),
            low in 0u32..80,
        ) {
            let set: PrefixSet = prefixes.iter().copied().collect();
            let address = IpAddr::V4((0x09ff_fff0 + low).into());
            let expected = prefixes.iter().any(|prefix| prefix.contains(&address));
            prop_assert_eq!(set.contains(address), expected);
        }
    }
}
