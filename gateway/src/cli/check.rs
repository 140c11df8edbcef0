//! `isthmus check`: every mistake in configuration files, at once.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::{Failure, complain, print, print_json};
use crate::config::{self, Finding, Host};

/// What `check` is asked.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  isthmus check /etc/isthmus/gateway.toml
  isthmus check --offline configs/*.toml     on a machine that will not run them

A mistake is one line: FILE:LINE: KEY: what is wrong; what would be right. Exit status 78 if there is any.")]
pub(crate) struct CheckArgs {
    /// Configuration files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Do not look at this host: addresses, interfaces and key files are taken as they are written
    #[arg(long)]
    offline: bool,
    /// Print a JSON document instead of text
    #[arg(long)]
    json: bool,
}

/// Checks every file.
pub(crate) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let host = if args.offline {
        None
    } else {
        let host = Host::read().map_err(|e| Failure::Failed(format!("own addresses: {e}")))?;
        Some(host)
    };
    let (mut results, mut failed) = (Vec::new(), false);
    for file in &args.files {
        let (role, errors, warnings) = match config::load(file, host.clone()) {
            Ok(loaded) => (Some(loaded.config.role()), Vec::new(), loaded.warnings),
            Err(refused) => (None, refused.errors, refused.warnings),
        };
        failed |= !errors.is_empty();
        let name = file.display().to_string();
        if args.json {
            results.push(json!({
                "file": name,
                "role": role,
                "errors": errors.iter().map(finding_json).collect::<Vec<_>>(),
                "warnings": warnings.iter().map(finding_json).collect::<Vec<_>>(),
            }));
            continue;
        }
        print_warnings(&warnings);
        errors.iter().for_each(|error| complain(format_args!("{error}")));
        if let Some(role) = role {
            print(&format!("{name}: ok ({role})\n"))?;
        }
    }
    if args.json {
        print_json(&results)?;
    }
    if failed { Err(Failure::Silent(super::BAD_CONFIGURATION)) } else { Ok(()) }
}

/// Warnings, marked as such.
pub(super) fn print_warnings(warnings: &[Finding]) {
    for warning in warnings {
        let marked =
            Finding { message: format!("warning: {}", warning.message), ..warning.clone() };
        complain(format_args!("{marked}"));
    }
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    json!({"line": finding.line, "key": finding.key, "message": finding.message})
}
