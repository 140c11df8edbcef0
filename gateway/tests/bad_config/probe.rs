//! `isthmus check` on `probe` and `announce`: what is wrong with them, by line and key.
use super::*;

/// Checks an xTR whose second line is `probe = `, and expects these complaints about it.
fn of_probe(probe: &str, complaints: &[&str]) {
    let text = XTR.replace("[xtr]\n", &format!("[xtr]\nprobe = {probe}\n"));
    checked("xtr.toml", &text, "xtr.toml:2: xtr.probe", complaints);
}

/// Checks `text` and expects these complaints, each after `place`.
fn checked(file: &str, text: &str, place: &str, complaints: &[&str]) {
    let directory = TempDir::new().expect("temporary directory");
    fs::write(directory.path().join(file), text).expect("written");
    let output = isthmus(directory.path(), &["check", "--offline", file]);
    let expected: Vec<String> =
        complaints.iter().map(|complaint| format!("{place}{complaint}")).collect();
    assert_eq!(stderr_lines(&output), expected, "{text}");
    let code = if complaints.is_empty() { 0 } else { 78 };
    assert_eq!(output.status.code(), Some(code), "{text}");
}

#[test]
fn pb_10_what_can_be_said_of_probing() {
    for right in [
        r#""off""#,
        "{}",
        r#"{ interval = "100ms" }"#,
        r#"{ interval = "1s", idle-interval = "1s", tries = 10, hold-down = 1 }"#,
        // Then the usual interval of idle locators, a minute, would be the shorter one.
        r#"{ interval = "5m" }"#,
    ] {
        of_probe(right, &[]);
    }
}

#[test]
fn pb_10_what_is_wrong_is_named() {
    of_probe(
        r#""5s""#,
        &[r#": "5s" is no way to probe; write "off" or { interval = "1s", tries = 3 }"#],
    );
    of_probe("5", &[": is a number (5); write a table"]);
    of_probe(
        r#"{ interval = "99ms", idle-interval = 60, tries = 0, hold-down = "3" }"#,
        &[
            r#".hold-down: is text ("3"); write 1 to 100"#,
            r#".idle-interval: is a number (60); write a duration in quotes, such as "15s""#,
            r#".interval: "99ms" is out of range; write 100ms to 3600s"#,
            ".tries: 0 is out of range; write 1 to 10",
        ],
    );
    of_probe(
        r#"{ interval = "10s", idle-interval = "9s" }"#,
        &[
            ".idle-interval: is shorter than interval; locators without traffic are probed as often as the others at most",
        ],
    );
    of_probe(r#"{ intervall = "1s" }"#, &[r#".intervall: unknown key; did you mean "interval"?"#]);
}

#[test]
fn pi_16_when_the_aggregates_are_withdrawn() {
    for (announce, complaints) in [
        ("{}", &[][..]),
        (r#"{ withdraw-when-unhealthy = false }"#, &[]),
        (r#"{ after = "1s" }"#, &[]),
        (
            r#"{ after = "999ms", withdraw-when-unhealthy = 1 }"#,
            &[
                r#".after: "999ms" is out of range; write 1s to 3600s"#,
                ".withdraw-when-unhealthy: is a number (1); write true or false",
            ],
        ),
        (
            r#"{ after = "10s", withdraw-when-unhealthy = false }"#,
            &[
                ".after: given though nothing is ever withdrawn; leave it out, or write withdraw-when-unhealthy = true",
            ],
        ),
    ] {
        let text = format!(
            "[gateway]\nrlocs = [\"198.51.100.1\"]\nmap-resolvers = [\"198.51.100.2\"]\n\
             [pitr]\neid-aggregates = [\"203.0.113.0/24\"]\nannounce = {announce}\n"
        );
        checked("gateway.toml", &text, "gateway.toml:6: pitr.announce", complaints);
    }
}
