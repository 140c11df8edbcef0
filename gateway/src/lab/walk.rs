//! A walk-through on a page, done: the commands in its blocks are run in a network, and what they say is compared with the page.
//!
//! ```text
//! $ on xtr-1 isthmus show map-cache        runs there, with --socket of its daemon
//! $ on host-1 ping -c 3 203.0.113.74       sent by the lab itself
//! $ on isp-p ip link set far down          a link, likewise
//! $ sed -i 's/old/new/' $LAB/xtr-2.toml    a configuration
//! ...                                      any lines
//! ```
//!
//! Names, addresses, prefixes, states and priorities must be those of the page. Numbers, times and ports may differ, but for lines that
//! say how many there are of something ([`EXACT`]).

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::namespace::Namespace;
use super::network::Network;
use super::probe::craft::Header;
use super::probe::ping::{Answer, ping};
use super::report::Checks;

/// Lines with one of these count something that must be as on the page.
const EXACT: [&str; 3] = ["LISP ", "packets transmitted", "MTU "];
/// How long a state may take to become that of the page.
const PATIENCE: Duration = Duration::from_secs(8);
/// Between two looks at it.
const LOOK: Duration = Duration::from_millis(100);
/// How long an echo may take.
const ECHO: Duration = Duration::from_secs(2);
/// Octets of an echo request without its IP header, as `ping` has them.
const ECHO_OCTETS: usize = 64;
/// Verbs that change nothing, so that they can be asked again.
const READING: [&str; 4] = ["show", "lig", "explain", "events"];

/// The blocks of one section of a page that are still to be done.
pub(crate) struct Walk<'a> {
    network: &'a Network,
    hosts: &'a [(&'static str, [IpAddr; 2])],
    blocks: VecDeque<Block>,
}

/// A block: commands, each with what it says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Block {
    steps: Vec<Step>,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Step {
    command: String,
    expected: Vec<String>,
}

impl<'a> Walk<'a> {
    /// The blocks under the heading that begins with `heading`; `hosts` are the addresses that hosts send from.
    pub(crate) fn of(
        network: &'a Network,
        hosts: &'a [(&'static str, [IpAddr; 2])],
        page: &str,
        heading: &str,
    ) -> Self {
        Self { network, hosts, blocks: blocks(page, heading).into() }
    }

    /// Does the next `count` blocks; every command is an acceptance.
    pub(crate) fn steps(&mut self, checks: &mut Checks, count: usize) -> io::Result<()> {
        for _ in 0..count {
            let block = self.blocks.pop_front();
            let block = block.ok_or_else(|| io::Error::other("the page has no more blocks"))?;
            for step in block.steps {
                self.step(checks, &step)?;
            }
        }
        Ok(())
    }

    /// That nothing of the section is left.
    pub(crate) fn end(self, checks: &mut Checks) {
        checks.equal("blocks of the page that were not done", 0, self.blocks.len());
    }

    fn step(&self, checks: &mut Checks, step: &Step) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.run(&step.command)?;
            let difference = difference(&step.expected, &said);
            if difference.is_some() && is_reading(&step.command) && Instant::now() < deadline {
                thread::sleep(LOOK);
                continue;
            }
            checks.show(&shown(&step.command, &said));
            let observed = match &difference {
                None => "as on the page".to_owned(),
                Some(line) => line.clone(),
            };
            checks.that(&step.command, "as on the page", observed, difference.is_none());
            return Ok(());
        }
    }

    fn run(&self, command: &str) -> io::Result<Vec<String>> {
        let words = words(command);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match *words.as_slice() {
            ["on", name, "isthmus", ref verb @ ..] => self.isthmus(name, verb),
            ["on", name, "ping", "-c", count, address] => self.ping(name, count, address),
            ["on", name, "ip", "link", "set", link, state] => self.link(name, link, state),
            ["sed", "-i", expression, file] => self.edit(expression, file),
            _ => Err(not_understood(command)),
        }
    }

    fn isthmus(&self, name: &str, words: &[&str]) -> io::Result<Vec<String>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(words).arg("--socket").arg(&self.network.daemon_in(name)?.socket);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.namespace(name)?.start(command)?.wait_with_output()?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).lines().map(str::to_owned).collect())
    }

    /// Says what `ping` says last.
    fn ping(&self, name: &str, count: &str, address: &str) -> io::Result<Vec<String>> {
        let count: usize = count.parse().map_err(io::Error::other)?;
        let address: IpAddr = address.parse().map_err(io::Error::other)?;
        let host = self.hosts.iter().find(|(host, _)| *host == name);
        let (_, own) = host.ok_or_else(|| not_understood(name))?;
        let source = own.iter().find(|own| own.is_ipv4() == address.is_ipv4());
        let header = Header::new(*source.ok_or_else(|| not_understood(name))?, address);
        let (namespace, begin) = (self.namespace(name)?, Instant::now());
        let mut received = 0;
        for _ in 0..count {
            let length = header.length() + ECHO_OCTETS;
            received +=
                usize::from(matches!(ping(&namespace, header, length, ECHO)?, Answer::Reply(_)));
        }
        let lost = 100 * (count - received) / count.max(1);
        let time = begin.elapsed().as_millis();
        Ok(vec![format!(
            "{count} packets transmitted, {received} received, {lost}% packet loss, time {time}ms"
        )])
    }

    fn link(&self, name: &str, name_of_link: &str, state: &str) -> io::Result<Vec<String>> {
        let relay = self.network.relay_to(name)?;
        match (name_of_link, state) {
            ("far", "down") => relay.cut(true)?,
            ("far", "up") => relay.cut(false)?,
            _ => return Err(not_understood(name_of_link)),
        }
        Ok(Vec::new())
    }

    fn edit(&self, expression: &str, file: &str) -> io::Result<Vec<String>> {
        let parts: Vec<&str> = expression.split('/').collect();
        let ["s", old, new, ""] = parts[..] else { return Err(not_understood(expression)) };
        let name = file.strip_prefix("$LAB/").ok_or_else(|| not_understood(file))?;
        let path = self.network.directory().join(name);
        let text = fs::read_to_string(&path)?;
        if !text.contains(old) {
            return Err(io::Error::other(format!("{name} has no {old:?}")));
        }
        fs::write(&path, text.replacen(old, new, 1))?;
        Ok(Vec::new())
    }

    fn namespace(&self, name: &str) -> io::Result<Arc<Namespace>> {
        self.network.namespace(name)
    }
}

fn not_understood(what: &str) -> io::Error {
    io::Error::other(format!("not understood on the page: {what}"))
}

fn is_reading(command: &str) -> bool {
    let verb = command.split_whitespace().skip_while(|word| *word != "isthmus").nth(1);
    verb.is_some_and(|verb| READING.contains(&verb))
}

fn shown(command: &str, said: &[String]) -> String {
    let mut text = format!("\n  $ {command}\n");
    for line in said {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

/// The words of a command; single quotes hold one together.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (at, part) in command.split('\'').enumerate() {
        match at % 2 {
            0 => words.extend(part.split_whitespace().map(str::to_owned)),
            _ => words.push(part.to_owned()),
        }
    }
    words
}

fn blocks(page: &str, heading: &str) -> Vec<Block> {
    let mut lines = page.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    let mut blocks: Vec<Block> = Vec::new();
    let mut inside = false;
    for line in lines.by_ref().take_while(|line| !line.starts_with("## ")) {
        match (inside, line.strip_prefix("```")) {
            (false, Some("console")) => {
                blocks.push(Block::default());
                inside = true;
            }
            (true, Some(_)) => inside = false,
            (true, None) => {
                let Some(block) = blocks.last_mut() else { continue };
                match (line.strip_prefix("$ "), block.steps.last_mut()) {
                    (Some(command), _) => {
                        let (command, expected) = (command.trim_end().to_owned(), Vec::new());
                        block.steps.push(Step { command, expected });
                    }
                    (None, Some(step)) => step.expected.push(line.to_owned()),
                    (None, None) => {}
                }
            }
            _ => {}
        }
    }
    blocks
}

/// The first line of the page that was not said; `None` if all were.
fn difference(expected: &[String], said: &[String]) -> Option<String> {
    let lines = |lines: &[String]| -> Vec<String> {
        let filled = lines.iter().filter(|line| !line.trim().is_empty());
        filled.cloned().collect()
    };
    let (expected, said) = (lines(expected), lines(said));
    let mut rest = said.iter();
    let mut skipping = false;
    for wanted in &expected {
        if wanted.trim() == "..." {
            skipping = true;
            continue;
        }
        let found = match skipping {
            true => rest.find(|line| is_alike(wanted, line)),
            false => rest.next().filter(|line| is_alike(wanted, line)),
        };
        if found.is_none() {
            return Some(format!("it does not say: {}", wanted.trim()));
        }
        skipping = false;
    }
    match rest.next() {
        Some(line) if !skipping => Some(format!("it also says: {}", line.trim())),
        _ => None,
    }
}

fn is_alike(expected: &str, said: &str) -> bool {
    let is_exact = EXACT.iter().any(|exact| expected.contains(exact));
    let (expected, said): (Vec<_>, Vec<_>) =
        (expected.split_whitespace().collect(), said.split_whitespace().collect());
    expected.len() == said.len()
        && expected.iter().zip(&said).all(|(expected, said)| {
            expected == said || (!is_exact || is_time(expected)) && is_same_kind(expected, said)
        })
}

/// Both are numbers, times, or one address with different ports.
fn is_same_kind(one: &str, other: &str) -> bool {
    let plain = |word: &str| word.trim_end_matches([',', ';', ')', ':']).to_owned();
    let (one, other) = (plain(one), plain(other));
    let is_number = |word: &str| word.parse::<f64>().is_ok();
    let address = |word: &str| word.parse::<SocketAddr>().ok().map(|address| address.ip());
    is_number(&one) && is_number(&other)
        || is_time(&one) && is_time(&other)
        || address(&one).is_some_and(|one| address(&other) == Some(one))
}

/// `23:59:57`, `2003ms`, `2026-01-31T12:00:00Z`.
fn is_time(word: &str) -> bool {
    let word = word.trim_end_matches([',', ';', ')', ':']);
    let is_clock = word.split(':').count() == 3;
    let of_digits = |c: char| c.is_ascii_digit() || ":.-TZ".contains(c);
    is_clock && word.chars().all(of_digits)
        || word.strip_suffix("ms").is_some_and(|number| number.parse::<u64>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# Page\n\n## 1. One\n\n```console\n$ on xtr-1 isthmus show status\nhealthy\n```\n\ntext\n\n\
        ```console\n$ sed -i 's/a b/c d/' $LAB/x.toml\n$ on host-1 ping -c 3 203.0.113.74\n...\n3 packets\n```\n\n\
        ```sh\nnot this\n```\n\n## 2. Two\n\n```console\n$ other\n```\n";

    fn strings(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_section_s_blocks_are_its_commands_with_what_they_say() {
        let blocks = blocks(PAGE, "## 1.");
        let step = |command: &str, expected: &[&str]| Step {
            command: command.to_owned(),
            expected: strings(expected),
        };
        let one = vec![step("on xtr-1 isthmus show status", &["healthy"])];
        let two = vec![
            step("sed -i 's/a b/c d/' $LAB/x.toml", &[]),
            step("on host-1 ping -c 3 203.0.113.74", &["...", "3 packets"]),
        ];
        assert_eq!(blocks, [Block { steps: one }, Block { steps: two }]);
        assert_eq!(words("sed -i 's/a b/c/' x"), ["sed", "-i", "s/a b/c/", "x"]);
        assert!(is_reading("on x isthmus show map-cache") && !is_reading("on x isthmus reload"));
    }

    #[test]
    fn numbers_and_times_may_differ_and_nothing_else() {
        for (page, said) in [
            ("up  1/50  0.634 ms  7 octets", "up 1/50 1.2 ms 17 octets"),
            ("uptime: 00:00:02, expires: 23:59:57", "uptime: 00:01:00, expires: 23:58:00"),
            ("198.51.100.11:65377 -> [2001:db8::1]:4341", "198.51.100.11:1 -> [2001:db8::1]:4341"),
            (
                "3 packets transmitted, 3 received, time 4ms",
                "3 packets transmitted, 3 received, time 2003ms",
            ),
        ] {
            assert!(is_alike(page, said), "{said}");
        }
        for (page, said) in [
            ("up  1/50", "up  1/75"),
            ("LISP map-cache, 1 entry", "LISP map-cache, 2 entry"),
            ("3 packets transmitted, 3 received", "3 packets transmitted, 2 received"),
            ("198.51.100.11:1", "198.51.100.12:1"),
            ("203.0.113.64/26", "203.0.113.64/27"),
            ("up", "down"),
            ("a b", "a"),
        ] {
            assert!(!is_alike(page, said), "{said}");
        }
    }

    #[test]
    fn dots_stand_for_any_lines() {
        let said = strings(&["a", "", "b 1", "c"]);
        for page in [&["a", "b 2", "c"][..], &["...", "c"], &["a", "..."], &["...", "b 7", "..."]] {
            assert_eq!(difference(&strings(page), &said), None, "{page:?}");
        }
        for (page, expected) in [
            (&["a", "c"][..], "it does not say: c"),
            (&["a", "b 1"], "it also says: c"),
            (&["...", "d"], "it does not say: d"),
        ] {
            assert_eq!(difference(&strings(page), &said).as_deref(), Some(expected));
        }
    }
}
