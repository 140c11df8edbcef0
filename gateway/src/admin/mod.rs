//! The admin socket: how a running daemon is asked.
//!
//! A Unix stream socket at `/run/isthmus/ROLE.sock`. One line of JSON in ([`mapping::admin::Query`]), one line out:
//! `{"ok": value}` or `{"error": "text"}`; any number of questions per connection.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub mod client;
pub mod server;

/// Where the daemons of a host put their sockets.
pub const SOCKET_DIRECTORY: &str = "/run/isthmus";

/// The longest question, octets without its line end.
pub const LONGEST_QUERY: usize = 4096;

/// The longest question of an administrator: it may bring a configuration.
pub const LONGEST_ORDER: usize = 8 << 20;

/// What is said to somebody who may look at the daemon but not into packets.
pub const NOT_ADMINISTRATOR: &str =
    "permission denied: only root and the daemon's own user and group may do that";

/// The answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// The view that was asked for.
    Ok(Value),
    /// Why there is none.
    Error(String),
}

/// The default socket of a role.
pub fn socket_of(role: &str) -> PathBuf {
    Path::new(SOCKET_DIRECTORY).join(format!("{role}.sock"))
}
