//! What scripts rely on: exit statuses, and which stream says what.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use gateway::config::Host;
use nix::unistd::Uid;
use tempfile::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_isthmus");
/// `nobody` on every distribution.
const NOBODY: u32 = 65_534;

fn isthmus(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).output().expect("isthmus runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn wrong_usage_is_2() {
    for args in [
        &["frobnicate"][..],
        &[],
        &["show"],
        &["show", "weather"],
        &["show", "status", "--socket", "/a", "--role", "xtr"],
        &["check"],
        &["lig", "example"],
        &["lig", "203.0.113.1", "198.51.100.2"],
        &["lig", "203.0.113.1", "@198.51.100.2", "--instance-id", "16777216"],
        &["mapping", "--log-format", "xml"],
        &["mapping", "--log", "a=b=c"],
    ] {
        let output = isthmus(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", said(&output));
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn version_and_help_are_asked_for() {
    let version = isthmus(&["--version"]);
    assert_eq!(version.status.code(), Some(0));
    let expected = format!("isthmus {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8_lossy(&version.stdout), expected);
    for verb in ["gateway", "xtr", "mapping", "check", "show", "reload", "lig", "lab"] {
        let help = isthmus(&[verb, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{verb}");
        assert!(help.stderr.is_empty() && !help.stdout.is_empty(), "{verb}");
    }
}

#[test]
fn no_daemon_is_1() {
    let output = isthmus(&["show", "status", "--socket", "/nonexistent/xtr.sock"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "isthmus: no daemon serves /nonexistent/xtr.sock; is it running?\n";
    assert_eq!(said(&output), expected);
}

/// A copy that `nobody` can run, wherever the build directory is.
fn runnable_copy(directory: &Path) -> std::path::PathBuf {
    fs::set_permissions(directory, Permissions::from_mode(0o777)).expect("mode");
    let copy = directory.join("isthmus");
    fs::copy(BINARY, &copy).expect("copy");
    copy
}

/// A program just written cannot be run while a process forked meanwhile by another test still has it open for writing.
fn output_of_fresh_copy(command: &mut Command) -> Output {
    for _ in 0..500 {
        match command.output() {
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => {
                thread::sleep(Duration::from_millis(10));
            }
            result => return result.expect("isthmus runs"),
        }
    }
    panic!("the copy of the program stays busy");
}

#[test]
fn a_missing_privilege_is_77() {
    let host = Host::read().expect("own addresses");
    let Some(rloc) = host.interfaces().find_map(|name| host.locators_of(name).next()) else {
        println!("SKIP: this host has no address that can be an RLOC");
        return;
    };
    let directory = TempDir::new().expect("temporary directory");
    let text = format!(
        "[xtr]\nrlocs = {{ core = {{ address = \"{rloc}\" }} }}\nmap-resolvers = [\"127.0.0.1\"]\n\
         map-servers = [{{ address = \"127.0.0.1\", key-id = 1, key-env = \"ISTHMUS_TEST_KEY\" }}]\n\
         [[eid]]\nprefix = \"203.0.113.0/26\"\n"
    );
    fs::write(directory.path().join("xtr.toml"), text).expect("configuration");
    let mut command = Command::new(runnable_copy(directory.path()));
    command
        .current_dir(directory.path())
        .args(["xtr", "--config", "xtr.toml", "--socket", "xtr.sock", "--log", "warn"])
        .env("ISTHMUS_TEST_KEY", "secret")
        .env_remove("NOTIFY_SOCKET");
    if Uid::effective().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    let output = output_of_fresh_copy(&mut command);
    assert_eq!(output.status.code(), Some(77), "{}", said(&output));
    assert!(said(&output).starts_with("isthmus: missing privilege: "), "{}", said(&output));
}
