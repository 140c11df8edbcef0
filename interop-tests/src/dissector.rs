//! tshark, which reads what this suite sends without knowing anything of it.

use std::path::Path;
use std::process::Command;

/// Whether tshark is not installed.
///
/// # Panics
/// Where every tool has to be (`ISTHMUS_REQUIRE_TOOLS`).
pub fn is_missing() -> bool {
    let missing = Command::new("tshark").arg("--version").output().is_err();
    if missing {
        assert!(std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_none(), "tshark is not installed");
        println!("SKIP: tshark is not installed (apt-get install tshark)");
    }
    missing
}

/// A capture of one UDP datagram from and to port 4342 per message; link type raw IP.
pub fn pcap(messages: &[Vec<u8>]) -> Vec<u8> {
    pcap_of(4342, messages)
}

/// As [`pcap`], from and to another port.
pub fn pcap_of(port: u16, messages: &[Vec<u8>]) -> Vec<u8> {
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

/// What the dissector says of one frame.
pub struct Frame {
    /// Counted from 1.
    pub number: String,
    /// Every protocol found, outermost first, colons between.
    pub protocols: String,
    /// UDP ports, outermost first, commas between.
    ports: String,
    /// Severities of its remarks, commas between.
    severities: String,
    /// What it remarks.
    pub remarks: String,
}

/// Severity of an error, in the dissector's numbers; a malformed packet is one.
const ERROR: u32 = 0x80_0000;

impl Frame {
    /// Whether it found this protocol.
    pub fn has(&self, protocol: &str) -> bool {
        self.protocols.split(':').any(|found| found == protocol)
    }

    /// Nothing malformed, no error, and recognised as LISP if its ports say so.
    pub fn is_sound(&self) -> bool {
        let is_error = |text: &str| text.parse().is_ok_and(|severity: u32| severity >= ERROR);
        let uses = |port: &str| self.ports.split(',').any(|found| found == port);
        !self.severities.split(',').any(is_error)
            && !self.protocols.contains("malformed")
            && (self.has("lisp-data") || !uses("4341"))
            && (self.has("lisp") || !uses("4342"))
    }
}

/// What tshark says of each frame of a capture; it does without the protocols `without`.
///
/// # Panics
/// It does not run.
pub fn frames(file: &Path, without: &[String]) -> Vec<Frame> {
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
