//! The flow hash: which locator and which outer source port a packet takes.

use super::headers::protocol;
use super::inner::{Fragment, Inner};
use std::net::IpAddr;

/// A hash of the inner flow, keyed per process so that nobody can aim flows at one port or locator (EN-16).
#[derive(Clone, Debug)]
pub struct FlowHasher {
    keys: [u64; 4],
}

impl FlowHasher {
    /// A hasher keyed by `seed`.
    pub fn new(seed: [u8; 32]) -> Self {
        // Even an all-zero seed must not make a factor 0.
        let mut keys = [ODD, ODD.rotate_left(16), ODD.rotate_left(32), ODD.rotate_left(48)];
        for (key, octets) in keys.iter_mut().zip(seed.chunks_exact(8)) {
            *key ^= octets.iter().fold(0, |key, &octet| key << 8 | u64::from(octet));
        }
        Self { keys }
    }

    /// The hash of `inner`'s flow: the 5-tuple of a whole TCP, UDP or SCTP packet (EN-14); the two addresses only, and the IPv6 flow
    /// label (EN-19), for every other protocol and for every fragment, the first included, so that a datagram's fragments stay
    /// together (EN-15). Where there are ports the label does not count: hosts change it within a connection, but the flow must
    /// not change its locator (MC-24).
    #[inline]
    pub fn hash(&self, inner: &Inner) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        let transport = transport_word(inner);
        let addresses = match (inner.source, inner.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                u64::from(source.to_bits()) << 32 | u64::from(destination.to_bits())
            }
            (source, destination) => {
                let (source, destination) = (bits(source), bits(destination));
                mix((source >> 64) as u64 ^ k0, source as u64 ^ k1)
                    ^ mix((destination >> 64) as u64 ^ k2, destination as u64 ^ k3)
            }
        };
        mix(mix(addresses ^ k0, transport ^ k1) ^ k2, k3 | 1)
    }

    /// The hash of one address, for tables keyed by host.
    #[inline]
    pub fn hash_address(&self, address: IpAddr) -> u64 {
        let [k0, k1, k2, k3] = self.keys;
        let bits = bits(address);
        mix(mix((bits >> 64) as u64 ^ k0, bits as u64 ^ k1) ^ k2, k3 | 1)
    }
}

/// Which of `pool_len` source ports a flow takes, 0 when the pool is empty. Uses the upper half of the hash.
#[inline]
pub fn source_port_index(hash: u64, pool_len: u16) -> u16 {
    (((hash >> 32) * u64::from(pool_len)) >> 32) as u16
}

/// The golden ratio's fraction: any odd constant without structure would do.
const ODD: u64 = 0x9e37_79b9_7f4a_7c15;

/// Multiplies to 128 bits and folds the halves: every input bit reaches every output bit.
#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
fn transport_word(inner: &Inner) -> u64 {
    match inner.ports {
        Some((source, destination))
            if inner.fragment == Fragment::Whole
                && matches!(inner.protocol, protocol::TCP | protocol::UDP | protocol::SCTP) =>
        {
            u64::from(inner.protocol) << 32 | u64::from(source) << 16 | u64::from(destination)
        }
        // Above the bits of a tuple.
        _ => u64::from(inner.flow_label) << 40,
    }
}

#[inline]
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}
