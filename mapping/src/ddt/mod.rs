//! The Delegated Database Tree (RFC 8111): Map-Servers of many organisations as one mapping system.
//!
//! ```text
//!   node     what of the tree is ours, and whom the rest is delegated to: DDT Map-Request -> Map-Referral
//!   client   a Map-Resolver's way down the tree, lookup by lookup: referral after referral to a Map-Server
//!   step     one referral set of that way, its nodes asked one after another
//!   cache    the referrals known: configured ones, and learned ones until their TTL is over
//! ```
//!
//! A key of the tree is an XEID: Database-ID 0, Instance ID, address family, EID-prefix (RFC 8111 §4.1); an
//! [`EidPrefix`](crate::eid::EidPrefix) is just that. Map-Referrals are neither signed nor are signatures verified (RFC 8111 §10 makes
//! RSA mandatory for those who do): the pure implementation of RSA has an open advisory about the timing of private keys. Signed
//! Map-Referrals are parsed, and followed like unsigned ones.

pub(crate) mod cache;
pub(crate) mod client;
mod config;
pub(crate) mod node;
mod step;
#[cfg(test)]
mod tests;

pub use config::{AuthoritativePrefix, DdtConfig, Delegation};
