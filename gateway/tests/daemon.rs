//! A role's life from start to stop, as systemd and an operator see it.

use std::fs::{self, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

/// Ends the daemon when a test fails.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    fn exit_status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait().expect("wait") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the daemon does not end");
    }
}

/// A loopback address that no other process of this kind uses at the same time.
fn own_loopback() -> Ipv4Addr {
    let [.., high, low] = std::process::id().to_be_bytes();
    Ipv4Addr::new(127, high | 128, low, 3)
}

fn start(directory: &Path, args: &[&str]) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
    command.current_dir(directory).args(args);
    command.env("NOTIFY_SOCKET", directory.join("notify")).env("WATCHDOG_USEC", "300000");
    command.env_remove("WATCHDOG_PID").stdin(Stdio::null());
    let log = fs::File::create(directory.join("log")).expect("log");
    Daemon(command.stdout(log.try_clone().expect("log")).stderr(log).spawn().expect("spawn"))
}

fn show(directory: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_isthmus"))
        .current_dir(directory)
        .args(["show", "--socket", "run/mapping.sock"])
        .args(args)
        .output()
        .expect("isthmus runs")
}

/// Waits until the daemon tells its manager this.
fn await_notification(notify: &UnixDatagram, wanted: &str) {
    let mut buffer = [0; 256];
    loop {
        let length = notify.recv(&mut buffer).expect("a notification");
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == wanted) {
            return;
        }
    }
}

#[test]
fn a_map_server_starts_answers_and_stops_in_order() {
    let directory = TempDir::new().expect("temporary directory");
    let path = directory.path();
    let notify = UnixDatagram::bind(path.join("notify")).expect("notify socket");
    notify.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let key = path.join("a.key");
    fs::write(&key, "secret").expect("key");
    fs::set_permissions(&key, Permissions::from_mode(0o600)).expect("mode");
    let text = format!(
        "[mapping]\nname = \"ms7\"\nlisten = [\"{}\"]\n[[site]]\nname = \"a\"\nkeys = [{{ id = 1, file = \"a.key\" }}]\n\
         eid-prefixes = [\"203.0.113.0/26\"]\n",
        own_loopback()
    );
    fs::write(path.join("mapping.toml"), text).expect("configuration");
    let mut daemon = start(
        path,
        &[
            "mapping",
            "--config",
            "mapping.toml",
            "--socket",
            "run/mapping.sock",
            "--log-format",
            "json",
        ],
    );
    let log = || fs::read_to_string(path.join("log")).unwrap_or_default();
    await_notification(&notify, "READY=1");

    let status = show(path, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!((&status["role"], &status["name"]), (&json!("mapping"), &json!("ms7")));
    let sites = show(path, &["sites"]);
    let sites = String::from_utf8_lossy(&sites.stdout);
    assert!(sites.starts_with("LISP sites, 1 site\n\na: 0 EID-prefixes registered"), "{sites}");
    let wrong = show(path, &["map-cache"]);
    assert_eq!(wrong.status.code(), Some(1), "a Map-Server has no map-cache");
    await_notification(&notify, "WATCHDOG=1");

    daemon.signal(Signal::SIGTERM);
    await_notification(&notify, "STOPPING=1");
    assert_eq!(daemon.exit_status(), Some(0), "{}", log());
    assert!(!path.join("run/mapping.sock").exists());
    for line in log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).expect("a line of JSON");
        let level = event["severity_text"].as_str().expect("a severity");
        assert!(level == "INFO" || level == "DEBUG", "{line}");
        assert_eq!(event["resource"]["service.name"], "isthmus-mapping");
    }
    let gone = show(path, &["status"]);
    assert_eq!(gone.status.code(), Some(1));
    let said = String::from_utf8_lossy(&gone.stderr);
    assert_eq!(said, "isthmus: no daemon serves run/mapping.sock; is it running?\n");
}
