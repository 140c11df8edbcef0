//! `isthmus reload`, `apply`, `confirm` and `undo`: a running daemon takes over another configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mapping::admin::Query;
use serde_json::Value;

use super::lifecycle::{LONGEST_TRIAL, whole};
use super::show::{self, DaemonChoice};
use super::{Failure, print, print_json};
use crate::admin::client::{self, AskError};
use crate::admin::{LONGEST_ORDER, NOT_ADMINISTRATOR};
use crate::config;

/// Which daemon is to reload.
#[derive(Debug, Args)]
#[command(
    after_help = "The daemon reads its file anew and checks all of it. Either everything that changed is taken over, without a
packet lost, or nothing is: a mistake, or a key that cannot change while the daemon runs, is named with its line. The same
as SIGHUP, which says in the log what became of it. What would change: isthmus diff FILE. To try first: isthmus apply.

At run time may change
  of an xTR     [[eid]], [[dynamic-eid]], priority, weight, mpriority and mweight of its rlocs, map-servers,
                map-resolvers, use-petr, proxy-itrs, peers, probe, lisp-sec, record-ttl, registration-interval,
                proxy-reply, merge, timeout-by-ttl, map-cache-limit
  of a gateway  the EID-prefixes of [pitr], [petr] and [rtr], whose packets it takes, announce.after, announce.drain and
                announce.withdraw-when-unhealthy, map-resolvers, peers, probe, lisp-sec, map-cache-limit
  of mapping    [[site]] with keys and locators, [[subscriber]], [subscriptions], [lisp-sec], [nat], clients,
                registration-timeout
  of each       name, [log], and what is in the key files.
Everything else needs a restart, and a reload that finds it changed refuses all.

Exit status: 0 taken over, 1 no daemon could be asked, 77 not permitted, 78 refused."
)]
pub(crate) struct ReloadArgs {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonChoice,
}

/// Which configuration is to be taken over.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus apply /tmp/xtr.toml --confirm-within 60s && isthmus confirm
  isthmus apply /tmp/xtr.toml --confirm-within 5m       then look around, and confirm or undo

As isthmus reload, with a file of any name. With --confirm-within the daemon returns to the configuration of before by
itself, unless isthmus confirm comes in time: what cuts you off from the host undoes itself.

The daemon keeps what it takes over in memory and writes no file: a restart, also one in the middle of a trial, reads its own
configuration file. So try a copy, and put it there once it is confirmed.

Exit status: 0 taken over, 1 no daemon could be asked, 77 not permitted, 78 refused.")]
pub(crate) struct ApplyArgs {
    /// The configuration
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Return to the configuration of before unless it is confirmed in this time, a day at most
    #[arg(long, value_name = "TIME", value_parser = trial)]
    confirm_within: Option<Duration>,
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonChoice,
}

/// Which daemon is meant.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit status: 0 done, 1 there was nothing to do, or no daemon could be asked, 77 not permitted."
)]
pub(crate) struct SettleArgs {
    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonChoice,
}

fn trial(text: &str) -> Result<Duration, String> {
    let whole = |length: &Duration| length.as_secs() >= 1 && *length <= LONGEST_TRIAL;
    let length = config::parse_duration(text).filter(whole);
    length.ok_or_else(|| "write 1s to 24h, such as 60s".to_owned())
}

/// Has the daemon reload, and prints what it took over.
pub(crate) fn reload(args: &ReloadArgs) -> Result<(), Failure> {
    let answer = order(&args.daemon, &Query::Reload, Failure::Misfit)?;
    if args.json {
        return print_json(&answer);
    }
    print(&taken_over(&answer))
}

/// Has the daemon take over a file.
pub(crate) fn apply(args: &ApplyArgs) -> Result<(), Failure> {
    let shown = args.file.display();
    let text = config::read_file(&args.file)
        .map_err(|problem| Failure::Failed(format!("{shown}: {problem}")))?;
    if text.len() * 2 > LONGEST_ORDER {
        return Err(Failure::Failed(format!(
            "{shown} is larger than {} octets: put it in the place of the daemon's file, and reload",
            LONGEST_ORDER / 2
        )));
    }
    let file = args.file.canonicalize()?.display().to_string();
    let confirm_within_seconds = args.confirm_within.map(|within| within.as_secs());
    let query = Query::Apply { file, text, confirm_within_seconds };
    let answer = order(&args.daemon, &query, Failure::Misfit)?;
    if args.json {
        return print_json(&answer);
    }
    let mut text = taken_over(&answer);
    if let Some(seconds) = answer["unconfirmed_seconds"].as_u64() {
        text += &format!("on trial: without `isthmus confirm` it goes in {seconds} s\n");
        if let Some(file) = own_file(&args.daemon).filter(|own| is_same_file(own, &args.file)) {
            text += &format!(
                "{} is what a restart reads: one before you confirm starts with this too\n",
                file.display()
            );
        }
    } else {
        text += &note(&answer);
    }
    print(&text)
}

/// Keeps what is on trial.
pub(crate) fn confirm(args: &SettleArgs) -> Result<(), Failure> {
    let answer = order(&args.daemon, &Query::Confirm, Failure::Failed)?;
    if args.json {
        return print_json(&answer);
    }
    print(&("confirmed\n".to_owned() + &note(&answer)))
}

/// Returns to the configuration of before.
pub(crate) fn undo(args: &SettleArgs) -> Result<(), Failure> {
    let answer = order(&args.daemon, &Query::Undo, Failure::Failed)?;
    if args.json {
        return print_json(&answer);
    }
    print(
        &(taken_over(&answer).replace("taken over", "returned to what was before")
            + &note(&answer)),
    )
}

/// Asks for a change; `refused` is what a refusal means.
pub(super) fn order(
    daemon: &DaemonChoice,
    query: &Query,
    refused: impl FnOnce(String) -> Failure,
) -> Result<Value, Failure> {
    let socket = daemon.socket()?;
    client::ask(&socket, query).map_err(|error| match error {
        AskError::Refused(text) if text == NOT_ADMINISTRATOR => Failure::NoPrivilege(text),
        AskError::Refused(text) => refused(text),
        other => show::ask_failure(other, &socket),
    })
}

fn taken_over(answer: &Value) -> String {
    let changed = answer["changed"].as_array().map(Vec::as_slice).unwrap_or_default();
    if changed.is_empty() {
        return "nothing changed; what is in the key files is in force\n".to_owned();
    }
    let keys = whole(changed.iter().filter_map(Value::as_str));
    format!("taken over: {}\n", keys.join(", "))
}

fn note(answer: &Value) -> String {
    answer["note"].as_str().map_or_else(String::new, |note| format!("{note}\n"))
}

/// The file that a restart of the daemon reads.
fn own_file(daemon: &DaemonChoice) -> Option<PathBuf> {
    let view = client::ask(&daemon.socket().ok()?, &Query::Config).ok()?;
    view["read_at_restart"].as_str().map(PathBuf::from)
}

fn is_same_file(one: &Path, other: &Path) -> bool {
    matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}
