//! What `isthmus check` says of `proxy-itrs`, `peers`, `state-dir` and `timeout-by-ttl`.
use super::*;

/// What is said of an xTR with these lines at the head of `[xtr]`.
fn findings(lines: &str, flags: &[&str]) -> Vec<String> {
    let directory = TempDir::new().expect("temporary directory");
    let text = XTR.replace("[xtr]\n", &format!("[xtr]\n{lines}"));
    let text = text.replace("key-file = \"a.key\"", "key-env = \"PATH\"");
    fs::write(directory.path().join("xtr.toml"), text).expect("write");
    let args: Vec<&str> = ["check"].iter().chain(flags).chain(&["xtr.toml"]).copied().collect();
    stderr_lines(&isthmus(directory.path(), &args))
}

#[test]
fn sm_01_proxy_itrs_are_addresses_or_names() {
    let good = "proxy-itrs = [\"198.51.100.1\", \"pitr.example.net\"]\n";
    assert_eq!(findings(good, &["--offline"]), [""; 0]);
    let found = findings("proxy-itrs = [7, \"bad name\"]\n", &["--offline"]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(found[0], "xtr.toml:2: xtr.proxy-itrs[0]: is a number (7); write text in quotes");
    assert!(found[1].starts_with("xtr.toml:2: xtr.proxy-itrs[1]: \"bad name\""), "{found:?}");
}

#[test]
fn rg_07_timeout_by_ttl_is_a_switch() {
    assert_eq!(
        findings("timeout-by-ttl = \"24h\"\n", &["--offline"]),
        ["xtr.toml:2: xtr.timeout-by-ttl: is text (\"24h\"); write true or false"]
    );
}

#[test]
fn rg_13_a_state_directory_has_to_be_there() {
    let found = findings("state-dir = \"state\"\n", &[]);
    let about = "xtr.toml:2: xtr.state-dir: state cannot be used: No such file or directory";
    assert!(found.iter().any(|line| line.contains(about)), "{found:?}");
}

#[test]
fn cw_20_peers_have_a_prefix_and_the_profile_of_one_that_needs_it() {
    let good = "peers = [{ prefix = \"192.0.2.0/24\", profile = \"lispers.net\" }]\n";
    assert_eq!(findings(good, &["--offline"]), [""; 0]);
    let bad =
        "peers = [{ prefix = \"192.0.2.0/24\", profile = \"oor\" }, { prefix = \"192.0.2.7\" }]\n";
    let found = findings(bad, &["--offline"]);
    assert_eq!(found.len(), 3, "{found:?}");
    assert_eq!(
        found[0],
        "xtr.toml:2: xtr.peers[0].profile: \"oor\" is no profile of a peer; write \"lispers.net\"; \
         tunnel routers of other makes need no entry"
    );
    assert_eq!(
        found[1..],
        [
            "xtr.toml:2: xtr.peers[1].prefix: \"192.0.2.7\" has no length; write 192.0.2.7/32",
            "xtr.toml:2: xtr.peers[1].profile: missing; write profile = \"lispers.net\"",
        ]
    );
    let entry = "{ prefix = \"192.0.2.0/24\", profile = \"lispers.net\" }";
    assert_eq!(
        findings(&format!("peers = [{entry}, {entry}]\n"), &["--offline"]),
        ["xtr.toml:2: xtr.peers[1]: 192.0.2.0/24 is already given in line 2; give it once"]
    );
}
