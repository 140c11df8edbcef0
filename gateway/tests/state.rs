//! The state directory of a Map-Server, as an operator meets it: who may use it, what is said when it is damaged, how to go on.

use std::fs::{self, File, Permissions};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// `isthmus mapping` in `directory`; ended when a test fails.
struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    fn start(directory: &Path, name: &str, args: &[&str]) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = File::create(&log).expect("log");
        let child = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .current_dir(directory)
            .args(["mapping", "--config", &format!("{name}.toml")])
            .args(["--socket", &format!("{name}.sock")])
            .args(args)
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(file)
            .spawn()
            .expect("isthmus runs");
        Self { child, log }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("log")
    }

    fn wait_for(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            assert!(Instant::now() < deadline, "{text}: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn exit_status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("wait") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("the daemon does not end: {}", self.log());
    }

    /// As `kill -9`.
    fn kill(mut self) {
        self.child.kill().expect("kill");
        self.child.wait().expect("wait");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with `a.toml` and `b.toml` for two daemons with the state directory `state`.
fn directory(test: u8) -> TempDir {
    let directory = TempDir::new().expect("temporary directory");
    let path = directory.path();
    fs::create_dir(path.join("state")).expect("state directory");
    let [.., high, low] = std::process::id().to_be_bytes();
    for (name, host) in [("a", 0), ("b", 100)] {
        let listen = Ipv4Addr::new(127, high | 128, low, 10 + test + host);
        let text = format!("[mapping]\nlisten = [\"{listen}\"]\nstate-dir = \"state\"\n");
        fs::write(path.join(format!("{name}.toml")), text).expect("configuration");
    }
    directory
}

#[test]
fn a_killed_daemon_starts_again_and_a_second_one_does_not() {
    let directory = directory(0);
    let path = directory.path();
    for _ in 0..3 {
        let daemon = Daemon::start(path, "a", &[]);
        daemon.wait_for("ready");
        let mut second = Daemon::start(path, "b", &[]);
        assert_eq!(second.exit_status(), Some(1), "{}", second.log());
        assert!(second.log().contains("another daemon uses this state directory"));
        let status = Command::new(env!("CARGO_BIN_EXE_isthmus"))
            .args(["show", "status", "--socket"])
            .arg(path.join("a.sock"))
            .output()
            .expect("isthmus runs");
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        assert!(status.contains("state/mapping: 0 entries restored at the start"), "{status}");
        daemon.kill();
    }
}

#[test]
fn damaged_state_is_refused_until_the_operator_says_start_empty() {
    let directory = directory(1);
    let path = directory.path();
    let daemon = Daemon::start(path, "a", &[]);
    daemon.wait_for("ready");
    daemon.kill();
    let database = path.join("state/mapping/state.redb");
    fs::write(&database, vec![7; 10_000]).expect("damage");

    let mut refused = Daemon::start(path, "a", &[]);
    assert_eq!(refused.exit_status(), Some(1), "{}", refused.log());
    for part in ["state/mapping/state.redb: ", "--start-empty"] {
        assert!(refused.log().contains(part), "{}", refused.log());
    }
    assert_eq!(fs::read(&database).expect("kept"), vec![7; 10_000]);

    let daemon = Daemon::start(path, "a", &["--start-empty"]);
    daemon.wait_for("ready");
    assert!(daemon.log().contains("damaged state was set aside"), "{}", daemon.log());
    daemon.kill();
    let names: Vec<PathBuf> = fs::read_dir(path.join("state"))
        .expect("state")
        .map(|e| e.expect("entry").path())
        .collect();
    let aside = names.iter().find(|name| name.to_string_lossy().contains("mapping.corrupt-"));
    let aside = aside.expect("the damaged state").join("state.redb");
    assert_eq!(fs::read(aside).expect("kept"), vec![7; 10_000]);
    let daemon = Daemon::start(path, "a", &[]);
    daemon.wait_for("ready");
}

#[test]
fn a_directory_that_others_may_write_is_a_wrong_configuration() {
    let directory = directory(2);
    let path = directory.path();
    fs::set_permissions(path.join("state"), Permissions::from_mode(0o777)).expect("mode");
    let mut refused = Daemon::start(path, "a", &[]);
    assert_eq!(refused.exit_status(), Some(78), "{}", refused.log());
    assert!(refused.log().contains("others than its owner may write"), "{}", refused.log());
}

#[test]
fn start_empty_without_a_state_directory_is_wrong_usage() {
    let directory = directory(3);
    let path = directory.path();
    let text = fs::read_to_string(path.join("a.toml")).expect("configuration");
    fs::write(path.join("a.toml"), text.replace("state-dir", "# state-dir"))
        .expect("configuration");
    let mut refused = Daemon::start(path, "a", &["--start-empty"]);
    assert_eq!(refused.exit_status(), Some(2), "{}", refused.log());
}
