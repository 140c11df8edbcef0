//! Which locator of a set carries a flow: weighted rendezvous hashing.
//!
//! Every locator draws a number from the flow's hash and its own address, exponentially distributed with its weight as rate; the
//! smallest wins. So shares are proportional to weight, and a locator that goes or changes its weight moves only the flows it must.
use super::{Adjacency, LocatorSet};
use std::net::IpAddr;

/// The locator for the flow whose hash is `flow_hash` (MC-20, MC-21, MC-22, MC-24); `None` only for an empty set.
pub fn select(set: &LocatorSet, flow_hash: u64) -> Option<&Adjacency> {
    let (first, rest) = set.adjacencies.split_first()?;
    if rest.is_empty() {
        return Some(first);
    }
    let even = rest.iter().all(|adjacency| adjacency.weight == first.weight);
    let mut best = first;
    let (mut best_draw, mut best_weight) = (u64::MAX, 0);
    for adjacency in &set.adjacencies {
        let weight = if even { 1 } else { u64::from(adjacency.weight) };
        if weight == 0 {
            continue;
        }
        let draw = minus_log2(mix(flow_hash, address_bits(adjacency.destination)));
        // draw / weight < best_draw / best_weight, without a division.
        if best_weight == 0 || draw * best_weight < best_draw * weight {
            (best, best_draw, best_weight) = (adjacency, draw, weight);
        }
    }
    Some(best)
}

fn address_bits(address: IpAddr) -> u64 {
    match address {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            scramble((bits >> 64) as u64) ^ bits as u64
        }
    }
}

/// Uniform over all 64 bits, independent for different locators.
fn mix(flow_hash: u64, locator: u64) -> u64 {
    scramble(scramble(locator) ^ flow_hash)
}

/// The finalizer of SplitMix64.
fn scramble(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Bits of the logarithm behind the point.
const FRACTION_BITS: u32 = 32;
/// Table steps per octave, as a power of two.
const STEP_BITS: u32 = 8;
const STEPS: usize = 1 << STEP_BITS;

/// log2(1 + i/256) with [`FRACTION_BITS`] behind the point.
static LOG2: [u64; STEPS + 1] = log2_table();

/// -log2(hash / 2^64), at most 64, with [`FRACTION_BITS`] behind the point; exact to about 2^-19.
fn minus_log2(hash: u64) -> u64 {
    let hash = hash | 1;
    let zeros = hash.leading_zeros();
    // The leading one falls off the top; what follows is the fraction of the mantissa.
    let mantissa = (hash << zeros) << 1;
    let step = (mantissa >> (64 - STEP_BITS)) as usize;
    let within = (mantissa << STEP_BITS) >> 32;
    let (low, high) = (LOG2[step], LOG2[step + 1]);
    let fraction = low + (((high - low) * within) >> 32);
    (u64::from(zeros + 1) << FRACTION_BITS) - fraction
}

/// By squaring: each square of the mantissa yields one bit of its logarithm.
const fn log2_table() -> [u64; STEPS + 1] {
    let mut table = [0; STEPS + 1];
    let mut step = 0;
    while step < STEPS {
        // 1.0 is 2^62, so that a square fits in 128 bits.
        let mut mantissa = ((STEPS + step) as u128) << (62 - STEP_BITS);
        let mut bit = FRACTION_BITS;
        while bit > 0 {
            bit -= 1;
            mantissa = (mantissa * mantissa) >> 62;
            if mantissa >> 63 != 0 {
                mantissa >>= 1;
                table[step] |= 1 << bit;
            }
        }
        step += 1;
    }
    table[STEPS] = 1 << FRACTION_BITS;
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    fn set(weights: &[u8]) -> LocatorSet {
        named(&weights.iter().enumerate().map(|(i, &w)| (i as u8, w)).collect::<Vec<_>>())
    }

    fn named(locators: &[(u8, u8)]) -> LocatorSet {
        let adjacencies: Vec<_> = locators
            .iter()
            .map(|&(name, weight)| Adjacency {
                source: Ipv4Addr::new(198, 51, 100, 1).into(),
                destination: Ipv4Addr::new(198, 51, 100, 10 + name).into(),
                weight,
                mtu: 1500,
                traffic: Arc::default(),
            })
            .collect();
        LocatorSet::new(adjacencies, 0)
    }

    const FLOWS: u64 = 20_000;

    fn choice(set: &LocatorSet, flow: u64) -> IpAddr {
        select(set, scramble(flow)).expect("not empty").destination
    }

    fn shares(set: &LocatorSet) -> Vec<f64> {
        let mut counts = vec![0u32; set.adjacencies.len()];
        for flow in 0..FLOWS {
            let chosen = choice(set, flow);
            let index = set.adjacencies.iter().position(|a| a.destination == chosen);
            counts[index.expect("of the set")] += 1;
        }
        counts.into_iter().map(|count| f64::from(count) * 100.0 / FLOWS as f64).collect()
    }

    fn assert_shares(weights: &[u8], expected: &[f64]) {
        for (share, expected) in shares(&set(weights)).into_iter().zip(expected) {
            assert!((share - expected).abs() < 1.5, "{weights:?}: {share} instead of {expected}");
        }
    }

    #[test]
    fn logarithm_is_exact_enough() {
        for hash in [1u64, 3, 1 << 20, (1 << 63) + 12345, u64::MAX, u64::MAX / 3, u64::MAX / 255] {
            let expected = -(((hash | 1) as f64).log2() - 64.0);
            let got = minus_log2(hash) as f64 / (1u64 << FRACTION_BITS) as f64;
            assert!((got - expected).abs() < 4e-6, "{hash}: {got} instead of {expected}");
        }
    }

    #[test]
    fn mc_20_tv_r2_shares_follow_weights() {
        assert_shares(&[30, 20, 20, 10], &[37.5, 25.0, 25.0, 12.5]);
        assert_shares(&[255, 1], &[99.6, 0.4]);
        assert_shares(&[70, 30], &[70.0, 30.0]);
    }

    #[test]
    fn mc_21_equal_weights_split_evenly() {
        assert_shares(&[0, 0], &[50.0, 50.0]);
        assert_shares(&[7, 7, 7, 7], &[25.0; 4]);
        assert_shares(&[255, 255, 255], &[33.3; 3]);
    }

    #[test]
    fn mc_22_weight_zero_among_others_gets_nothing() {
        assert_eq!(shares(&set(&[0, 50, 50]))[0], 0.0);
        assert_eq!(shares(&set(&[50, 0]))[1], 0.0);
    }

    #[test]
    fn a_single_locator_takes_all_and_an_empty_set_none() {
        assert_eq!(shares(&set(&[0])), [100.0]);
        assert!(select(&set(&[]), 1).is_none());
    }

    #[test]
    fn mc_24_only_flows_of_a_failed_locator_move() {
        let before = named(&[(0, 40), (1, 20), (2, 30), (3, 10)]);
        let after = named(&[(0, 40), (2, 30), (3, 10)]);
        let failed = before.adjacencies[1].destination;
        for flow in 0..FLOWS {
            let old = choice(&before, flow);
            assert!(old == failed || old == choice(&after, flow));
        }
    }

    #[test]
    fn mc_24_a_weight_change_moves_only_the_difference() {
        let (before, after) = (set(&[50, 50]), set(&[70, 30]));
        let mut moved = 0;
        for flow in 0..FLOWS {
            let (old, new) = (choice(&before, flow), choice(&after, flow));
            if old != new {
                assert_eq!(
                    new, after.adjacencies[0].destination,
                    "a flow left the locator that grew"
                );
                moved += 1;
            }
        }
        let share = f64::from(moved) * 100.0 / FLOWS as f64;
        assert!((share - 20.0).abs() < 1.5, "{share} % moved");
    }
}
