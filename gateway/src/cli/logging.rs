//! Logs of a daemon: lines on standard error, for people or as JSON.

use std::io::{self, IsTerminal};

use clap::{Args, ValueEnum};
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::{EnvFilter, reload};

/// How a daemon logs.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// What to log: a level (error, warn, info, debug, trace), or levels by module such as info,xtr=debug [default: [log] level of the configuration, else info]
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
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

/// What is logged when nobody says it.
const USUAL: &str = "info";

/// Whether `--log` is understood.
pub(crate) fn check(args: &LogArgs) -> Result<(), ParseError> {
    filter(args.log.as_deref().unwrap_or(USUAL)).map(drop)
}

/// Starts logging to standard error; `configured` is what the configuration says.
pub(crate) fn start(args: &LogArgs, configured: Option<&str>) -> Result<Levels, ParseError> {
    let filter = filter(args.log.as_deref().or(configured).unwrap_or(USUAL))?;
    let builder =
        tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    // The journal stamps lines itself.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let set: Set = match args.log_format {
        Format::Json => {
            let builder = builder.json().flatten_event(true);
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

fn filter(levels: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(levels)
}
