//! The messages against the specification's vectors and rules; random ones are in `properties`.

mod malformed;
mod nat;
mod properties;
mod vectors;

use std::net::IpAddr;

use ipnet::IpNet;

use super::vectors::octets;
use super::*;
use crate::eid::{EidPrefix, InstanceId, InstanceRange, NamePrefix};

/// An EID-prefix in instance 0.
fn prefix(text: &str) -> EidPrefix {
    in_instance(0, text)
}

fn in_instance(instance_id: u32, text: &str) -> EidPrefix {
    let net: IpNet = text.parse().unwrap();
    EidPrefix::new(InstanceId::new(instance_id).unwrap(), net)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    ip(text).into()
}

/// Sets bits: `(offset, mask)` each.
fn with_bits(octets: &[u8], bits: &[(usize, u8)]) -> Vec<u8> {
    let mut changed = octets.to_vec();
    for &(at, mask) in bits {
        changed[at] |= mask;
    }
    changed
}

/// The Map-Request of TV-C4 with the EID field replaced by `mask_len` and `eid`, from the AFI on.
fn request_for(mask_len: u8, eid: &[u8]) -> Vec<u8> {
    let mut message = octets(super::vectors::C4)[..26].to_vec();
    message[25] = mask_len;
    message.extend_from_slice(eid);
    message
}

/// The Map-Reply of TV-C7 with one locator, given from its AFI on.
fn reply_with_locator(locator: &[u8]) -> Vec<u8> {
    let mut message = octets(super::vectors::C7);
    message[16] = 1;
    message.extend_from_slice(&[1, 100, 255, 0, 0, 1]);
    message.extend_from_slice(locator);
    message
}
