//! The LISP mapping system.
#![forbid(unsafe_code)]
pub mod admin;
pub mod auth;
pub mod config;
pub mod daemon;
pub mod discard;
pub mod eid;
pub mod limits;
mod resolver;
pub mod server;
pub mod timers;
pub mod transmit;
pub mod view;
pub mod wire;
