//! `isthmus lab` as a person would type it: every acceptance of every scenario is observed.

use std::process::Command;

#[test]
fn every_acceptance_of_the_lab_is_observed() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["lab", "--json"]).output().unwrap();
    if output.status.code() == Some(77) {
        println!("SKIP: {}", String::from_utf8_lossy(&output.stderr).trim());
        return;
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
    assert!(report["observed"].as_u64().unwrap() >= 100);
    assert!(output.status.success());
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
            "trusted-core"
        ]
    );
    let unknown = Command::new(env!("CARGO_BIN_EXE_isthmus")).args(["lab", "s9"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
}
