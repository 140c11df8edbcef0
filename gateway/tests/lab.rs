//! `isthmus lab` as a person would type it: every acceptance of every scenario is observed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn every_acceptance_of_the_lab_is_observed() {
    let Some(observed) = observed(&[]) else { return };
    assert!(observed >= 100, "{observed}");
}

/// Every command of `EXERCISES.md` is run, and says what the page says.
#[test]
fn every_exercise_goes_as_its_page_says() {
    let names: Vec<String> = (1..=7).map(|number| format!("exercise-{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let Some(observed) = observed(&names) else { return };
    assert!(observed >= 90, "{observed}");
}

/// How many acceptances of these scenarios were observed, once all were; `None` without the privilege.
fn observed(scenarios: &[&str]) -> Option<u64> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    let output = command.arg("lab").args(scenarios).arg("--json").output().unwrap();
    if output.status.code() == Some(77) {
        println!("SKIP: {}", String::from_utf8_lossy(&output.stderr).trim());
        return None;
    }
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
    let failed: Vec<_> = report["scenarios"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|scenario| scenario["acceptances"].as_array().unwrap())
        .filter(|acceptance| acceptance["passed"] != true)
        .map(|it| {
            format!("{} {}: {}, expected {}", it["id"], it["text"], it["observed"], it["expected"])
        })
        .collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
    assert!(output.status.success());
    report["observed"].as_u64()
}

/// A network that is kept ends with the lab.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.0.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}

#[test]
fn a_kept_network_is_entered_by_the_name_of_a_place() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.args(["lab", "exercise-1", "--keep"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut kept = Kept(command.spawn().unwrap());
    let lines = BufReader::new(kept.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let script = lines
        .filter_map(|line| line.strip_prefix("  . ").map(str::to_owned))
        .find(|file| file.ends_with("/lab.sh"));
    let Some(script) = script else {
        let status = kept.0.wait().unwrap();
        assert_eq!(status.code(), Some(77), "no script was named");
        return println!("SKIP: no privilege to make namespaces");
    };
    let on = |words: &str| {
        let text = format!(". {script}; on {words}");
        Command::new("sh").args(["-c", &text]).output().unwrap()
    };
    let shown = on("xtr-1 isthmus lig 203.0.113.74");
    let text = String::from_utf8_lossy(&shown.stdout);
    assert!(text.contains("198.51.100.21  up"), "{text}{}", String::from_utf8_lossy(&shown.stderr));
    let links = on("host-1 cat /proc/net/dev");
    assert!(String::from_utf8_lossy(&links.stdout).contains("eth0"));
    assert_eq!(on("nowhere true").status.code(), Some(2));
}

#[test]
fn the_lab_lists_its_scenarios_without_any_privilege() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["lab", "--list"]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert_eq!(
        names,
        [
            "s1",
            "s2",
            "s3",
            "i1",
            "i2",
            "x1",
            "t1",
            "d1",
            "l1",
            "f1",
            "f2",
            "p1",
            "m1",
            "mobility",
            "traffic-engineering",
            "failover",
            "nat",
            "trusted-core",
            "exercise-1",
            "exercise-2",
            "exercise-3",
            "exercise-4",
            "exercise-5",
            "exercise-6",
            "exercise-7",
        ]
    );
    let unknown = Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["lab", "s9"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
