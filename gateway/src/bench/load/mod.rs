//! What is sent through the contenders.

pub(crate) mod echo;
pub(crate) mod flood;
pub(crate) mod frames;
pub(crate) mod tcp;
