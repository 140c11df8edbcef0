//! `isthmus bench`: what to measure, from the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::{Failure, complain, print, print_json};
use crate::bench::{
    self, Extent, Family, LARGEST_MAP_CACHE, MEASUREMENTS, Measurement, Method, Plan,
    VARIABLE_PREFIX, Variant,
};

/// Rounds without a word from the user.
const ROUNDS: u16 = 5;
/// Seconds per contender and round without a word from the user.
const SECONDS: f64 = 1.5;
/// What `--quick` means.
const QUICK: (u16, f64) = (3, 0.5);
/// Longest measurement of one contender in one round.
const LONGEST: f64 = 60.0;

/// What `bench` is asked.
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  isthmus bench                                the usual measurements, IPv6 in IPv4
  isthmus bench --quick tcp-wire encap         a first look
  isthmus bench encap --variant \"ring: intake = 'ring'\"
                                               two configurations side by side
  isthmus bench encap --contenders vxlan,isthmus,ring
                                               ours with intake by ring too
  isthmus bench --program old=target/old/isthmus
                                               two builds side by side

Needs root or user namespaces, and leaves the machine's own network alone.
Exit status: 0 measured, 1 failed, 2 wrong usage, 77 a privilege is missing.")]
pub(crate) struct BenchArgs {
    /// Measurements to make, in this order; the usual ones without any
    #[arg(value_name = "MEASUREMENT")]
    measurements: Vec<String>,
    /// List the measurements and end
    #[arg(long)]
    list: bool,
    /// Print one JSON document with every round's values instead of text
    #[arg(long)]
    json: bool,
    /// Rounds per measurement [default: 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Seconds per contender and round [default: 1.5]
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<f64>,
    /// 3 rounds of 0.5 s
    #[arg(long)]
    quick: bool,
    /// Hosts' IP version in the core's: v6-in-v4, v4-in-v4, v4-in-v6 or v6-in-v6
    #[arg(long, value_name = "FAMILY", default_value_t = Family::MIGRATION)]
    family: Family,
    /// All four family combinations, one after the other
    #[arg(long, conflicts_with = "family")]
    all_families: bool,
    /// TCP flows
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    flows: u16,
    /// Packets of one flow that follow each other in a flood
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    train: u16,
    /// EID-prefixes in the map-cache of gateway 1; the packets of the measurement encap are spread over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=LARGEST_MAP_CACHE as i64))]
    map_cache: u32,
    /// Who takes part: plain, vxlan, isthmus, and peers given by environment variables [default: all of them]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    contenders: Vec<String>,
    /// Workers of each of our daemons, or "auto"
    #[arg(long, value_name = "N", default_value = "1", value_parser = workers)]
    workers: Workers,
    /// Another contender: our daemons with more lines in [xtr]
    #[arg(long, value_name = "NAME: TOML", value_parser = variant)]
    variant: Vec<(String, String)>,
    /// Another contender: another build of this program
    #[arg(long, value_name = "NAME=PATH", value_parser = program)]
    program: Vec<(String, PathBuf)>,
}

/// How many workers.
#[derive(Clone, Copy, Debug)]
struct Workers(Option<u16>);

/// Runs the benchmarks. Call it while the process has one thread only.
pub(crate) fn run(args: BenchArgs) -> ExitCode {
    let done = if args.list { list(args.json) } else { args.plan().map(|plan| bench::run(&plan)) };
    done.unwrap_or_else(|failure| {
        failure.print();
        ExitCode::from(failure.status())
    })
}

fn list(json: bool) -> Result<ExitCode, Failure> {
    if json {
        let listed = MEASUREMENTS.iter().map(|measurement| {
            serde_json::json!({
                "name": measurement.name,
                "title": measurement.title,
                "usual": measurement.is_usual(),
            })
        });
        print_json(&listed.collect::<Vec<_>>())?;
        return Ok(ExitCode::SUCCESS);
    }
    for measurement in MEASUREMENTS {
        let when = if measurement.is_usual() { "" } else { " (only when asked for)" };
        print(&format!("{:<13} {}{when}\n", measurement.name, measurement.title))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl BenchArgs {
    fn plan(self) -> Result<Plan, Failure> {
        let (rounds, seconds) = if self.quick { QUICK } else { (ROUNDS, SECONDS) };
        let seconds = self.seconds.unwrap_or(seconds);
        if !(0.05..=LONGEST).contains(&seconds) {
            let text = format!("--seconds {seconds}: 0.05 to {LONGEST} seconds are possible");
            return Err(Failure::Usage(text));
        }
        Ok(Plan {
            measurements: self.chosen()?,
            families: if self.all_families { Family::ALL.to_vec() } else { vec![self.family] },
            contenders: self.contenders()?,
            rounds: self.rounds.unwrap_or(rounds).into(),
            extent: Extent {
                time: Duration::from_secs_f64(seconds),
                flows: self.flows.into(),
                train: self.train.into(),
                crowd: self.crowd(),
            },
            json: self.json,
        })
    }

    /// One entry is what is there without a crowd.
    fn crowd(&self) -> usize {
        if self.map_cache > 1 { self.map_cache as usize } else { 0 }
    }

    fn chosen(&self) -> Result<Vec<&'static Measurement>, Failure> {
        if self.measurements.is_empty() {
            return Ok(MEASUREMENTS.iter().filter(|measurement| measurement.is_usual()).collect());
        }
        let find = |name: &String| {
            MEASUREMENTS.iter().find(|measurement| measurement.name == name).ok_or_else(|| {
                Failure::Usage(format!("no measurement is called {name}; see isthmus bench --list"))
            })
        };
        self.measurements.iter().map(find).collect()
    }

    fn contenders(&self) -> Result<Vec<(String, Method)>, Failure> {
        let Workers(workers) = self.workers;
        let usual = Variant { workers, crowd: self.crowd(), ..Variant::default() };
        let mut contenders = Vec::new();
        let text = |(name, value): (OsString, OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let peers = bench::peers(std::env::vars_os().filter_map(text));
        let mut names: Vec<_> = self.contenders.iter().map(String::as_str).collect();
        if names.is_empty() {
            names.extend(["plain", "vxlan", "isthmus"]);
            names.extend(peers.keys().map(String::as_str));
        }
        for name in names {
            let method = match name {
                "plain" => Method::Plain,
                "vxlan" => Method::Vxlan,
                "isthmus" => Method::Isthmus(usual.clone()),
                "ring" => {
                    let lines = "intake = \"ring\"".to_owned();
                    Method::Isthmus(Variant { lines, ..usual.clone() })
                }
                _ => match peers.get(name) {
                    Some(command) => Method::Peer(command.clone()),
                    None => {
                        let known = ["plain", "vxlan", "isthmus", "ring"];
                        if let Some(meant) = crate::config::nearest(name, known.into_iter()) {
                            let text =
                                format!("no contender is called {name}: did you mean {meant}?");
                            return Err(Failure::Usage(text));
                        }
                        complain(format_args!(
                            "SKIP: {name}: set {VARIABLE_PREFIX}{} to a command that runs it in a gateway; \
                             see gateway/BENCH.md",
                            name.to_uppercase()
                        ));
                        continue;
                    }
                },
            };
            contenders.push((name.to_owned(), method));
        }
        for (name, lines) in &self.variant {
            let variant = Variant { lines: lines.clone(), ..usual.clone() };
            contenders.push((name.clone(), Method::Isthmus(variant)));
        }
        for (name, program) in &self.program {
            let variant = Variant { program: Some(program.clone()), ..usual.clone() };
            contenders.push((name.clone(), Method::Isthmus(variant)));
        }
        let mut names: Vec<_> = contenders.iter().map(|(name, _)| name).collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(Failure::Usage(format!("two contenders are called {}", twice[0])));
        }
        Ok(contenders)
    }
}

fn workers(text: &str) -> Result<Workers, String> {
    match text {
        "auto" => Ok(Workers(None)),
        _ => match text.parse() {
            Ok(number @ 1..=256) => Ok(Workers(Some(number))),
            _ => Err("write \"auto\" or 1 to 256".to_owned()),
        },
    }
}

fn variant(text: &str) -> Result<(String, String), String> {
    let (name, lines) = text.split_once(':').ok_or("write NAME: and what to add to [xtr]")?;
    Ok((named(name)?, lines.trim().to_owned()))
}

fn program(text: &str) -> Result<(String, PathBuf), String> {
    let (name, path) = text.split_once('=').ok_or("write NAME=PATH")?;
    Ok((named(name)?, PathBuf::from(path)))
}

/// A contender's name is also the beginning of the names of its files.
fn named(name: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.' || c == '_';
    if name.is_empty() || name.len() > 20 || !name.chars().all(fits) {
        return Err(format!("{name:?} is no name: 1 to 20 letters, digits, '-', '.' and '_' are"));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: BenchArgs,
    }

    fn plan(line: &str) -> Result<Plan, String> {
        let line = Line::try_parse_from(std::iter::once("bench").chain(line.split('|')))
            .map_err(|error| error.to_string())?;
        line.args.plan().map_err(|failure| format!("{failure:?}"))
    }

    #[test]
    fn without_a_word_the_usual_is_measured() {
        let plan = plan("--json").unwrap();
        assert_eq!((plan.rounds, plan.extent.flows, plan.families.len()), (5, 1, 1));
        assert!(plan.measurements.iter().all(|measurement| measurement.is_usual()));
        let names: Vec<_> = plan.contenders.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["plain", "vxlan", "isthmus"]);
    }

    #[test]
    fn quick_is_short_and_can_be_made_shorter() {
        let plan = plan("--quick|--seconds|0.2|encap").unwrap();
        assert_eq!((plan.rounds, plan.extent.time), (3, Duration::from_millis(200)));
        assert_eq!(plan.measurements.len(), 1);
    }

    #[test]
    fn variants_and_other_builds_are_contenders_of_their_own() {
        let plan = plan("--variant|ring: intake = \"ring\"|--program|old=/tmp/isthmus").unwrap();
        let (name, ring) = &plan.contenders[3];
        assert_eq!(name, "ring");
        let Method::Isthmus(ring) = ring else { panic!("{ring:?}") };
        assert_eq!((ring.lines.as_str(), ring.workers), ("intake = \"ring\"", Some(1)));
        let (_, old) = &plan.contenders[4];
        let Method::Isthmus(old) = old else { panic!("{old:?}") };
        assert_eq!(old.program.as_deref(), Some(std::path::Path::new("/tmp/isthmus")));
    }

    #[test]
    fn a_peer_that_is_not_there_is_skipped() {
        let plan = plan("--contenders|plain,nobody|--map-cache|10000").unwrap();
        assert_eq!(plan.contenders, [("plain".to_owned(), Method::Plain)]);
        assert_eq!(plan.extent.crowd, 10_000);
    }

    #[test]
    fn wrong_usage_is_said() {
        for line in [
            "--seconds|0",
            "--seconds|1e9",
            "tcp",
            "--family|v5-in-v4",
            "--workers|0",
            "--variant|isthmus: mtu = 1500",
            "--variant|../x: mtu = 1500",
            "--program|old",
            "--rounds|0",
            "--map-cache|5000000",
            "--contenders|plain,isthmsu",
        ] {
            assert!(plan(line).is_err(), "{line}");
        }
    }
}
