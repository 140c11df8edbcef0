//! The IPv6 transition gateway (PITR, PETR, RTR) and everything behind the `isthmus` binary.
//!
//! ```text
//!   isthmus VERB                 cli      one file per verb; exit status; text and JSON
//!        |
//!        v
//!   FILE.toml  ------------->    config   every mistake at once, with file, line and key
//!        |  typed configuration
//!        v
//!   mapping::daemon   xtr::daemon <----   proxy    what may cross a gateway: pitr, petr, rtr (pure)
//!        ^                 ^
//!        |  admin::Request |
//!        +-----------------+----------    admin    Unix socket: one line of JSON in, one out
//!                          +----------    metrics  HTTP: counters and histograms for Prometheus
//!                          +----------    web      HTTP: the live page, for browsers of this host
//! ```
//!
//! The three roles of a gateway are admission rules over prefixes and nothing else: [`pitr`] decides what native
//! packets may be encapsulated, [`petr`] whose packets may be decapsulated and leave natively, [`rtr`] which of
//! those are encapsulated again. [`proxy::ProxyPolicy`] asks them per packet on behalf of the data plane in `xtr`,
//! which does everything else: lookup, locator choice, headers, announcement of the EID aggregates to the kernel.
//!
//! [`lab`] builds a small internet of network namespaces around these daemons and watches what they put on the wire;
//! [`mod@bench`] measures them there, side by side with the kernel's own tunnel.
//!
//! Where to start reading: [`proxy`] for what a gateway is, [`config`] for what an operator writes, [`cli`] for what
//! an operator types.
#![forbid(unsafe_code)]

pub mod admin;
pub mod bench;
pub mod cli;
pub mod config;
pub mod lab;
pub mod metrics;
pub mod migration;
pub mod petr;
pub mod pitr;
pub mod proxy;
pub mod rtr;
pub mod web;
