//! The LISP tunnel router.
#![deny(unsafe_code)]
pub mod config;
pub mod counters;
pub mod drops;
pub mod engine;
pub mod fib;
pub mod forward;
pub mod policy;
pub mod punt;
pub mod view;
