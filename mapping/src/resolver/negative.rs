//! The prefix of a Negative Map-Reply (RFC 9301 §8.4).

use crate::eid::{EidPrefix, EidTable};

/// What a negative prefix must not overlap.
pub(crate) trait Occupied {
    /// Whether any occupied prefix is `prefix` or a more-specific of it.
    fn within(&self, prefix: &EidPrefix) -> bool;
}

impl<T> Occupied for EidTable<T> {
    fn within(&self, prefix: &EidPrefix) -> bool {
        self.covered_by(prefix).next().is_some()
    }
}

/// The least-specific prefix that contains `asked`, has a mask of at least `shortest` bits, and has nothing of `occupied` within it
/// (MS-12, MR-04); `None` when something lies within `asked` itself.
///
/// An occupied prefix that covers `asked` is not looked at: the caller chooses `shortest` longer than it.
pub(crate) fn least_specific(
    asked: &EidPrefix,
    shortest: u8,
    occupied: &[&dyn Occupied],
) -> Option<EidPrefix> {
    let free = |mask_len: u8| {
        let prefix = supernet(asked, mask_len);
        !occupied.iter().any(|table| table.within(&prefix))
    };
    let mut longest = asked.mask_len();
    if !free(longest) {
        return None;
    }
    // A longer mask is free wherever a shorter one is, so the border can be found by halving.
    let mut shortest = shortest.min(longest);
    while shortest < longest {
        let middle = shortest + (longest - shortest) / 2;
        if free(middle) {
            longest = middle;
        } else {
            shortest = middle + 1;
        }
    }
    Some(supernet(asked, longest))
}

/// The first `mask_len` bits of `prefix`, which has at least that many.
fn supernet(prefix: &EidPrefix, mask_len: u8) -> EidPrefix {
    let net = ipnet::IpNet::new_assert(prefix.prefix().network(), mask_len.min(prefix.mask_len()));
    EidPrefix::new(prefix.instance_id(), net)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use ipnet::IpNet;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::eid::{Eid, InstanceId};

    fn prefix(text: &str) -> EidPrefix {
        EidPrefix::new(InstanceId::DEFAULT, text.parse().unwrap())
    }

    fn table(prefixes: &[&str]) -> EidTable<()> {
        let mut table = EidTable::default();
        for text in prefixes {
            table.insert(prefix(text), ());
        }
        table
    }

    #[test]
    fn ms_12_the_negative_prefix_is_the_largest_hole() {
        let configured = table(&["10.1.0.0/16", "10.128.0.0/9"]);
        let hole = |eid: &str| least_specific(&prefix(eid), 0, &[&configured]);
        assert_eq!(hole("10.64.0.1/32"), Some(prefix("10.64.0.0/10")));
        assert_eq!(hole("10.0.0.1/32"), Some(prefix("10.0.0.0/16")));
        assert_eq!(hole("192.0.2.1/32"), Some(prefix("128.0.0.0/1")));
        assert_eq!(hole("2001:db8::1/128"), Some(prefix("::/0")));
        assert_eq!(hole("10.0.0.0/8"), None);
    }

    /// Random tables, compared with a search bit by bit over plain lists.
    #[test]
    fn mr_04_the_negative_prefix_agrees_with_a_dumb_oracle() {
        let mut rng = StdRng::from_seed([7; 32]);
        for round in 0..3_000 {
            let v6 = round % 2 == 1;
            let (configured, registered) = (random_set(&mut rng, v6), random_set(&mut rng, v6));
            let tables = (to_table(&configured), to_table(&registered));
            let asked = random_prefix(&mut rng, v6, true);
            let shortest = rng.random_range(0..=8);
            let found = least_specific(&asked, shortest, &[&tables.0, &tables.1]);
            let all: Vec<_> = configured.iter().chain(&registered).copied().collect();
            assert_eq!(found, oracle(&asked, shortest, &all), "round {round}: {asked}");
        }
    }

    #[test]
    fn ms_22_longest_match_agrees_with_a_dumb_oracle() {
        let mut rng = StdRng::from_seed([8; 32]);
        for round in 0..3_000 {
            let v6 = round % 2 == 1;
            let set = random_set(&mut rng, v6);
            let (table, asked) = (to_table(&set), random_prefix(&mut rng, v6, false));
            let expected = set.iter().filter(|p| p.covers(&asked)).max_by_key(|p| p.mask_len());
            let found = table.longest_match(&asked).map(|(prefix, ())| prefix);
            assert_eq!(found.as_ref(), expected, "round {round}: {asked}");
        }
    }

    fn oracle(asked: &EidPrefix, shortest: u8, all: &[EidPrefix]) -> Option<EidPrefix> {
        (shortest.min(asked.mask_len())..=asked.mask_len())
            .map(|len| IpNet::new_assert(asked.prefix().network(), len))
            .map(|net| EidPrefix::new(asked.instance_id(), net))
            .find(|candidate| !all.iter().any(|other| candidate.covers(other)))
    }

    fn to_table(prefixes: &[EidPrefix]) -> EidTable<()> {
        let mut table = EidTable::default();
        for prefix in prefixes {
            table.insert(*prefix, ());
        }
        table
    }

    fn random_set(rng: &mut StdRng, v6: bool) -> Vec<EidPrefix> {
        (0..rng.random_range(0..12)).map(|_| random_prefix(rng, v6, false)).collect()
    }

    /// Prefixes crowd in the first 12 bits, so that they cover each other often.
    fn random_prefix(rng: &mut StdRng, v6: bool, host: bool) -> EidPrefix {
        let bits = u128::from(rng.random_range(0..4096_u32));
        let address: IpAddr = if v6 {
            Ipv6Addr::from_bits(bits << 116).into()
        } else {
            Ipv4Addr::from_bits((bits as u32) << 20).into()
        };
        if host && rng.random_bool(0.8) {
            return Eid::new(InstanceId::DEFAULT, address).host_prefix();
        }
        let net = IpNet::new_assert(address, rng.random_range(1..=14));
        EidPrefix::new(InstanceId::new(rng.random_range(0..2)).unwrap(), net)
    }
}
