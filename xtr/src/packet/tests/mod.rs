//! Tests of the packet work, one file per module, judged by an oracle that shares no code with it.

mod arrival;
mod checksum;
mod coalesce;
mod decapsulate;
mod flow;
mod fragment;
mod hostile;
mod icmp;
mod inner;
mod lisp;
mod mtu;
mod outer;
mod segment;
pub(crate) mod support;
