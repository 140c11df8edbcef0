//! A configuration's life in a running daemon: looked at, changed, tried out, taken back. Needs no privilege.

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A Map-Server with a site, and its files.
struct Bed {
    directory: TempDir,
    daemon: Child,
    address: Ipv4Addr,
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

impl Bed {
    /// `last` tells the loopback addresses of tests apart that run at the same time.
    fn new(last: u8, args: &[&str]) -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, high | 128, low, last);
        let directory = TempDir::new().expect("temporary directory");
        let path = directory.path();
        fs::write(path.join("a.key"), "secret-a").expect("key");
        fs::write(path.join("b.key"), "secret-b").expect("key");
        fs::write(path.join("mapping.toml"), text(address, &["a"], "")).expect("configuration");
        let notify = UnixDatagram::bind(path.join("notify")).expect("notify socket");
        notify.set_read_timeout(Some(PATIENCE)).expect("timeout");
        let log = fs::File::create(path.join("log")).expect("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.current_dir(path).args(["mapping", "--config", "mapping.toml"]);
        command.args(["--socket", "mapping.sock"]).args(args);
        command.env("NOTIFY_SOCKET", path.join("notify")).env_remove("WATCHDOG_USEC");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log);
        let daemon = command.spawn().expect("isthmus runs");
        let bed = Self { directory, daemon, address };
        let mut ready = [0; 64];
        let length = notify.recv(&mut ready).unwrap_or_else(|e| panic!("{e}: {}", bed.log()));
        assert!(ready[..length].starts_with(b"READY=1\n"), "{}", bed.log());
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, sites: &[&str], more: &str) {
        fs::write(self.path(name), text(self.address, sites, more)).expect("configuration");
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    fn isthmus(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isthmus"));
        command.current_dir(self.directory.path()).args(args).args(["--socket", "mapping.sock"]);
        command.output().expect("isthmus runs")
    }

    /// What a verb says that does what it is told.
    fn says(&self, args: &[&str]) -> String {
        let output = self.isthmus(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", error(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The refusal of one that does not.
    fn refuses(&self, args: &[&str], status: i32) -> String {
        let output = self.isthmus(args);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", error(&output));
        error(&output)
    }

    fn sites(&self) -> Vec<String> {
        let sites: Value =
            serde_json::from_str(&self.says(&["show", "sites", "--json"])).expect("JSON");
        let sites = sites.as_array().expect("a list").iter();
        sites.map(|site| site["name"].as_str().expect("a name").to_owned()).collect()
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.daemon.id()).expect("pid");
        kill(Pid::from_raw(pid), signal).expect("kill");
    }

    fn wait_for(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "never: {what}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn text(address: Ipv4Addr, sites: &[&str], more: &str) -> String {
    let mut text =
        format!("[mapping]\nname = \"m\" # tried: \"hunter2\"\nlisten = [\"{address}\"]\n{more}");
    for (at, site) in sites.iter().enumerate() {
        text += &format!(
            "[[site]]\nname = \"{site}\"\nkeys = [{{ id = 1, file = \"{site}.key\" }}]\neid-prefixes = [\"10.{at}.0.0/16\"]\n"
        );
    }
    text
}

fn error(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_change_is_looked_at_taken_over_and_undone() {
    let bed = Bed::new(11, &[]);
    let shown = bed.says(&["show", "config"]);
    assert!(shown.contains("[[site]]\nname = \"a\"\n") && !shown.contains("hunter2"), "{shown}");
    assert!(!shown.contains("secret-a"), "{shown}");
    assert_eq!(bed.says(&["diff", "mapping.toml"]), "nothing differs\n");
    bed.write("mapping.toml", &["a", "b"], "registration-timeout = \"5m\"\n");
    let differs = bed.says(&["diff", "mapping.toml"]);
    assert!(differs.contains(" + mapping.registration-timeout = \"5m\"\n"), "{differs}");
    assert!(differs.contains(" + site[\"b\"].name = \"b\"\n"), "{differs}");
    assert!(differs.ends_with("a reload takes this over\n"), "{differs}");
    assert_eq!(bed.sites(), ["a"], "looking changes nothing");
    let taken = bed.says(&["reload"]);
    assert!(taken.starts_with("taken over: mapping.registration-timeout, site"), "{taken}");
    assert_eq!(bed.sites(), ["a", "b"]);
    assert!(bed.says(&["undo"]).starts_with("returned to what was before: "));
    assert_eq!(bed.sites(), ["a"]);
    let config: Value =
        serde_json::from_str(&bed.says(&["show", "config", "--json"])).expect("JSON");
    assert_eq!((&config["on_disk"], &config["role"]), (&"different".into(), &"mapping".into()));
    assert_eq!(config["config"]["site"][0]["name"], "a");
    bed.says(&["undo"]);
    assert_eq!(bed.sites(), ["a", "b"], "what was undone, undone");
}

#[test]
fn what_is_wrong_or_cannot_change_is_refused_whole() {
    let bed = Bed::new(12, &[]);
    bed.write("mapping.toml", &["a", "b"], "registration-timeout = \"soon\"\n");
    let refused = bed.refuses(&["reload"], 78);
    assert!(refused.contains("mapping.toml:4: mapping.registration-timeout:"), "{refused}");
    bed.write("mapping.toml", &["a", "b", "c"], "state-dir = \".\"\n");
    let refused = bed.refuses(&["reload"], 78);
    assert!(refused.contains("key file c.key does not exist"), "{refused}");
    bed.write("mapping.toml", &["a", "b"], "state-dir = \".\"\n");
    let differs = bed.isthmus(&["diff", "mapping.toml"]);
    assert_eq!(differs.status.code(), Some(1));
    let differs = String::from_utf8_lossy(&differs.stdout).into_owned();
    assert!(differs.contains("!+ mapping.state-dir = \".\"\n"), "{differs}");
    let refused = bed.refuses(&["reload"], 78);
    assert!(
        refused.contains("mapping.toml:4: mapping.state-dir: cannot change while the daemon runs"),
        "{refused}"
    );
    bed.refuses(&["apply", "mapping.toml"], 78);
    assert_eq!(bed.sites(), ["a"]);
    fs::write(bed.path("mapping.toml"), "[xtr]\nname = \"x\"\n").expect("configuration");
    bed.refuses(&["reload"], 78);
    bed.refuses(&["confirm"], 1);
    bed.refuses(&["undo"], 1);
}

#[test]
fn what_is_not_confirmed_goes_by_itself() {
    let bed = Bed::new(13, &[]);
    bed.write("try.toml", &["a", "b"], "");
    let applied = bed.says(&["apply", "try.toml", "--confirm-within", "1s"]);
    assert!(applied.contains("on trial: without `isthmus confirm` it goes in 1 s\n"), "{applied}");
    bed.wait_for("returned", |bed| bed.sites() == ["a"]);
    assert!(bed.log().contains("not confirmed in time"), "{}", bed.log());
    bed.says(&["apply", "try.toml", "--confirm-within", "10m"]);
    let status = bed.says(&["show", "status"]);
    assert!(status.contains("is on trial: without `isthmus confirm` it goes in"), "{status}");
    bed.refuses(&["reload"], 78);
    bed.refuses(&["apply", "try.toml"], 78);
    bed.says(&["undo"]);
    assert_eq!(bed.sites(), ["a"]);
    bed.says(&["apply", "try.toml", "--confirm-within", "10m"]);
    let confirmed = bed.says(&["confirm"]);
    assert!(
        confirmed.contains("a restart reads mapping.toml, which says otherwise"),
        "{confirmed}"
    );
    assert_eq!(bed.sites(), ["a", "b"]);
    let status = bed.says(&["show", "status"]);
    assert!(status.contains("try.toml; a restart reads mapping.toml"), "{status}");
    let own = bed.says(&["apply", "mapping.toml", "--confirm-within", "10m"]);
    assert!(own.contains("one before you confirm starts with this too"), "{own}");
}

#[test]
fn op_03_events_tell_what_was_taken_over_and_what_was_refused() {
    let bed = Bed::new(18, &[]);
    bed.write("mapping.toml", &["a", "b"], "");
    bed.says(&["reload"]);
    bed.write("try.toml", &["a"], "");
    bed.says(&["apply", "try.toml", "--confirm-within", "1s"]);
    bed.wait_for("returned", |bed| bed.sites() == ["a", "b"]);
    bed.says(&["apply", "try.toml"]);
    bed.says(&["undo"]);
    fs::create_dir(bed.path("state")).expect("directory");
    bed.write("mapping.toml", &["a", "b"], "state-dir = \"state\"\n");
    bed.refuses(&["reload"], 78);
    fs::write(bed.path("mapping.toml"), "nonsense").expect("configuration");
    bed.signal(Signal::SIGHUP);
    let events = |bed: &Bed| bed.says(&["events"]);
    bed.wait_for("told", |bed| events(bed).matches("reload-refused").count() == 2);
    let told = events(&bed);
    for expected in [
        "reload  ",
        "taken over: site[\"b\"].eid-prefixes, site[\"b\"].keys, site[\"b\"].name",
        "taken over, on trial for 1 s: site[\"b\"].eid-prefixes, site[\"b\"].keys, site[\"b\"].name",
        "trial-ended",
        "not confirmed in time, returned: site[\"b\"].eid-prefixes, site[\"b\"].keys, site[\"b\"].name",
        "returned to what was before: site[\"b\"].eid-prefixes, site[\"b\"].keys, site[\"b\"].name",
        "mapping.state-dir: cannot change while the daemon runs",
        "not TOML",
    ] {
        assert!(told.contains(expected), "{expected}:\n{told}");
    }
}

#[test]
fn a_key_that_is_replaced_in_its_file_is_in_force_after_a_reload() {
    let bed = Bed::new(14, &[]);
    fs::write(bed.path("a.key"), "another").expect("key");
    assert_eq!(bed.says(&["reload"]), "nothing changed; what is in the key files is in force\n");
    fs::remove_file(bed.path("a.key")).expect("removed");
    bed.refuses(&["reload"], 78);
}

#[test]
fn signals_reload_and_dump_and_levels_are_those_of_the_file() {
    let bed = Bed::new(15, &[]);
    bed.write("mapping.toml", &["a", "b"], "[log]\nlevel = \"warn\"\n");
    bed.signal(Signal::SIGHUP);
    bed.wait_for("taken over", |bed| bed.sites() == ["a", "b"]);
    bed.signal(Signal::SIGUSR1);
    // What is behind it in the queue comes after it.
    bed.sites();
    bed.write("mapping.toml", &["a"], "[log]\nlevel = \"info\"\n");
    bed.says(&["reload"]);
    assert!(!bed.log().contains("that was the state"), "{}", bed.log());
    bed.signal(Signal::SIGUSR1);
    bed.wait_for("dumped", |bed| bed.log().contains("that was the state"));
    let log = bed.log();
    assert!(log.contains("[[site]]") && log.contains("LISP sites, 1 site"), "{log}");
    assert!(!log.contains("hunter2") && !log.contains("secret-a"), "{log}");
    fs::write(bed.path("mapping.toml"), "nonsense").expect("configuration");
    bed.signal(Signal::SIGHUP);
    bed.wait_for("refused", |bed| bed.log().contains("configuration not reloaded"));
    assert_eq!(bed.sites(), ["a"]);
}

#[test]
fn what_the_command_line_says_of_the_log_stays() {
    let bed = Bed::new(16, &["--log", "info"]);
    bed.write("mapping.toml", &["a"], "[log]\nlevel = \"error\"\n");
    bed.says(&["reload"]);
    bed.wait_for("warned", |bed| bed.log().contains("[log] level is not heeded"));
    bed.signal(Signal::SIGUSR1);
    bed.wait_for("dumped", |bed| bed.log().contains("that was the state"));
}

#[test]
fn the_directory_of_a_configuration_is_where_its_paths_start() {
    let bed = Bed::new(17, &[]);
    let elsewhere = bed.path("elsewhere");
    fs::create_dir(&elsewhere).expect("directory");
    fs::copy(bed.path("mapping.toml"), elsewhere.join("m.toml")).expect("copied");
    let refused = bed.refuses(&["apply", "elsewhere/m.toml"], 78);
    assert!(refused.contains("elsewhere/a.key does not exist"), "{refused}");
    fs::copy(bed.path("a.key"), elsewhere.join("a.key")).expect("copied");
    assert!(bed.says(&["apply", "elsewhere/m.toml"]).starts_with("nothing changed"));
    assert!(Path::new(&elsewhere).exists());
}
