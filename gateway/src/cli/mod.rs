//! The command line: one file per verb.
//!
//! Exit status: 0 done, 1 failed, 2 wrong usage, 77 a privilege is missing, 78 the configuration is wrong. What a verb
//! was asked for goes to standard output; everything else goes to standard error.

use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Finding;

mod again;
mod bench;
mod check;
mod clear;
pub(crate) mod columns;
mod convert;
mod daemon;
mod diff;
mod doctor;
mod dump;
mod events;
mod explain;
mod gateway;
mod history;
mod lifecycle;
pub(crate) mod lig;
mod logging;
mod manual;
mod mapping;
mod reload;
mod render;
mod service;
mod show;
mod tap;
mod top;
mod xtr;

pub use logging::Format as LogFormat;
pub(crate) use logging::filter as log_filter;

/// Everything behind `isthmus`; returns the exit status.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too; clap knows which stream and status is right.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(USAGE));
        }
    };
    let done = match cli.verb {
        // The lab and the benchmarks make namespaces, for which the process must have one thread: nothing may start before it.
        Verb::Lab(args) => return crate::lab::run(args),
        Verb::Bench(args) => return bench::run(args),
        Verb::Gateway(args) => gateway::run(&args),
        Verb::Xtr(args) => xtr::run(&args),
        Verb::Mapping(args) => mapping::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Doctor(args) => doctor::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Show(args) => show::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Reload(args) => reload::reload(&args),
        Verb::Apply(args) => reload::apply(&args),
        Verb::Confirm(args) => reload::confirm(&args),
        Verb::Undo(args) => reload::undo(&args),
        Verb::Clear(args) => clear::run(&args),
        Verb::Lig(args) => lig::run(&args),
        Verb::Explain(args) => explain::run(&args),
        Verb::Tap(args) => tap::run(&args),
        Verb::Completions(args) => manual::completions(&args),
        Verb::Man(args) => manual::man(&args),
        Verb::History(args) => history::run(&args),
        Verb::Events(args) => events::run(&args),
        Verb::Top(args) => top::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.status())
        }
    }
}

const FAILED: u8 = 1;
const USAGE: u8 = 2;
const NO_PRIVILEGE: u8 = 77;
const BAD_CONFIGURATION: u8 = 78;

#[derive(Debug, Parser)]
#[command(
    name = "isthmus",
    version,
    about = "LISP tunnel router, mapping system and IPv6 transition gateway",
    after_help = "Examples:
  isthmus check /etc/isthmus/xtr.toml        find every mistake in a configuration
  isthmus doctor                             what of this host keeps it from working, and what mends it
  isthmus xtr --config /etc/isthmus/xtr.toml run a site's tunnel router
  isthmus show map-cache                     what the router here knows, and how it forwards
  isthmus show drops                         what it dropped, why, and what to do about it
  isthmus diff /etc/isthmus/xtr.toml         what a reload would change
  isthmus reload                             have it read its configuration anew
  isthmus apply xtr.toml --confirm-within 60s   try another one, which goes again unless you isthmus confirm
  isthmus explain 192.0.2.80 203.0.113.1     what it would do with such a packet, step by step
  isthmus tap drop                           the packets it drops, each with its reason
  isthmus top                                all of that, live
  isthmus events --follow                    what happens to it, when and why
  isthmus lig 2001:db8:e001::1 @198.51.100.2 ask the mapping system where an EID is

Exit status: 0 done, 1 failed, 2 wrong usage, 77 a privilege is missing, 78 the configuration is wrong."
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a proxy gateway (PITR, PETR, RTR) in the foreground
    Gateway(daemon::DaemonArgs),
    /// Run a site's tunnel router (ITR and ETR) in the foreground
    Xtr(daemon::DaemonArgs),
    /// Run a Map-Server and Map-Resolver in the foreground
    Mapping(mapping::MappingArgs),
    /// Check configuration files and list every mistake
    Check(check::CheckArgs),
    /// Find out what of this host keeps a daemon from its work, and what mends it
    Doctor(doctor::DoctorArgs),
    /// Write a configuration of OOR, lispers.net or Cisco IOS in our words
    Convert(convert::ConvertArgs),
    /// Show the state of a running daemon
    Show(show::ShowArgs),
    /// Say what a reload would change in a running daemon, and what of it needs a restart
    Diff(diff::DiffArgs),
    /// Have a running daemon read its configuration anew, without losing a packet
    Reload(reload::ReloadArgs),
    /// Have a running daemon take over another configuration, also on trial
    Apply(reload::ApplyArgs),
    /// Keep the configuration that is on trial
    Confirm(reload::SettleArgs),
    /// Have a running daemon return to the configuration of before
    Undo(reload::SettleArgs),
    /// Have a running gateway or xTR forget map-cache entries
    Clear(clear::ClearArgs),
    /// Ask the mapping system for the mapping of an EID
    Lig(lig::LigArgs),
    /// Say what a running gateway or xTR would do with a packet, and why
    Explain(explain::ExplainArgs),
    /// Show packets as a running gateway or xTR forwards them, with what became of each
    Tap(tap::TapArgs),
    /// Print a script that completes this command line in a shell
    Completions(manual::CompletionsArgs),
    /// Write manual pages
    Man(manual::ManArgs),
    /// What the counters of a running daemon were: every 2 s, 30 s, 5 min
    History(history::HistoryArgs),
    /// What happened to a running daemon, when and why
    Events(events::EventsArgs),
    /// Watch a running daemon live: traffic, map-cache, EIDs, locators, drops, events
    Top(top::TopArgs),
    /// Build a small internet in network namespaces and prove the use cases on it
    Lab(crate::lab::LabArgs),
    /// Measure throughput, cost per packet and latency beside the kernel's own tunnel
    Bench(bench::BenchArgs),
}

/// Why a verb did not do what it was asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It failed at run time.
    Failed(String),
    /// It was asked wrongly.
    Usage(String),
    /// The kernel refused for want of a privilege.
    NoPrivilege(String),
    /// The configuration is wrong: a line per mistake.
    BadConfiguration(Vec<Finding>),
    /// The configuration does not fit this host, which only the daemon could see.
    Misfit(String),
    /// Everything was said already.
    Silent(u8),
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Failed(_) => FAILED,
            Self::Usage(_) => USAGE,
            Self::NoPrivilege(_) => NO_PRIVILEGE,
            Self::BadConfiguration(_) | Self::Misfit(_) => BAD_CONFIGURATION,
            Self::Silent(status) => *status,
        }
    }

    /// In words.
    fn said(&self) -> String {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::NoPrivilege(text)
            | Self::Misfit(text) => text.clone(),
            Self::BadConfiguration(findings) => {
                findings.iter().map(|finding| format!("{finding}\n")).collect()
            }
            Self::Silent(_) => String::new(),
        }
    }

    fn print(&self) {
        match self {
            Self::Failed(text)
            | Self::Usage(text)
            | Self::NoPrivilege(text)
            | Self::Misfit(text) => complain(format_args!("isthmus: {text}")),
            Self::BadConfiguration(findings) => {
                findings.iter().for_each(|finding| complain(format_args!("{finding}")));
            }
            Self::Silent(_) => {}
        }
    }
}

impl From<io::Error> for Failure {
    /// For writing results: a reader that closed the pipe has what it wanted.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Silent(0),
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// A line to standard error; when that is closed there is nobody left to tell.
fn complain(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `text` to standard output.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// A value as indented JSON to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let mut text =
        serde_json::to_string_pretty(value).map_err(|error| Failure::Failed(error.to_string()))?;
    text.push('\n');
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
