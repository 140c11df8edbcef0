//! Logs of a daemon: lines on standard error, for people or as JSON after the log data model of OpenTelemetry.

mod otel;

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::Service;

pub(crate) use otel::rfc3339;

/// How a daemon logs.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module such as info,xtr=debug [default: [log] level, else info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// How to log [default: [log] format, else human]
    #[arg(long, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line for people
    Human,
    /// A line of JSON per event, after the log data model of OpenTelemetry
    Json,
}

/// What `text` lets through.
pub(crate) fn filter(text: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(text)
}

/// Whether the command line says something that is no filter.
pub(crate) fn check(args: &LogArgs) -> Result<(), ParseError> {
    args.log.as_deref().map_or(Ok(()), |text| filter(text).map(drop))
}

/// Starts logging to standard error: as the command line says, else as the file says.
pub(crate) fn start(
    args: &LogArgs,
    service: &Service,
    role: &'static str,
) -> Result<(), ParseError> {
    let level = args.log.as_deref().or(service.log_level.as_deref()).unwrap_or("info");
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(level)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // The journal stamps lines itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    match args.log_format.or(service.log_format).unwrap_or(Format::Human) {
        Format::Json => builder.with_ansi(false).event_format(otel::Otel::new(role)).init(),
        Format::Human if journal => builder.without_time().init(),
        Format::Human => builder.init(),
    }
    Ok(())
}
