//! An independent dissector reads every packet that the lab produced: none is malformed, none has an expert error, and every
//! control and data packet is recognised as LISP. It also reads what the lab does not send as it is meant.

use std::path::Path;
use std::process::Command;

use interop_tests::{corpus, daemon};
use mapping::eid::{InstanceId, MapVersion};
use mapping::wire::DATA_PORT;
use xtr::marks::{HeaderMarks, StatusBits, Tag};
use xtr::packet::lisp;

/// Set where the tools are provided, so that a missing one is a failure there.
const TOOLS_REQUIRED: &str = "ISTHMUS_REQUIRE_TOOLS";

#[test]
fn a_foreign_dissector_finds_nothing_wrong_with_the_labs_packets() {
    if is_missing("tshark") {
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
        for frame in frames(&file, &guesses) {
            let Frame { number, protocols, remarks, .. } = &frame;
            let file = file.display();
            assert!(frame.is_sound(), "{file}, frame {number}: {protocols}: {remarks}");
            control += usize::from(frame.has("lisp"));
            data += usize::from(frame.has("lisp-data"));
        }
        captures += 1;
    }
    assert!(captures >= 2 && control > 50 && data > 10_000, "{captures} {control} {data}");
}

#[test]
fn dd_02_dd_03_cw_29_a_foreign_dissector_reads_map_referrals_and_names_as_meant() {
    if is_missing("tshark") {
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

/// Nonces, map-versions and Locator-Status-Bits, each as a trusted core has them.
#[test]
fn dh_01_dh_02_dh_05_dh_07_dh_08_a_foreign_dissector_reads_data_headers_as_meant() {
    if is_missing("tshark") {
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

/// A capture of one UDP datagram from and to port 4342 per message; link type raw IP.
fn pcap(messages: &[Vec<u8>]) -> Vec<u8> {
    pcap_of(4342, messages)
}

fn pcap_of(port: u16, messages: &[Vec<u8>]) -> Vec<u8> {
    let mut file = Vec::new();
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 0xffff, 101] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for message in messages {
        let (udp_length, length) = (8 + message.len() as u16, 28 + message.len() as u16);
        for word in [0, 0, u32::from(length), u32::from(length)] {
            file.extend_from_slice(&word.to_le_bytes());
        }
        let [high, low] = length.to_be_bytes();
        file.extend_from_slice(&[0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0]);
        file.extend_from_slice(&[192, 0, 2, 1, 192, 0, 2, 2]);
        for field in [port, port, udp_length, 0] {
            file.extend_from_slice(&u16::to_be_bytes(field));
        }
        file.extend_from_slice(message);
    }
    file
}

/// Whether `program` is not installed, which is a failure where the tools are provided.
fn is_missing(program: &str) -> bool {
    let missing = Command::new(program).arg("--version").output().is_err();
    if missing {
        assert!(std::env::var_os(TOOLS_REQUIRED).is_none(), "{program} is not installed");
        println!("SKIP: {program} is not installed");
    }
    missing
}

/// What the dissector says of one frame.
struct Frame {
    number: String,
    /// Every protocol found, outermost first, colons between.
    protocols: String,
    /// UDP ports, outermost first, commas between.
    ports: String,
    /// Severities of its remarks, commas between.
    severities: String,
    remarks: String,
}

/// Severity of an error, in the dissector's numbers; a malformed packet is one.
const ERROR: u32 = 0x80_0000;

impl Frame {
    fn has(&self, protocol: &str) -> bool {
        self.protocols.split(':').any(|found| found == protocol)
    }

    /// Nothing malformed, no error, and recognised as LISP if its ports say so.
    fn is_sound(&self) -> bool {
        let is_error = |text: &str| text.parse().is_ok_and(|severity: u32| severity >= ERROR);
        let uses = |port: &str| self.ports.split(',').any(|found| found == port);
        !self.severities.split(',').any(is_error)
            && !self.protocols.contains("malformed")
            && (self.has("lisp-data") || !uses("4341"))
            && (self.has("lisp") || !uses("4342"))
    }
}

fn frames(file: &Path, without: &[String]) -> Vec<Frame> {
    let mut command = Command::new("tshark");
    command.arg("-r").arg(file).args(["-T", "fields"]);
    let fields = [
        "frame.number",
        "frame.protocols",
        "udp.port",
        "_ws.expert.severity",
        "_ws.expert.message",
    ];
    for field in fields {
        command.args(["-e", field]);
    }
    for name in without {
        command.args(["--disable-protocol", name]);
    }
    let output = command.output().expect("tshark runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let frame = |line: &str| {
        let mut columns = line.split('\t').map(str::to_owned);
        let mut next = || columns.next().unwrap_or_default();
        Frame {
            number: next(),
            protocols: next(),
            ports: next(),
            severities: next(),
            remarks: next(),
        }
    };
    String::from_utf8_lossy(&output.stdout).lines().map(frame).collect()
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
