//! The IPv6 transition gateway (PITR, PETR, RTR) and everything behind the `isthmus` binary.
#![forbid(unsafe_code)]

pub mod config;
pub mod petr;
pub mod pitr;
pub mod proxy;
pub mod rtr;
