//! What `isthmus check` says of `data.trusted-core` and `eid.map-version`.
use super::*;

fn check(file: &str, text: &str) -> Output {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join(file), text).expect("write");
    isthmus(directory.path(), &["check", "--offline", file])
}

/// Expects exactly one finding, this one, besides the warning that every trusted core gets.
#[track_caller]
fn of_core(file: &str, text: &str, expected: &str) {
    let output = check(file, text);
    let mut lines = stderr_lines(&output);
    lines.retain(|line| !line.contains("are believed"));
    assert_eq!(lines, [expected], "{text}");
    assert_eq!(output.status.code(), Some(78), "{text}");
}

fn core(keys: &str) -> String {
    format!("{XTR}map-version = 7\n\n[data]\ntrusted-core = {{ {keys} }}\n")
}

#[test]
fn a_trusted_core_is_accepted_with_a_warning() {
    let all = core(
        r#"rlocs = ["198.51.100.0/24"], map-versioning = true, locator-status-bits = true, echo-nonce = true, use-lsb-timer = "1m""#,
    );
    let output = check("xtr.toml", &all);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let warning = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warning.contains("never over the public Internet"), "{warning}");
    let gateway = format!(
        "{GATEWAY}\n[data]\ntrusted-core = {{ rlocs = [\"198.51.100.0/24\"], map-versioning = true, locator-status-bits = true }}\n"
    );
    assert_eq!(check("gateway.toml", &gateway).status.code(), Some(0));
}

#[test]
fn what_is_trusted_has_to_be_named_and_is_not_everything() {
    of_core(
        "xtr.toml",
        &core("map-versioning = true"),
        "xtr.toml:11: data.trusted-core.rlocs: missing; write rlocs = [\"ADDRESS/LENGTH\"]: the RLOCs of the trusted core",
    );
    of_core(
        "xtr.toml",
        &core(r#"rlocs = ["0.0.0.0/0"], map-versioning = true"#),
        "xtr.toml:11: data.trusted-core.rlocs[0]: 0.0.0.0/0 is the public Internet, which cannot be trusted; name the prefixes that the RLOCs of the core are in (RFC 9300 §16)",
    );
}

#[test]
fn something_has_to_be_on() {
    let text = format!("{XTR}\n[data]\ntrusted-core = {{ rlocs = [\"198.51.100.0/24\"] }}\n");
    of_core(
        "xtr.toml",
        &text,
        "xtr.toml:10: data.trusted-core: nothing is turned on; write map-versioning, locator-status-bits or echo-nonce = true, or leave it out",
    );
    of_core(
        "xtr.toml",
        &core(r#"rlocs = ["198.51.100.0/24"], map-versioning = true, use-lsb-timer = "1m""#),
        "xtr.toml:11: data.trusted-core.use-lsb-timer: there are no Locator-Status-Bits; add locator-status-bits = true",
    );
}

#[test]
fn mv_04_a_version_must_not_be_made_up_at_every_start() {
    let on = "[data]\ntrusted-core = { rlocs = [\"198.51.100.0/24\"], map-versioning = true }\n";
    of_core(
        "xtr.toml",
        &format!("{XTR}\n{on}"),
        "xtr.toml:6: eid[0]: after a restart its Map-Version would be another one, and packets with the one before dropped; add xtr.state-dir; or write map-version here, and a higher one with every change of the locators",
    );
    of_core(
        "xtr.toml",
        &format!("{XTR}map-version = 0\n\n{on}"),
        "xtr.toml:8: eid[0].map-version: 0 is out of range; write 1 to 4095",
    );
    of_core(
        "xtr.toml",
        &format!("{XTR}map-version = 7\n"),
        "xtr.toml:8: eid[0].map-version: there is no Map-Versioning; add data.trusted-core with map-versioning = true",
    );
}

#[test]
fn pi_12_a_gateway_echoes_no_nonces() {
    let text = format!(
        "{GATEWAY}\n[data]\ntrusted-core = {{ rlocs = [\"198.51.100.0/24\"], echo-nonce = true }}\n"
    );
    of_core(
        "gateway.toml",
        &text,
        "gateway.toml:9: data.trusted-core.echo-nonce: a gateway has no site whose return traffic could echo nonces; leave it out; RLOC-probing says what is reachable",
    );
}

#[test]
fn pi_12_a_gateway_has_no_locators_of_a_site_to_tell_of() {
    let text = format!(
        "{GATEWAY}\n[data]\ntrusted-core = {{ rlocs = [\"198.51.100.0/24\"], locator-status-bits = true, use-lsb-timer = \"1m\" }}\n"
    );
    of_core(
        "gateway.toml",
        &text,
        "gateway.toml:9: data.trusted-core.use-lsb-timer: a gateway has no site whose locators it could tell of; leave it out: it is for tunnel routers of a site",
    );
}

#[test]
fn dh_17_merged_registrations_have_no_ordinals() {
    let text =
        core(r#"rlocs = ["198.51.100.0/24"], locator-status-bits = true, map-versioning = true"#);
    of_core(
        "xtr.toml",
        &text.replace(
            "[xtr]\n",
            "[xtr]\nmerge = true\nxtr-id = \"000102030405060708090a0b0c0d0e0f\"\nsite-id = 1\n",
        ),
        "xtr.toml:14: data.trusted-core: with merge = true neither the version nor the ordinals of the site's mapping are known here; leave out map-versioning and locator-status-bits",
    );
}
