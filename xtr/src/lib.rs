//! The LISP tunnel router.
#![deny(unsafe_code)]
pub mod config;
pub mod counters;
pub mod drops;
pub mod fib;
pub mod policy;
pub mod punt;
pub mod view;
