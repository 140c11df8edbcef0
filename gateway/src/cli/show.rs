//! `isthmus show`: the state of a running daemon.

use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum};
use mapping::admin::Query;

use super::again::Again;
use super::{Failure, print, print_json, render};
use crate::admin::client::{self, AskError};
use crate::admin::{SOCKET_DIRECTORY, socket_of};
use crate::migration;

/// What `show` is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus show map-cache
  isthmus show registrations --role mapping --json
  isthmus show registrations --refused
  isthmus show drops --watch 5
  isthmus show status --socket /run/isthmus/xtr.sock

With one daemon on the host, that one is asked; with several, say which.

Exit status: 0 shown, 1 no daemon could be asked, or it does not know that, 2 wrong usage, 77 not permitted.")]
pub(crate) struct ShowArgs {
    /// What to show
    #[arg(value_enum)]
    what: What,
    /// Registrations: those that were refused, and by which rule (mapping)
    #[arg(long)]
    refused: bool,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    again: Again,
    #[command(flatten)]
    daemon: DaemonChoice,
}

/// Which daemon is asked.
#[derive(Debug, Args)]
pub(crate) struct DaemonChoice {
    /// The admin socket of the daemon
    #[arg(long, value_name = "PATH", conflicts_with = "role")]
    socket: Option<PathBuf>,
    /// The daemon's role, when several run on this host
    #[arg(long, value_enum)]
    role: Option<RoleName>,
}

impl DaemonChoice {
    /// Its socket.
    pub(crate) fn socket(&self) -> Result<PathBuf, Failure> {
        socket(self.socket.as_deref(), self.role)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Map-cache entries and their locators (xtr, gateway)
    MapCache,
    /// Configured sites and what became of their registrations (mapping)
    Sites,
    /// Registered EID-prefixes (mapping), or own registrations (xtr)
    Registrations,
    /// Who subscribed to which mappings (mapping), or own subscriptions (xtr, gateway)
    Subscriptions,
    /// Locators with reachability, round-trip time and counters (xtr, gateway)
    Locators,
    /// Hosts of dynamic-EID ranges: which are here, which are at another site (xtr)
    Mobility,
    /// NAT traversal: own RLOCs and their RTRs (xtr), or the xTRs behind NATs (gateway)
    Nat,
    /// Referrals of the Delegated Database Tree, and lookups on their way through it (mapping)
    Referrals,
    /// What a DDT node is authoritative for and has delegated (mapping)
    Delegations,
    /// What arrived for own EID-prefixes and what was sent where, each by RLOC (xtr, gateway)
    Traffic,
    /// How far the migration is: what travels over IPv4 and over IPv6, directly or through a proxy, by site
    Migration,
    /// Interfaces with what they serve for and what the kernel counted there (xtr, gateway)
    Interfaces,
    /// The configuration that runs, without comments; secrets are not in it
    Config,
    /// Every counter
    Counters,
    /// What was dropped, why, and what to do about it
    Drops,
    /// Role, uptime, version, health
    Status,
}

impl What {
    fn query(self) -> Query {
        match self {
            Self::MapCache => Query::MapCache,
            Self::Sites => Query::Sites,
            Self::Registrations => Query::Registrations,
            Self::Subscriptions => Query::Subscriptions,
            Self::Locators => Query::Locators,
            Self::Mobility => Query::Mobility,
            Self::Nat => Query::Nat,
            Self::Referrals => Query::Referrals,
            Self::Delegations => Query::Delegations,
            Self::Traffic => Query::Traffic,
            Self::Migration => Query::Migration,
            Self::Interfaces => Query::Interfaces,
            Self::Config => Query::Config,
            Self::Counters => Query::Counters,
            Self::Drops => Query::Drops,
            Self::Status => Query::Status,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleName {
    /// A proxy gateway
    Gateway,
    /// A site's tunnel router
    Xtr,
    /// A Map-Server and Map-Resolver
    Mapping,
}

impl RoleName {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Xtr => "xtr",
            Self::Mapping => "mapping",
        }
    }
}

/// Asks the daemon and prints its answer.
pub(crate) fn run(args: &ShowArgs) -> Result<(), Failure> {
    if args.refused && args.what != What::Registrations {
        let text = "--refused is for registrations: isthmus show registrations --refused";
        return Err(Failure::Usage(text.to_owned()));
    }
    let query = if args.refused { Query::Refusals } else { args.what.query() };
    args.again.repeat(|| {
        let socket = args.daemon.socket()?;
        let view = client::ask(&socket, &query).map_err(|error| ask_failure(error, &socket))?;
        let not_understood =
            |error| Failure::Failed(format!("the answer is not understood: {error}"));
        let view = match query {
            Query::Migration => migration::Report::of(view)
                .and_then(serde_json::to_value)
                .map_err(not_understood)?,
            _ => view,
        };
        if args.json {
            return print_json(&view);
        }
        let text = render::view(&query, view).map_err(not_understood)?;
        print(&text)
    })
}

/// `--role` of what only those know that forward packets.
pub(super) fn forwarding_role() -> impl TypedValueParser<Value = RoleName> {
    PossibleValuesParser::new(["gateway", "xtr"]).map(|name| match name.as_str() {
        "gateway" => RoleName::Gateway,
        _ => RoleName::Xtr,
    })
}

/// The socket that is meant.
pub(super) fn socket(named: Option<&Path>, role: Option<RoleName>) -> Result<PathBuf, Failure> {
    match (named, role) {
        (Some(path), _) => Ok(path.to_path_buf()),
        (None, Some(role)) => Ok(socket_of(role.name())),
        (None, None) => only_socket(Path::new(SOCKET_DIRECTORY)),
    }
}

/// The one socket in `directory`.
fn only_socket(directory: &Path) -> Result<PathBuf, Failure> {
    let mut sockets = client::sockets_in(directory).map_err(|error| {
        let text = format!("{}: {error}", directory.display());
        match error.kind() {
            ErrorKind::PermissionDenied => Failure::NoPrivilege(format!("{text}; {WHO_MAY_ASK}")),
            _ => Failure::Failed(text),
        }
    })?;
    match sockets.len() {
        0 => Err(Failure::Failed(format!(
            "no daemon runs on this host: no socket in {}; start one, or name its socket with --socket",
            directory.display()
        ))),
        1 => Ok(sockets.remove(0)),
        _ => Err(Failure::Usage(format!(
            "several daemons run on this host: {}; choose one with --role or --socket",
            stems(&sockets)
        ))),
    }
}

/// The roles that sockets are named after.
fn stems(sockets: &[PathBuf]) -> String {
    let stem = |path: &PathBuf| Some(path.file_stem()?.to_string_lossy().into_owned());
    sockets.iter().filter_map(stem).collect::<Vec<_>>().join(", ")
}

const WHO_MAY_ASK: &str =
    "only root and the daemon's own user and group may ask: use sudo, or join that group";

/// What an unanswered question means, and what to do about it.
pub(super) fn ask_failure(error: AskError, socket: &Path) -> Failure {
    let path = socket.display();
    match &error {
        AskError::Socket { error, .. } => match error.kind() {
            ErrorKind::NotFound => Failure::Failed(not_there(socket)),
            ErrorKind::ConnectionRefused if is_no_socket(socket) => {
                Failure::Failed(format!("{path} is no socket; name the admin socket of a daemon"))
            }
            ErrorKind::ConnectionRefused => Failure::Failed(format!(
                "no daemon serves {path}; is it running? What is there was left by one that died: start it anew, and see its log for why"
            )),
            ErrorKind::PermissionDenied => {
                Failure::NoPrivilege(format!("{path}: permission denied; {WHO_MAY_ASK}"))
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Failed(format!(
                "{path}: no answer in time; the daemon hangs, or what listens there is no isthmus"
            )),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                Failure::Failed(format!(
                    "{path}: closed without an answer; the daemon ended just now, or what listens there is no isthmus"
                ))
            }
            _ => Failure::Failed(format!("{path}: {error}")),
        },
        AskError::Format { .. } => Failure::Failed(format!(
            "{path}: the answer is not understood; is that the admin socket of an isthmus of this version?"
        )),
        AskError::Refused(text) if text.starts_with("not a question this daemon knows") => {
            Failure::Failed(format!(
                "{text}; the daemon is of another version than this command: restart it after an upgrade"
            ))
        }
        AskError::Refused(text) => Failure::Failed(text.clone()),
    }
}

/// No such path: the daemon does not run, or its socket is elsewhere.
fn not_there(socket: &Path) -> String {
    let path = socket.display();
    let others = client::sockets_in(Path::new(SOCKET_DIRECTORY)).unwrap_or_default();
    match others.len() {
        0 => format!("no daemon serves {path}; is it running?"),
        _ => format!(
            "no daemon serves {path}; is it running? On this host there is: {}",
            stems(&others)
        ),
    }
}

fn is_no_socket(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| !metadata.file_type().is_socket())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    #[test]
    fn one_daemon_is_asked_without_being_named() {
        let directory = tempfile::tempdir().unwrap();
        let none = only_socket(directory.path()).unwrap_err();
        assert!(matches!(&none, Failure::Failed(text) if text.starts_with("no daemon runs")));
        let path = directory.path().join("xtr.sock");
        let _xtr = UnixListener::bind(&path).unwrap();
        std::fs::write(directory.path().join("notes.sock"), "").unwrap();
        assert_eq!(only_socket(directory.path()).unwrap(), path);
        let _mapping = UnixListener::bind(directory.path().join("mapping.sock")).unwrap();
        let several = only_socket(directory.path()).unwrap_err();
        assert!(
            matches!(&several, Failure::Usage(text) if text.contains("mapping, xtr; choose one")),
            "{several:?}"
        );
    }

    #[test]
    fn a_missing_directory_is_no_daemon() {
        let failure = only_socket(Path::new("/nonexistent/isthmus")).unwrap_err();
        assert!(matches!(failure, Failure::Failed(_)));
    }
}
