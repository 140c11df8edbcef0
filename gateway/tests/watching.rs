//! A running daemon, watched: metrics, history, events, top.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Ends the daemon with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A loopback address that no other process of this kind uses at the same time.
fn own_loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 128, low, 7)
}

fn isthmus(directory: &Path, args: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory)
        .args(args)
        .args(["--socket", "mapping.sock"])
        .output()
        .expect("isthmus runs");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&said).into_owned())
}

fn json(directory: &Path, args: &[&str]) -> Value {
    let (status, said) = isthmus(directory, &[args, &["--json"]].concat());
    assert_eq!(status, Some(0), "{said}");
    serde_json::from_str(&said).expect("JSON")
}

fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).expect("the endpoint");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let request = "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// A Map-Server with metrics, once it answers.
fn start(directory: &Path) -> (Daemon, SocketAddr) {
    let key = directory.join("a.key");
    fs::write(&key, "secret").expect("key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("mode");
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port");
    let text = format!(
        "[mapping]\nlisten = [\"{}\"]\n[[site]]\nname = \"a\"\nkeys = [{{ id = 1, file = \"a.key\" }}]\n\
         eid-prefixes = [\"203.0.113.0/26\"]\nprofile = \"vpp\"\n[metrics]\nlisten = \"{address}\"\n[log]\nformat = \"json\"\n",
        own_loopback()
    );
    fs::write(directory.join("mapping.toml"), text).expect("configuration");
    let log = fs::File::create(directory.join("log")).expect("log");
    let child = Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory)
        .args(["mapping", "--config", "mapping.toml", "--socket", "mapping.sock"])
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("log"))
        .stderr(log)
        .spawn();
    let daemon = Daemon(child.expect("spawn"));
    let deadline = Instant::now() + Duration::from_secs(30);
    while isthmus(directory, &["show", "status"]).0 != Some(0) {
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        assert!(Instant::now() < deadline, "the daemon does not answer: {log}");
        std::thread::sleep(Duration::from_millis(50));
    }
    (daemon, address)
}

#[test]
fn op_01_what_is_shown_is_in_the_metrics_the_history_and_the_events() {
    let directory = TempDir::new().expect("temporary directory");
    let path = directory.path();
    let (daemon, address) = start(path);

    let metrics = scrape(address);
    assert!(metrics.starts_with("HTTP/1.1 200 OK\r\n"), "{metrics}");
    let counters = json(path, &["show", "counters"]);
    let counters = counters.as_object().expect("counters");
    assert!(counters.len() > 30, "{counters:?}");
    for name in counters.keys() {
        let meaning =
            gateway::metrics::catalogue::meaning(name).unwrap_or_else(|| panic!("{name}"));
        assert!(metrics.contains(&format!("isthmus_{}", meaning.metric)), "{name}: {metrics}");
    }
    assert!(metrics.contains("isthmus_site_registrations{site=\"a\"} 0"), "{metrics}");
    assert!(metrics.contains("isthmus_build_info{role=\"mapping\""), "{metrics}");
    assert!(!metrics.contains("isthmus_other"), "{metrics}");

    let history = json(path, &["history"]);
    let finest = history["rings"][0]["counters"].as_object().expect("a ring");
    assert!(counters.keys().all(|name| finest.contains_key(name)), "{finest:?}");
    let (status, said) = isthmus(path, &["history", "no_such_counter"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("there is no counter \"no_such_counter\""), "{said}");

    // The site's profile was told of at the start.
    let events = json(path, &["events"]);
    let kinds = events["events"].as_array().expect("events").iter().map(|e| e["kind"].as_str());
    assert!(kinds.into_iter().flatten().any(|kind| kind == "loose-profile"), "{events}");

    let (status, frame) = isthmus(path, &["top", "--once"]);
    assert_eq!(status, Some(0), "{frame}");
    assert!(frame.contains("isthmus top: mapping (mapping)"), "{frame}");
    assert!(frame.contains("loose-profile") && frame.contains("Sites: 1"), "{frame}");
    let (status, said) = isthmus(path, &["top"]);
    assert_eq!(status, Some(2), "no terminal: {said}");

    drop(daemon);
    let log = fs::read_to_string(path.join("log")).expect("log");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(event["body"].is_string() && event["timestamp"].is_string(), "{line}");
    }
}

#[test]
fn an_endpoint_that_is_taken_is_said_to_be() {
    let directory = TempDir::new().expect("temporary directory");
    let path = directory.path();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("a port");
    let text = format!("[mapping]\nlisten = [\"127.0.0.1\"]\n[metrics]\nlisten = \"{address}\"\n");
    fs::write(path.join("mapping.toml"), text).expect("configuration");
    let (status, said) = isthmus(path, &["mapping", "--config", "mapping.toml"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(&format!("metrics at {address}: ")), "{said}");
}
