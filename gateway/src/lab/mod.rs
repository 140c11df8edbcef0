//! `isthmus lab`: real traffic through real daemons in network namespaces of their own, and what must be seen of it.
//!
//! Nothing is installed and no other program is run. [`topology`] builds the network of the IPv6 migration, [`network`]
//! those that scenarios describe for themselves; one is up at a time. [`daemons`] starts this program in its roles,
//! [`probe`] sends, [`relay`] delays and loses, [`capture`] and [`decode`] watch the wire, [`scenarios`] say what must
//! be seen, [`report`] says what was. [`walk`] does what a page tells learners to do.

pub(crate) mod addresses;
pub(crate) mod capture;
mod configuration;
pub(crate) mod daemons;
pub(crate) mod decode;
pub(crate) mod keeper;
pub mod link;
pub mod namespace;
mod nat;
pub(crate) mod network;
pub mod offload;
mod pcap;
pub(crate) mod pressure;
pub(crate) mod privilege;
pub(crate) mod probe;
pub(crate) mod processes;
pub(crate) mod relay;
pub(crate) mod report;
mod scenarios;
pub(crate) mod session;
mod statistics;
mod topology;
mod walk;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use pressure::{ATTEMPTS, Before, Pressure};
use report::{Checks, Report, show};
use scenarios::{SCENARIOS, Scenario, When};
use session::{Session, Watch};

/// Exit status when the privilege to make namespaces is missing.
pub(crate) const NO_PRIVILEGE: u8 = 77;
/// Exit status of wrong usage.
pub(crate) const USAGE: u8 = 2;

/// Proves the use cases on this machine, in network namespaces of its own.
#[derive(Clone, Debug, clap::Args)]
pub struct LabArgs {
    /// Scenarios to run, in this order as far as they share a network; without any, all but the exercises
    #[arg(value_name = "SCENARIO")]
    pub scenarios: Vec<String>,
    /// List the scenarios, each with its network, and end
    #[arg(long)]
    pub list: bool,
    /// Print one JSON document instead of text
    #[arg(long)]
    pub json: bool,
    /// Leave the last network running afterwards, until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Write a capture file per watched namespace into DIR, for networks other than that of the migration in a directory each
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
        list(args.json);
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
    let watch = Watch::begin()?;
    let mut results = Vec::new();
    let mut last = None;
    for scenarios in by_network(chosen) {
        // One network at a time: the one before goes first.
        drop(last.take());
        last = observe_network(args, &watch, &scenarios, &mut results);
    }
    let report = Report::of(results, begin.elapsed());
    if args.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    } else {
        show(&format!("\n{}\n", report.summary()));
    }
    if let Some(session) = last.filter(|_| args.keep) {
        session.keep(&watch, args.json);
    }
    Ok(report.passed())
}

/// Runs `scenarios`, which share a network; returns it, or nothing if it does not come up. Those that fail while the machine is short of
/// cores run anew on a fresh network, as often as [`pressure::ATTEMPTS`] says.
fn observe_network(
    args: &LabArgs,
    watch: &Watch,
    scenarios: &[&'static Scenario],
    results: &mut Vec<Checks>,
) -> Option<Session> {
    let mut todo: Vec<(&Scenario, Before)> =
        scenarios.iter().map(|scenario| (*scenario, Before::new())).collect();
    for attempt in 1..=ATTEMPTS {
        let chosen: Vec<_> = todo.iter().map(|(scenario, _)| *scenario).collect();
        let (session, seen) = on_network(args, watch, &chosen);
        let mut again = Vec::new();
        for ((scenario, mut before), (checks, why)) in todo.into_iter().zip(seen) {
            match why.filter(|_| checks.failed() > 0 && attempt < ATTEMPTS) {
                Some(why) => {
                    if !args.json {
                        show(&format!("\n{} runs again: {why}\n", checks.scenario.to_uppercase()));
                    }
                    before.extend(pressure::failures(checks.acceptances, &why));
                    again.push((scenario, before));
                }
                None => results.push(pressure::after(checks, before)),
            }
        }
        if again.is_empty() {
            return session;
        }
        todo = again;
    }
    None
}

/// Brings up the network of `scenarios` and runs each once; with what was seen, why that may be the machine's fault.
fn on_network(
    args: &LabArgs,
    watch: &Watch,
    scenarios: &[&'static Scenario],
) -> (Option<Session>, Vec<(Checks, Option<String>)>) {
    let print = !args.json;
    if print {
        scenarios.first().inspect(|first| show(first.drawing()));
    }
    let (begin, pressure) = (Instant::now(), Pressure::begin());
    let plan = scenarios.first().and_then(|first| first.plan());
    let mut session = match Session::begin(plan, watch, args.pcap.as_deref()) {
        Ok(session) => session,
        Err(error) => {
            let why = pressure.end();
            let seen = scenarios.iter().map(|s| (s.without_network(&error, print), why.clone()));
            return (None, seen.collect());
        }
    };
    if print {
        show(&format!("\nup after {:.1} s\n", begin.elapsed().as_secs_f64()));
    }
    let mut seen = Vec::new();
    for scenario in scenarios {
        let pressure = Pressure::begin();
        let checks = scenario.run(&mut session, print);
        if checks.failed() > 0 && print {
            show(&session.logs());
        }
        seen.push((checks, pressure.end()));
    }
    (Some(session), seen)
}

/// The scenarios of each network, networks in the order in which they are first needed.
fn by_network(chosen: &[&'static Scenario]) -> Vec<Vec<&'static Scenario>> {
    let mut networks: Vec<Vec<&'static Scenario>> = Vec::new();
    for scenario in chosen {
        match networks.iter_mut().find(|others| others[0].network() == scenario.network()) {
            Some(others) => others.push(scenario),
            None => networks.push(vec![scenario]),
        }
    }
    networks
}

fn choose(names: &[String]) -> Result<Vec<&'static Scenario>, String> {
    if names.is_empty() {
        return Ok(SCENARIOS.iter().filter(|scenario| scenario.when == When::Always).collect());
    }
    let find = |name: &String| {
        let found = SCENARIOS.iter().find(|scenario| scenario.name.eq_ignore_ascii_case(name));
        found.ok_or_else(|| name.clone())
    };
    names.iter().map(find).collect()
}

fn list(json: bool) {
    if json {
        let listed = SCENARIOS.iter().map(|scenario| {
            serde_json::json!({
                "name": scenario.name,
                "network": scenario.network(),
                "title": scenario.title,
            })
        });
        return show(&format!("{:#}\n", serde_json::Value::from_iter(listed)));
    }
    let width =
        |of: fn(&Scenario) -> &str| SCENARIOS.iter().map(|s| of(s).len()).max().unwrap_or(0);
    let (names, networks) = (width(|s| s.name), width(Scenario::network));
    for scenario in SCENARIOS {
        let (name, network) = (scenario.name, scenario.network());
        show(&format!("{name:<names$}  {network:<networks$}  {}\n", scenario.title));
    }
}

fn complain(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "isthmus lab: {text}");
}
