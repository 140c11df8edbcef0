//! `isthmus lab`: real traffic through real daemons in network namespaces of their own, and what must be seen of it.
//!
//! Nothing is installed and no other program is run. [`topology`] builds the network, [`daemons`] starts this
//! program in its roles, [`probe`] sends, [`capture`] and [`decode`] watch the wire, [`scenarios`] say what must be
//! seen, [`report`] says what was.

pub(crate) mod addresses;
pub(crate) mod capture;
mod configuration;
pub(crate) mod daemons;
pub(crate) mod decode;
pub(crate) mod keeper;
pub mod link;
pub mod namespace;
pub(crate) mod offload;
mod pcap;
pub(crate) mod privilege;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod report;
mod scenarios;
pub(crate) mod session;
mod statistics;
mod topology;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use report::{Report, show};
use scenarios::{SCENARIOS, Scenario};
use session::Session;

/// Exit status when the privilege to make namespaces is missing.
pub(crate) const NO_PRIVILEGE: u8 = 77;
/// Exit status of wrong usage.
pub(crate) const USAGE: u8 = 2;

/// Proves the use cases on this machine, in network namespaces of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct LabArgs {
    /// Scenarios to run, in this order; all without any
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    /// List the scenarios and end
    #[arg(long)]
    pub list: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// Leave everything running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Write a capture file per watched namespace into DIR
    #[arg(long, value_name = "DIR")]
    pub pcap: Option<PathBuf>,
    /// Not for people: the process that ends the daemons when the lab dies
    #[arg(long, hide = true)]
    pub keeper: bool,
}

/// Runs the lab. Call it while the process has one thread only.
///
/// Exits 0 if every acceptance was observed, 1 if not, 2 for an unknown scenario, 77 without the privilege.
pub fn run(args: LabArgs) -> ExitCode {
    if args.keeper {
        keeper::main();
        return ExitCode::SUCCESS;
    }
    if args.list {
        list();
        return ExitCode::SUCCESS;
    }
    let chosen = match choose(&args.scenarios) {
        Ok(chosen) => chosen,
        Err(unknown) => {
            complain(&format!("no scenario is called {unknown}; see isthmus lab --list"));
            return ExitCode::from(USAGE);
        }
    };
    if let Err(error) = privilege::acquire() {
        complain(&error.to_string());
        return ExitCode::from(NO_PRIVILEGE);
    }
    match observe(&args, &chosen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn observe(args: &LabArgs, chosen: &[&'static Scenario]) -> io::Result<bool> {
    let begin = Instant::now();
    if !args.json {
        show(topology::DRAWING);
    }
    let session = Session::begin(args.pcap.as_deref())?;
    if !args.json {
        show(&format!("\nup after {:.1} s\n", begin.elapsed().as_secs_f64()));
    }
    let mut results = Vec::new();
    for scenario in chosen {
        let result = scenario.run(session.lab(), !args.json);
        if result.failed() > 0 && !args.json {
            session.lab().daemons.all().iter().for_each(|daemon| show(&daemon.log_tail()));
        }
        results.push(result);
    }
    let report = Report::of(results, begin.elapsed());
    if args.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    } else {
        show(&format!("\n{}\n", report.summary()));
    }
    if args.keep {
        session.keep(args.json);
    }
    Ok(report.passed())
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().collect());
    }
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| name.clone())
    };
    names.iter().map(find).collect()
}

fn list() {
    for scenario in SCENARIOS {
        show(&format!("{:<4} {}\n", scenario.name, scenario.title));
    }
}

fn complain(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "isthmus lab: {text}");
}
