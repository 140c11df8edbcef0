use super::*;
use crate::bench::measurement::MEASUREMENTS;
use crate::bench::targets::Better;

fn encap() -> &'static Measurement {
    MEASUREMENTS.iter().find(|measurement| measurement.name == "encap").unwrap()
}

fn sample(contender: &str, round: usize, kpps: f64) -> Sample {
    let values = Values::from([("kpps", kpps), ("machine_ns", 1000.0)]);
    Sample { contender: contender.to_owned(), round, values, drops: BTreeMap::new() }
}

fn outcome() -> Outcome {
    // The machine gets slower from round to round; the ratio stays.
    let mut samples = Vec::new();
    for (round, speed) in [1000.0, 800.0, 200.0].into_iter().enumerate() {
        samples.push(sample("vxlan", round + 1, speed));
        samples.push(sample("isthmus", round + 1, speed * 0.9));
    }
    samples[1].values.insert("gateway_ns", 800.0);
    samples[1].drops.insert("martian".to_owned(), 7);
    Outcome::of(encap(), "v6-in-v4".to_owned(), samples)
}

fn target() -> Target {
    Target {
        measurement: "encap".to_owned(),
        value: "ratio".to_owned(),
        work: "64 B encap, x VXLAN".to_owned(),
        floor: 0.87,
        goal: 1.5,
        better: Better::More,
    }
}

#[test]
fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
    assert!((median(&[1.0, 2.0, 9.0]) - 2.0).abs() < 1e-9);
    assert!((median(&[1.0, 2.0, 4.0, 9.0]) - 3.0).abs() < 1e-9);
    assert!(median(&[]).abs() < 1e-9);
}

#[test]
fn ratios_are_taken_within_a_round() {
    let outcome = outcome();
    let ours = &outcome.summaries[1];
    assert_eq!(ours.contender, "isthmus");
    assert!((ours.median["ratio"] - 0.9).abs() < 1e-9);
    assert!((ours.median["kpps"] - 720.0).abs() < 1e-9);
    assert!((ours.least["kpps"] - 180.0).abs() < 1e-9);
    assert!((outcome.summaries[0].median["ratio"] - 1.0).abs() < 1e-9);
}

#[test]
fn the_table_is_aligned_and_leaves_out_what_was_not_measured() {
    let text = outcome().text(&[target()]);
    let expected = "
encap  64-byte packets, 64 flows, flood: gateway 1 alone  v6-in-v4
  Contender  kpps  x VXLAN  gateway ns/pkt  machine ns/pkt     spread
  vxlan       800     1.00               -            1000  200..1000
  isthmus     720     0.90             800            1000   180..900
  placement: the flood from processor 0, the gateway's process on the others
  target: 64 B encap, x VXLAN: floor 0.87, goal 1.5
  isthmus dropped martian: 7
";
    assert_eq!(text, expected);
}

#[test]
fn verdicts_are_about_our_daemons() {
    let verdicts = outcome().verdicts(&[target()]);
    assert_eq!(verdicts.len(), 1);
    assert!(verdicts[0].floor_met && !verdicts[0].goal_met);
    let expected = "
Target               family    measured  floor       goal
64 B encap, x VXLAN  v6-in-v4      0.90   0.87  met  1.50  not met
";
    assert_eq!(targets_text(&verdicts), expected);
    assert_eq!(targets_text(&[]), "");
}

#[test]
fn json_has_every_value_of_every_round() {
    let json = serde_json::to_value(outcome()).unwrap();
    assert_eq!(json["samples"].as_array().unwrap().len(), 6);
    assert_eq!(json["samples"][1]["values"]["gateway_ns"], 800.0);
    assert_eq!(json["samples"][1]["drops"]["martian"], 7);
    assert_eq!(json["summaries"][1]["median"]["kpps"], 720.0);
    let verdict = serde_json::to_value(&outcome().verdicts(&[target()])[0]).unwrap();
    assert_eq!(verdict["floor"], 0.87);
    assert_eq!(verdict["floor_met"], true);
}
