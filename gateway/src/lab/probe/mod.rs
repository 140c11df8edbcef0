//! What the lab sends: by the kernel's own stack where it can, by raw sockets where a header field matters.

pub(crate) mod announce;
pub(crate) mod craft;
#[allow(dead_code, reason = "a scenario takes the figures it needs")]
pub(crate) mod many;
pub(crate) mod ping;
#[allow(dead_code, reason = "a scenario takes the figures it needs")]
pub(crate) mod session;
#[allow(dead_code, reason = "a scenario takes the figures it needs")]
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
