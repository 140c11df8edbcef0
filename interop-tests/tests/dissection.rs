//! An independent dissector reads every packet that the lab produced: none is malformed, none has an expert error, and every
//! control and data packet is recognised as LISP. It also reads what the lab does not send as it is meant.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use interop_tests::dissector::{self, Frame, frames, pcap, pcap_of};
use interop_tests::{corpus, daemon, emitted};
use mapping::eid::{InstanceId, MapVersion};
use mapping::wire::DATA_PORT;
use xtr::marks::{HeaderMarks, StatusBits, Tag};
use xtr::packet::lisp;

#[test]
fn a_foreign_dissector_finds_nothing_wrong_with_the_labs_packets() {
    if dissector::is_missing() {
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
    assert!(lab.status.success(), "{}", failures(&lab.stdout));
    let guesses = guessing_dissectors();
    let (mut captures, mut control, mut data) = (0, 0, 0);
    for file in captures_under(directory.path()) {
        for frame in frames(&file, &guesses) {
            let Frame { number, protocols, remarks, .. } = &frame;
            let file = file.display();
            assert!(frame.is_sound(), "{file}, frame {number}: {protocols}: {remarks}");
            control += usize::from(frame.has("lisp"));
            data += usize::from(frame.has("lisp-data"));
        }
        captures += 1;
    }
    println!("{captures} captures: {control} control messages, {data} data packets");
    assert!(captures >= 10 && control > 500 && data > 100_000, "{captures} {control} {data}");
}

/// What the lab did not observe.
fn failures(report: &[u8]) -> String {
    let report: serde_json::Value = serde_json::from_slice(report).unwrap_or_default();
    let scenarios = report["scenarios"].as_array().into_iter().flatten();
    let all = scenarios.flat_map(|one| one["acceptances"].as_array().into_iter().flatten());
    let failed = all.filter(|acceptance| acceptance["passed"] != true);
    failed.map(|acceptance| format!("{acceptance}\n")).collect()
}

/// Of all networks of the lab: each but the first has a directory of its own.
fn captures_under(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths.flat_map(|path| if path.is_dir() { captures_under(&path) } else { vec![path] }).collect()
}

#[test]
fn dd_02_dd_03_cw_29_a_foreign_dissector_reads_map_referrals_and_names_as_meant() {
    if dissector::is_missing() {
        return;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("made.pcap");
    let messages = [corpus::map_referral(0), corpus::named_reply()];
    std::fs::write(&file, pcap(&messages)).expect("a capture");
    let output = Command::new("tshark").arg("-V").arg("-r").arg(&file).output();
    let text = String::from_utf8(output.expect("tshark runs").stdout).expect("text");
    for expected in [
        "Type: Map-Referral (6)",
        "Mapping Record 1, EID Prefix: 2001:db8::/32, TTL: 1440, Map-Server Referral, Authoritative",
        "Locator Record 2, RLOC: 2001:db8:b::1, Reachable, Priority/Weight: 1/50",
        "Mapping Record 2, EID Prefix: 203.0.113.0/25, TTL: 15, Delegation Hole (Incomplete), Not Authoritative",
        ".... 1... .... .... = Incomplete: Set",
        "EID Prefix AFI: Distinguished Name (17)",
        "EID Prefix: ietf",
    ] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
    assert!(!text.contains("Expert Info") && !text.contains("Malformed"), "{text}");
}

/// What the dissector reads otherwise than the RFCs: the message, what it says, and why it is wrong.
const DISSECTOR_IS_WRONG: [(&str, &str, &str); 1] = [(
    "unsubscription in an ECM",
    "Unexpected ITR-RLOC-AFI (0), cannot decode",
    "RFC 9437 §5: whoever unsubscribes has one ITR-RLOC, of AFI 0",
)];

/// Also what no scenario of the lab sends. An exception that is needed no longer fails as well.
#[test]
fn a_foreign_dissector_finds_nothing_wrong_with_any_message_that_is_sent() {
    if dissector::is_missing() {
        return;
    }
    let messages = emitted::all();
    let octets: Vec<_> =
        messages.iter().map(|(_, octets)| octets_for_the_dissector(octets)).collect();
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("made.pcap");
    std::fs::write(&file, pcap(&octets)).expect("a capture");
    let frames = frames(&file, &[]);
    assert_eq!(frames.len(), messages.len());
    let wrong = messages.iter().zip(&frames).filter(|(_, frame)| !frame.is_sound());
    let wrong: Vec<_> = wrong.map(|((name, _), frame)| (*name, frame.remarks.as_str())).collect();
    let expected: Vec<_> =
        DISSECTOR_IS_WRONG.iter().map(|(name, says, _)| (*name, *says)).collect();
    assert_eq!(wrong, expected);
    println!("{} messages dissected, {} exceptions", messages.len(), expected.len());
}

/// It does not know type 5, a Map-Notify-Ack, which differs from a Map-Notify, type 4, in nothing else (RFC 9301 §5.7).
fn octets_for_the_dissector(octets: &[u8]) -> Vec<u8> {
    let mut octets = octets.to_vec();
    if let Some(first) = octets.first_mut().filter(|first| **first >> 4 == 5) {
        *first = 4 << 4 | *first & 0x0f;
    }
    octets
}

/// Nonces, map-versions and Locator-Status-Bits, each as a trusted core has them.
#[test]
fn dh_01_dh_02_dh_05_dh_07_dh_08_a_foreign_dissector_reads_data_headers_as_meant() {
    if dissector::is_missing() {
        return;
    }
    let status_bits = |bits| Some(StatusBits { bits, known: bits });
    let versions = Tag::Versions {
        source: MapVersion::from_bits(0xabc),
        destination: MapVersion::from_bits(0x123),
    };
    let nonce = |request| Tag::Nonce { nonce: 0x00a1_b2c3, request };
    let (plain, instance) = (InstanceId::DEFAULT, InstanceId::new(0x0c_0d0e).expect("24 bits"));
    // Flags, nonce, source and destination version, instance, 32 and 8 Locator-Status-Bits.
    let cases = [
        (plain, nonce(true), None, "0xa0\t10597059"),
        (plain, nonce(false), None, "0x80\t10597059"),
        (plain, versions, None, "0x10\t\t2748\t291"),
        (plain, versions, status_bits(0x8000_0005), "0x50\t\t2748\t291\t\t0x80000005"),
        (instance, versions, status_bits(0x85), "0x58\t\t2748\t291\t789774\t\t0x85"),
        (instance, nonce(false), None, "0x88\t10597059\t\t\t789774"),
    ];
    let inner = [0x45, 0, 0, 20, 0, 0, 0, 0, 64, 59, 0, 0, 10, 1, 0, 1, 10, 2, 0, 1];
    let packets = cases.map(|(instance, tag, status_bits, _)| {
        let header = lisp::encode_marked(instance, &HeaderMarks { tag, status_bits });
        [&header[..], &inner].concat()
    });
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("data.pcap");
    std::fs::write(&file, pcap_of(DATA_PORT, &packets)).expect("a capture");
    let mut command = Command::new("tshark");
    command.arg("-r").arg(&file).args(["-T", "fields"]);
    for field in ["flags", "nonce", "srcmapver", "dstmapver", "iid", "lsb", "lsb8"] {
        command.args(["-e", &format!("lisp-data.{field}")]);
    }
    let output = command.output().expect("tshark runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\t')).collect();
    assert_eq!(lines, cases.map(|(.., expected)| expected));
}

/// What takes payloads of TCP and UDP for its own by their looks or by a port: the lab's streams use any port, and mean nothing.
fn guessing_dissectors() -> Vec<String> {
    let listed = |what: &str| {
        let output = Command::new("tshark").args(["-G", what]).output().expect("tshark runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    };
    let by_looks: Vec<Vec<String>> = listed("heuristic-decodes");
    let by_port: Vec<Vec<String>> = listed("decodes");
    let by_looks = by_looks.into_iter().filter_map(|columns| {
        matches!(columns.first()?.as_str(), "tcp" | "udp").then(|| columns.get(1).cloned())?
    });
    let by_port = by_port.into_iter().filter_map(|columns| {
        matches!(columns.first()?.as_str(), "tcp.port" | "udp.port")
            .then(|| columns.get(2).cloned())?
    });
    let all: BTreeSet<String> = by_looks.chain(by_port).collect();
    all.into_iter().filter(|name| !name.starts_with("lisp")).collect()
}
