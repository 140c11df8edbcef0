//! Logs of a daemon: lines on standard error, for people or as JSON after the log data model of OpenTelemetry.

mod otel;

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, reload};

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

/// What is logged when nobody says it.
const USUAL: &str = "info";

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
) -> Result<Levels, ParseError> {
    let filter = filter(args.log.as_deref().or(service.log_level.as_deref()).unwrap_or(USUAL))?;
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // The journal stamps lines itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let set: Set = match args.log_format.or(service.log_format).unwrap_or(Format::Human) {
        Format::Json => {
            let builder = builder.with_ansi(false).event_format(otel::Otel::new(role));
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
        Format::Human if journal => {
            let builder = builder.without_time().with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
        Format::Human => {
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }
    };
    Ok(Levels { set, is_fixed: args.log.is_some() })
}

type Set = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send>;

/// What is logged, while the daemon runs.
pub(crate) struct Levels {
    set: Set,
    /// The command line said it.
    is_fixed: bool,
}

impl Levels {
    /// Takes over what another configuration says, unless the command line has said otherwise.
    pub(crate) fn take_over(&self, configured: Option<&str>) {
        if self.is_fixed {
            if configured.is_some() {
                tracing::warn!("[log] level is not heeded: --log of the command line is");
            }
            return;
        }
        let levels = configured.unwrap_or(USUAL);
        let set = filter(levels).map_err(|error| error.to_string());
        let set = set.and_then(|filter| (self.set)(filter).map_err(|error| error.to_string()));
        if let Err(error) = set {
            tracing::error!(levels, error, "what is logged stays as it was");
        }
    }
}
