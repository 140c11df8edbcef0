//! What the lab sends: by the kernel's own stack where it can, by raw sockets where a header field matters.

pub(crate) mod announce;
pub(crate) mod craft;
pub(crate) mod many;
pub(crate) mod ping;
pub(crate) mod session;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod udp;
