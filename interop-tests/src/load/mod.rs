//! Load for a Map-Server: messages made ahead of time, senders that keep up with it, meters of what it costs.

pub mod flood;
pub mod messages;
pub mod meter;
pub mod senders;
