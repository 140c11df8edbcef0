//! `isthmus explain` and `isthmus tap` beside running daemons, as an operator types them.
//!
//! ```text
//!   192.0.2.80 [gateway] 198.51.100.1 --- 198.51.100.11 [xTR] 203.0.113.1
//!                                         198.51.100.2 [Map-Server, Map-Resolver]
//! ```

use std::io;
use std::net::UdpSocket;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::{Daemon, program};
use interop_tests::site::{Hosts, or_skip, wait_for_registrations};
use mapping::admin::Query;
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

const MAPPING: &str = r#"
[mapping]
name = "ms"
listen = ["198.51.100.2"]
[[site]]
name = "a"
keys = [{ id = 1, file = "KEY" }]
eid-prefixes = ["203.0.113.0/26"]
"#;

const XTR: &str = r#"
[xtr]
name = "a"
rlocs = { core = { address = "198.51.100.11", priority = 1, weight = 100 } }
map-servers = [{ address = "198.51.100.2", key-id = 1, key-file = "KEY" }]
map-resolvers = ["198.51.100.2"]
[[eid]]
prefix = "203.0.113.0/26"
"#;

const GATEWAY: &str = r#"
[gateway]
name = "pxtr"
rlocs = ["198.51.100.1"]
map-resolvers = ["198.51.100.2"]
[pitr]
eid-aggregates = ["203.0.113.0/24"]
[petr]
accept-from = { rlocs = ["198.51.100.0/24"], eids = ["203.0.113.0/24"] }
"#;

/// Two hosts, and what runs on them.
struct Site {
    gateway: Daemon,
    _xtr: Daemon,
    _mapping: Daemon,
    native: Namespace,
    _site: Namespace,
}

impl Site {
    fn build() -> io::Result<Self> {
        let rlocs = ["198.51.100.11/24", "198.51.100.2/24"];
        let Hosts { native, site } = Hosts::build(&["192.0.2.80/32"], &rlocs)?;
        let mapping = Daemon::start(&site, "mapping", MAPPING)?;
        let xtr = Daemon::start(&site, "xtr", XTR)?;
        let gateway = Daemon::start(&native, "gateway", GATEWAY)?;
        wait_for_registrations(&mapping, 1)?;
        Ok(Self { gateway, _xtr: xtr, _mapping: mapping, native, _site: site })
    }

    /// A socket of a host on the native side.
    fn host(&self) -> io::Result<UdpSocket> {
        self.native.run(|| UdpSocket::bind("192.0.2.80:5000"))?
    }

    /// `isthmus VERB .. --socket ..`, of the gateway.
    fn isthmus(&self, line: &str) -> Output {
        let mut command = Command::new(program().expect("isthmus is built"));
        command.args(line.split_whitespace()).arg("--socket").arg(self.gateway.socket());
        command.output().expect("isthmus runs")
    }

    fn text(&self, line: &str, status: i32) -> String {
        let output = self.isthmus(line);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{line}: {text}{error}");
        text
    }

    fn json(&self, line: &str, status: i32) -> Value {
        serde_json::from_str(&self.text(&format!("{line} --json"), status)).expect("JSON")
    }
}

#[test]
fn a_packet_is_explained_before_and_after_its_mapping_is_known() {
    let Some(site) = or_skip(Site::build()) else { return };
    let packet = "explain 192.0.2.80 203.0.113.1 --sport 5000 --dport 7000 --length 60";
    let miss = site.text(packet, 0);
    assert!(miss.contains("would ask Map-Resolver 198.51.100.2"), "{miss}");
    assert!(miss.contains("verdict    WAIT\n"), "{miss}");
    assert_eq!(site.gateway.counter("map_requests_sent").expect("counters"), 0, "nobody is asked");

    let host = site.host().expect("a socket");
    host.send_to(&[0; 32], "203.0.113.1:7000").expect("sent");
    let start = Instant::now();
    while site.gateway.counter("pitr_encap").expect("counters") == 0 {
        assert!(start.elapsed() < PATIENCE, "{}", site.gateway.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let known = site.text(packet, 0);
    println!("{known}");
    for words in [
        "203.0.113.1 is in EID aggregate 203.0.113.0/24",
        "203.0.113.0/26, via map-reply, complete",
        "198.51.100.11, priority 1",
        "198.51.100.11:4341, TTL 64, DSCP 0, ECN 0, DF",
        "60 + 36 = 96 octets, path MTU 1500: fits",
        "ENCAPSULATE to 198.51.100.11",
    ] {
        assert!(known.contains(words), "{words:?} is not in\n{known}");
    }
    let large = site.json("explain 192.0.2.80 203.0.113.1 --length 1500 --df", 1);
    assert_eq!(large["verdict"], "drop", "{large:#}");
    assert_eq!(large["reason"], "packet_too_big");
    assert_eq!(large["icmp"]["mtu"], 1464);
    let split = site.json("explain 192.0.2.80 203.0.113.1 --length 1500", 0);
    assert_eq!(split["size"]["fit"], "fragment", "{split:#}");
    let foreign = site.text("explain 192.0.2.80 192.0.2.81", 1);
    assert!(foreign.contains("192.0.2.81 is in none of pitr.eid-aggregates"), "{foreign}");
    assert!(foreign.contains("DROP: destination_not_aggregate"), "{foreign}");
    let out = site.text("explain 203.0.113.1 192.0.2.80 --from core --rloc 198.51.100.11", 0);
    assert!(out.contains("DELIVER"), "{out}");
    let stranger = site.text("explain 203.0.113.1 192.0.2.80 --from core --rloc 192.0.2.9", 1);
    assert!(stranger.contains("DROP: petr_rloc_not_accepted"), "{stranger}");
    let short = site.isthmus("explain 192.0.2.80 203.0.113.1 --length 20");
    assert_eq!(short.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&short.stderr).contains("at least 28 octets"));
    let drops = site.gateway.ask(&Query::Drops).expect("drops");
    let reasons: Vec<&Value> =
        drops.as_array().expect("list").iter().map(|d| &d["reason"]).collect();
    assert!(!reasons.contains(&&"packet_too_big".into()), "nothing was dropped: {drops}");
}

/// Runs `isthmus tap ..` and sends `send` again and again until it ended by itself.
fn tap_while(site: &Site, line: &str, send: impl Fn()) -> Output {
    let mut command = Command::new(program().expect("isthmus is built"));
    command.args(line.split_whitespace()).arg("--socket").arg(site.gateway.socket());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let child = std::thread::spawn(move || child.wait_with_output().expect("it ends"));
    while !child.is_finished() {
        send();
        std::thread::sleep(Duration::from_millis(20));
    }
    child.join().expect("its output")
}

#[test]
fn a_dropped_packet_is_caught_with_its_reason() {
    let Some(site) = or_skip(Site::build()) else { return };
    let host = site.host().expect("a socket");
    // Nobody registered it: the mapping says natively, which would lead back here.
    let send = || {
        host.send_to(b"lost", "203.0.113.200:7").expect("sent");
    };
    let output =
        tap_while(&site, "tap drop=native_would_loop and port 7 --count 2 --for 30s", send);
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text.lines().count(), 2, "{text}");
    for line in text.lines() {
        let expected =
            "native  192.0.2.80:5000 > 203.0.113.200:7 UDP 32: dropped native_would_loop";
        assert!(line.contains(expected), "{line}");
    }
    let output = tap_while(&site, "tap drop --json --count 1 --for 30s", send);
    let packet: Value = serde_json::from_slice(&output.stdout).expect("one line of JSON");
    assert_eq!(
        (&packet["verdict"], &packet["reason"]),
        (&"dropped".into(), &"native_would_loop".into())
    );
    let wrong = site.isthmus("tap drop=nonsense");
    assert_eq!(wrong.status.code(), Some(2), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[test]
fn a_capture_shows_both_sides_to_a_foreign_dissector() {
    if Command::new("tshark").arg("--version").output().is_err() {
        assert!(std::env::var_os("ISTHMUS_REQUIRE_TOOLS").is_none(), "tshark is not installed");
        println!("SKIP: tshark is not installed");
        return;
    }
    let Some(site) = or_skip(Site::build()) else { return };
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("tap.pcapng");
    let host = site.host().expect("a socket");
    let send = || {
        host.send_to(&[7; 600], "203.0.113.1:7000").expect("sent");
    };
    let line =
        format!("tap --out {} rloc 198.51.100.11 and native --count 3 --for 30s", file.display());
    let output = tap_while(&site, &line, send);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let fields = [
        "frame.interface_name",
        "frame.comment",
        "frame.protocols",
        "frame.len",
        "frame.cap_len",
        "frame.packet_flags_direction",
        "ip.src",
        "ip.dst",
        "udp.dstport",
    ];
    let mut command = Command::new("tshark");
    command.args(["-T", "fields", "-r"]).arg(&file);
    for field in fields {
        command.args(["-e", field]);
    }
    let output = command.output().expect("tshark runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success());
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 6, "three packets, in and out");
    for pair in rows.chunks(2) {
        let [came, left] = pair else { panic!("in and out") };
        assert_eq!((came[0], left[0]), ("native", "core"));
        assert!(came[1].starts_with("encapsulated to 198.51.100.11"), "{}", came[1]);
        assert_eq!((came[3], came[4]), ("628", "256"), "of 628 octets, 256 are kept");
        assert_eq!((left[3], left[4]), ("664", "284"));
        assert_ne!(came[5], left[5], "one came in, the other left");
        assert_eq!((came[6], came[7]), ("192.0.2.80", "203.0.113.1"));
        assert_eq!((left[6], left[7]), ("198.51.100.1,192.0.2.80", "198.51.100.11,203.0.113.1"));
        assert_eq!(left[8], "4341,7000");
        assert!(left[2].contains("lisp-data"), "{}", left[2]);
    }
}
