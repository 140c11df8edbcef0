//! Logs of a daemon: lines on standard error, for people or as JSON.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How a daemon logs.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module such as info,xtr=debug
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// How to log
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "human")]
    log_format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for people
    Human,
    /// A line of JSON per event
    Json,
}

/// Starts logging to standard error.
pub(crate) fn start(args: &LogArgs) -> Result<(), ParseError> {
    let filter = EnvFilter::builder().parse(&args.log)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The journal stamps lines itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match args.log_format {
        Format::Json => builder.json().flatten_event(true).init(),
        Format::Human if journal => builder.without_time().init(),
        Format::Human => builder.init(),
    }
    Ok(())
}
