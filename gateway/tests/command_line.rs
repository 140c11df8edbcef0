//! What scripts rely on: exit statuses, and which stream says what.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
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
        &["lig", "203.0.113"],
        &["show", "status", "--watch", "0"],
        &["apply", "x.toml", "--confirm-within", "60"],
        &["clear"],
        &["clear", "map-cache", "203.0.113"],
        &["clear", "map-cache", "--instance-id", "1"],
        &["completions", "csh"],
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
    for verb in [
        "gateway",
        "xtr",
        "mapping",
        "check",
        "diff",
        "show",
        "reload",
        "apply",
        "confirm",
        "undo",
        "clear",
        "lig",
        "explain",
        "tap",
        "lab",
        "bench",
        "completions",
        "man",
    ] {
        let help = isthmus(&[verb, "--help"]);
        assert_eq!(help.status.code(), Some(0), "{verb}");
        assert!(help.stderr.is_empty() && !help.stdout.is_empty(), "{verb}");
    }
}

#[test]
fn no_daemon_is_1() {
    let nowhere = ["--socket", "/nonexistent/xtr.sock"];
    let verbs: [&[&str]; 9] = [
        &["show", "status"],
        &["show", "config", "--json"],
        &["reload"],
        &["apply", "/dev/null"],
        &["confirm"],
        &["undo"],
        &["diff", "/dev/null"],
        &["clear", "map-cache"],
        &["explain", "192.0.2.1", "192.0.2.2"],
    ];
    for verb in verbs {
        let output = isthmus(&[verb, &nowhere].concat());
        assert_eq!(output.status.code(), Some(1), "{verb:?}");
        let expected = "isthmus: no daemon serves /nonexistent/xtr.sock; is it running?";
        assert!(said(&output).starts_with(expected), "{verb:?}: {}", said(&output));
    }
}

#[test]
fn a_wrong_socket_is_told_from_a_dead_one() {
    let directory = TempDir::new().expect("temporary directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    let show = |name: &str| {
        let output = isthmus(&["show", "status", "--socket", &path(name)]);
        assert_eq!(output.status.code(), Some(1), "{name}: {}", said(&output));
        said(&output)
    };
    fs::write(path("notes"), "").expect("file");
    assert!(show("notes").contains("is no socket; name the admin socket of a daemon"));
    drop(UnixListener::bind(path("dead")).expect("socket"));
    assert!(show("dead").contains("is it running? What is there was left by one that died"));
    let other = UnixListener::bind(path("other")).expect("socket");
    let answers = thread::spawn(move || {
        for answer in ["220 mail.example.net ESMTP\n", ""] {
            let (mut stream, _) = other.accept().expect("a client");
            let mut question = [0; 512];
            let _ = stream.read(&mut question);
            stream.write_all(answer.as_bytes()).expect("written");
        }
    });
    assert!(show("other").contains("is that the admin socket of an isthmus of this version?"));
    assert!(show("other").contains("closed without an answer"));
    answers.join().expect("answered");
}

#[test]
fn a_socket_that_may_not_be_used_is_77() {
    if !Uid::effective().is_root() {
        println!("SKIP: needs root, to become somebody else");
        return;
    }
    let directory = TempDir::new().expect("temporary directory");
    let program = runnable_copy(directory.path());
    let socket = directory.path().join("xtr.sock");
    let _listener = UnixListener::bind(&socket).expect("socket");
    fs::set_permissions(&socket, Permissions::from_mode(0o660)).expect("mode");
    for verb in [&["show", "status"][..], &["reload"]] {
        let mut command = Command::new(&program);
        command.args(verb).arg("--socket").arg(&socket).uid(NOBODY).gid(NOBODY);
        let output = output_of_fresh_copy(&mut command);
        assert_eq!(output.status.code(), Some(77), "{}", said(&output));
        assert!(said(&output).contains("permission denied; only root and the daemon's own user"));
    }
}

#[test]
fn completions_and_pages_know_every_verb() {
    let help = isthmus(&["--help"]);
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let list = help.split("Commands:").nth(1).and_then(|rest| rest.split("Options:").next());
    let verbs: Vec<&str> =
        list.expect("verbs").lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(verbs.contains(&"show") && verbs.contains(&"undo"), "{verbs:?}");
    for shell in ["bash", "zsh", "fish"] {
        let script = isthmus(&["completions", shell]);
        assert_eq!(script.status.code(), Some(0), "{shell}");
        let script = String::from_utf8_lossy(&script.stdout).into_owned();
        for word in verbs.iter().chain(&["map-cache", "confirm-within"]) {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let directory = TempDir::new().expect("temporary directory");
    let out = directory.path().join("man1");
    let man = isthmus(&["man", "--out", &out.display().to_string()]);
    assert_eq!(man.status.code(), Some(0), "{}", said(&man));
    for verb in verbs.iter().filter(|verb| **verb != "help") {
        let page = fs::read_to_string(out.join(format!("isthmus-{verb}.1"))).expect("a page");
        assert!(page.contains(".SH NAME") && page.contains(&format!("isthmus {verb}")), "{page}");
    }
    let page = fs::read_to_string(out.join("isthmus-clear-map-cache.1")).expect("a page");
    assert!(page.contains("isthmus clear map\\-cache"), "{page}");
}

#[test]
fn what_is_watched_is_asked_for_again() {
    let mut command = Command::new(BINARY);
    command.args(["show", "status", "--socket", "/nonexistent/xtr.sock", "--watch", "0.1"]);
    let mut child = command.stderr(Stdio::piped()).spawn().expect("isthmus runs");
    let mut errors = BufReader::new(child.stderr.take().expect("stderr")).lines();
    for _ in 0..3 {
        let line = errors.next().expect("a line").expect("text");
        assert!(line.contains("no daemon serves /nonexistent/xtr.sock"), "{line}");
    }
    child.kill().expect("killed");
    child.wait().expect("ended");
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
    let says = |line: &str| line.starts_with("isthmus: missing privilege: ");
    assert!(said(&output).lines().any(says), "{}", said(&output));
}
