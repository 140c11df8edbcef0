//! The LISP mapping system.
pub mod admin;
pub mod auth;
pub mod config;
pub mod eid;
pub mod transmit;
pub mod wire;
