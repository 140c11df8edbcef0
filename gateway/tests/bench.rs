//! `isthmus bench` as a person would type it, with as little load as it takes.

use std::process::{Command, Output};

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus")).arg("bench").args(arguments).output().unwrap()
}

#[test]
fn a_short_run_measures_every_contender_in_every_round() {
    let output = bench(&["encap", "--rounds", "2", "--seconds", "0.1", "--json"]);
    if output.status.code() == Some(77) {
        println!("SKIP: {}", String::from_utf8_lossy(&output.stderr).trim());
        return;
    }
    let report: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{error}: {}", String::from_utf8_lossy(&output.stderr));
        });
    assert!(output.status.success(), "{report:#}");
    let samples = report["results"][0]["samples"].as_array().unwrap();
    assert_eq!(samples.len(), 6, "{report:#}");
    assert!(samples.iter().all(|sample| sample["values"]["kpps"].as_f64().unwrap() > 0.0));
    assert_eq!(report["targets"][0]["measurement"], "encap");
}

#[test]
fn the_measurements_are_listed_without_any_privilege() {
    let output = bench(&["--list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let names: Vec<_> = text.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(["tcp-full", "tcp-wire", "encap", "decap"].iter().all(|name| names.contains(name)));
    assert_eq!(bench(&["--seconds", "0"]).status.code(), Some(2));
    assert_eq!(bench(&["encapsulation"]).status.code(), Some(2));
}
