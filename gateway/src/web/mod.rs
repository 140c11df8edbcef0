//! The web page: what a daemon does, live, for whoever has a browser on this host. It reads; it changes nothing.
//!
//! ```text
//!   browser  ---- GET / ------------->  page     one document with its style and its script: nothing is loaded from elsewhere
//!            ---- GET /api/live ----->  live     what all viewers see, asked for once a second and sent to all of them
//!            ---- GET /api/... ------>  search   map-cache entries, registrations, history: some at a time
//!                                         |
//!                     every request  ->  guard   who may ask: this host, and sites of this page only
//! ```
//!
//! What could be many is asked for in parts, with pauses, so that the daemon never walks a long list in one go. Without viewers nothing is
//! asked.

use std::net::SocketAddr;

use ipnet::IpNet;

mod guard;
mod live;
mod page;
mod search;
pub mod server;

/// `[web]` of a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Who may look besides this host.
    pub accept_from: Vec<IpNet>,
    /// Names that this host has in browsers, in lower case, besides its addresses and `localhost`.
    pub hosts: Vec<String>,
}
