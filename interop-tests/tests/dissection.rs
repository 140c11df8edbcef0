//! An independent dissector reads every packet that the lab produced: none is malformed, none has an expert error, and every
//! control and data packet is recognised as LISP.

use std::path::Path;
use std::process::Command;

use interop_tests::daemon;

/// Set where the tools are provided, so that a missing one is a failure there.
const TOOLS_REQUIRED: &str = "ISTHMUS_REQUIRE_TOOLS";

#[test]
fn a_foreign_dissector_finds_nothing_wrong_with_the_labs_packets() {
    if Command::new("tshark").arg("--version").output().is_err() {
        assert!(std::env::var_os(TOOLS_REQUIRED).is_none(), "tshark is not installed");
        println!("SKIP: tshark is not installed");
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let program = daemon::program().expect("isthmus is built");
    let lab = Command::new(program)
        .args(["lab", "--json", "--pcap"])
        .arg(directory.path())
        .output()
        .expect("the lab runs");
    if lab.status.code() == Some(77) {
        println!("SKIP: {}", String::from_utf8_lossy(&lab.stderr).trim());
        return;
    }
    assert!(lab.status.success(), "{}", String::from_utf8_lossy(&lab.stdout));
    let guesses = guessing_dissectors();
    let (mut captures, mut control, mut data) = (0, 0, 0);
    for entry in std::fs::read_dir(directory.path()).expect("captures") {
        let file = entry.expect("capture").path();
        let wrong = frames(&file, &guesses, "_ws.malformed || _ws.expert.severity >= 0x800000");
        assert!(wrong.is_empty(), "{}: {wrong:#?}", file.display());
        let foreign = "(udp.port == 4341 && !lisp-data) || (udp.port == 4342 && !lisp)";
        let unrecognised = frames(&file, &guesses, foreign);
        assert!(unrecognised.is_empty(), "{}: {unrecognised:#?}", file.display());
        control += frames(&file, &guesses, "lisp").len();
        data += frames(&file, &guesses, "lisp-data").len();
        captures += 1;
    }
    assert!(captures >= 2 && control > 50 && data > 10_000, "{captures} {control} {data}");
}

/// The frames that `filter` selects, a line each with the dissector's complaint.
fn frames(file: &Path, without: &[String], filter: &str) -> Vec<String> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-Y", filter, "-T", "fields"]);
    for field in ["frame.number", "_ws.col.Protocol", "_ws.col.Info", "_ws.expert.message"] {
        command.args(["-e", field]);
    }
    for name in without {
        command.args(["--disable-protocol", name]);
    }
    let output = command.output().expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

/// Protocols that tshark guesses from the payload alone: the lab's TCP and UDP payloads are patterns of no protocol.
fn guessing_dissectors() -> Vec<String> {
    let output = Command::new("tshark").args(["-G", "heuristic-decodes"]).output();
    let output = output.expect("tshark runs");
    let mut names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let mut columns = line.split('\t');
            let below = columns.next()?;
            matches!(below, "tcp" | "udp").then(|| columns.next().map(str::to_owned))?
        })
        .collect();
    names.sort();
    names.dedup();
    names
}
