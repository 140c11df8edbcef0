//! The LISP tunnel router: ITR and ETR of a site, or the proxy in front of all of them.
//!
//! # Layers
//!
//! ```text
//!            daemon             the shell: one tokio task that owns and drives everything
//!     ______/   |   \______
//!    |          |          |
//! control     host       engine          control: pure. What to register, ask, answer, probe; which mapping means what verdict
//!    |      (netlink,      |             host:    routes, rules, sockets, DNS: what only the kernel and the network know
//!    |       sockets)      |             engine:  one thread and io_uring ring per core; the only unsafe code
//!    |                     |
//!    |                  forward          pure. What becomes of each packet, and its counters
//!    |                     |
//!    |                  packet           pure. Headers, flow hash, ECN, MTU, segments, ICMP errors
//!    |___________    ______|
//!                fib                     EID to verdict: written by control, read by engine without a lock
//! ```
//!
//! # Data flow
//!
//! A packet out of the TUN is parsed, admitted by the role's [`policy::Policy`], looked up in the [`fib`] and encapsulated to the locator
//! its flow hash selects. A packet from UDP port 4341 is checked, decapsulated and written to the TUN, where the kernel forwards it.
//! A lookup without result becomes a [`punt`]: the [`control`] plane resolves the EID through the mapping system and writes a
//! [`fib::FibUpdate`]; the engine looks the held packets up again. Both sides share only the forwarding table, the bounded queue of
//! punts and counters that anyone may read: either may stall without harm to the other.
//!
//! # Where to start
//!
//! [`daemon::run`] shows how the parts meet, [`control::ControlPlane`] holds the protocol, [`engine::Engine`] moves the packets,
//! [`drops::DropReason`] lists every way a packet can end, and [`config`] what can be configured.
#![deny(unsafe_code)]
pub mod config;
pub mod control;
pub mod counters;
pub mod daemon;
pub mod drops;
pub mod engine;
pub mod explain;
pub mod fib;
pub mod forward;
pub mod host;
pub mod marks;
pub mod migration;
pub mod packet;
pub mod policy;
pub mod punt;
pub mod tap;
pub mod view;
