//! `isthmus bench`: our gateways beside the kernel's own tunnel and plain forwarding, in network namespaces of its own.
//!
//! Every contender has a network of its own ([`bed`]), built alike, and carries packets by its own method
//! ([`contender`], [`peer`]), with a map-cache of any size ([`crowd`]). [`measurement`] says what is sent ([`load`]), what is
//! counted ([`meter`]) and where all of it runs ([`placement`]). Contenders take turns in every round, so that what disturbs
//! the machine disturbs all of them; [`report`] makes medians and compares them with the targets.

mod bed;
mod contender;
mod crowd;
mod family;
mod load;
mod measurement;
mod meter;
mod peer;
mod placement;
mod report;
mod targets;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use tempfile::TempDir;

use crate::lab::daemons::Daemons;
use crate::lab::privilege;
use crate::lab::probe::udp::{self, EchoServer};
use crate::lab::processes::Running;
use crate::lab::report::show;
use crate::lab::session::heed_signals;
use contender::Contender;
pub(crate) use contender::{Method, Variant};
pub(crate) use crowd::MOST as LARGEST_MAP_CACHE;
pub(crate) use family::Family;
use load::frames;
pub(crate) use measurement::{Extent, MEASUREMENTS, Measurement};
pub(crate) use peer::{VARIABLE_PREFIX, peers};
use report::{Outcome, Report, Sample, targets_text};
use targets::{Target, targets};

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The measurements, in order.
    pub(crate) measurements: Vec<&'static Measurement>,
    /// The family combinations, one after the other.
    pub(crate) families: Vec<Family>,
    /// Names and methods.
    pub(crate) contenders: Vec<(String, Method)>,
    /// Rounds per measurement.
    pub(crate) rounds: usize,
    /// What one contender gets in one round.
    pub(crate) extent: Extent,
    /// JSON instead of text.
    pub(crate) json: bool,
}

/// How long a contender may take until the first packet comes back: a peer may ask for a mapping before it is
/// registered, and hear for a minute that there is none.
const FIRST_ECHO: Duration = Duration::from_secs(70);

/// Measures. Call it while the process has one thread only.
///
/// Exits 0 when everything was measured, 1 if not, 77 without the privilege.
pub(crate) fn run(plan: &Plan) -> ExitCode {
    if let Err(error) = privilege::acquire() {
        complain(&error.to_string());
        return ExitCode::from(crate::lab::NO_PRIVILEGE);
    }
    match measure_all(plan) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

fn measure_all(plan: &Plan) -> io::Result<bool> {
    let targets = targets()?;
    let mut report = Report {
        version: env!("CARGO_PKG_VERSION"),
        kernel: kernel(),
        cores: thread::available_parallelism().map_or(1, usize::from),
        rounds: plan.rounds,
        seconds: plan.extent.time.as_secs_f64(),
        results: Vec::new(),
        map_cache: plan.extent.crowd,
        failures: Vec::new(),
        targets: Vec::new(),
    };
    let running = Arc::new(Running::default());
    // The receiver is for a lab that is kept; nobody waits here.
    let _interrupts = heed_signals(running.clone(), Arc::new(AtomicBool::new(false)))?;
    if !plan.json {
        let Report { version, kernel, cores, rounds, seconds, .. } = &report;
        show(&format!(
            "isthmus {version}, Linux {kernel}, {cores} cores; median of {rounds} rounds of {seconds} s, contenders in turn\n\
             {}",
            bed::DRAWING
        ));
    }
    for &family in &plan.families {
        measure_family(plan, family, &running, &targets, &mut report)?;
    }
    if plan.json {
        show(&format!("{}\n", serde_json::to_string_pretty(&report)?));
    } else {
        show(&targets_text(&report.targets));
    }
    Ok(report.failures.is_empty())
}

fn measure_family(
    plan: &Plan,
    family: Family,
    running: &Arc<Running>,
    targets: &[Target],
    report: &mut Report,
) -> io::Result<()> {
    let daemons = Daemons::none(running.clone(), TempDir::with_prefix("isthmus-bench-")?)?;
    let mut contenders = Vec::new();
    for (name, method) in &plan.contenders {
        progress(&format!("{family}: setting up {name}"));
        let contender = Contender::set_up(name, method, family, &daemons)
            .map_err(|error| io::Error::other(format!("{name}: {error}")))?;
        greet(&contender, family)?;
        crowd::gather(&contender, family, plan.extent.crowd)?;
        contenders.push(contender);
    }
    for measurement in &plan.measurements {
        for contender in &contenders {
            measurement.prepare(&contender.bed)?;
        }
        let mut samples = Vec::new();
        for round in 1..=plan.rounds {
            for contender in &mut contenders {
                if !measurement.concerns(contender) {
                    continue;
                }
                let name = contender.name.clone();
                progress(&format!(
                    "{family}: {}: round {round} of {}: {name}",
                    measurement.name, plan.rounds
                ));
                let before = drops(contender);
                match measurement.take(contender, family, plan.extent, &daemons) {
                    Ok(values) => {
                        let mut drops = drops(contender);
                        drops.retain(|reason, count| {
                            *count -= before.get(reason).copied().unwrap_or(0).min(*count);
                            *count > 0
                        });
                        samples.push(Sample { contender: name, round, values, drops });
                    }
                    Err(error) => {
                        let text = format!("{} {family} {name}: {error}", measurement.name);
                        complain(&text);
                        report.failures.push(text);
                    }
                }
            }
        }
        progress("");
        let outcome = Outcome::of(measurement, family.to_string(), samples);
        if !plan.json {
            show(&outcome.text(targets));
        }
        report.targets.extend(outcome.verdicts(targets));
        report.results.push(outcome);
    }
    Ok(())
}

/// Sends the first packets, so that mappings and neighbours are known before anything is measured.
fn greet(contender: &Contender, family: Family) -> io::Result<()> {
    let (near, far) = (frames::near(family.inner), frames::far(family.inner));
    let server = EchoServer::start(&contender.bed.host2, far)?;
    let deadline = Instant::now() + FIRST_ECHO;
    while udp::flows(&contender.bed.host1, near, server.address(), (1, 1, 64))? > 0 {
        if Instant::now() > deadline {
            let logs: String =
                contender.daemons.iter().flatten().map(|daemon| daemon.log_tail()).collect();
            let name = &contender.name;
            return Err(io::Error::other(format!("{name}: host 2 cannot be reached\n{logs}")));
        }
    }
    // Nobody answers from the sink, but now its mapping is asked for.
    let sink = SocketAddr::new(frames::sink(family.inner), server.address().port());
    udp::flows(&contender.bed.host1, near, sink, (1, 1, 64)).map(drop)
}

/// What our daemons dropped so far; nothing of the kernel's methods.
fn drops(contender: &Contender) -> std::collections::BTreeMap<String, u64> {
    let mut drops = std::collections::BTreeMap::new();
    for daemon in contender.daemons.iter().flatten() {
        // A daemon too busy to answer has its drops counted in the next sample.
        let Ok(answer) = daemon.ask(&Query::Drops) else { continue };
        for drop in answer.as_array().into_iter().flatten() {
            if let (Some(reason), Some(count)) = (drop["reason"].as_str(), drop["count"].as_u64()) {
                *drops.entry(reason.to_owned()).or_default() += count;
            }
        }
    }
    drops
}

fn kernel() -> String {
    let name = nix::sys::utsname::uname();
    name.map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default()
}

/// One line on standard error that the next one replaces; lines of their own where that is no terminal.
fn progress(text: &str) {
    let mut out = io::stderr();
    // Without a standard error there is nobody to tell.
    let _ = if io::IsTerminal::is_terminal(&out) {
        write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
    } else if text.is_empty() {
        Ok(())
    } else {
        writeln!(out, "{text}")
    };
}

fn complain(text: &str) {
    // Without a standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "isthmus bench: {text}");
}
