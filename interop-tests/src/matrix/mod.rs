//! Networks in which each role is played by Isthmus or by another implementation, and what is checked in them.
//!
//! ```text
//!                     [ms] Map-Server, Map-Resolver
//!                       |
//!   [host-1] -- [xtr-1] - [core] - [xtr-2] -- [host-2]
//!                       |
//!                    [pxtr] PITR, PETR -- [host-n] knows nothing of LISP
//! ```
//! The core is IPv4 or IPv6; sites and host N speak both, so that one network has two cells of the matrix.

pub mod network;
mod on_behalf;
pub mod plan;
pub mod traffic;
pub mod watch;

use std::fmt;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use network::Network;
use plan::{Family, Role};
use traffic::Host;
use watch::{Mark, Packet};

use crate::peers::Program;

/// Datagrams of a stream, in each direction.
pub const STREAM: u32 = 300;
/// Echo requests in each direction once the first was answered.
const PINGS: usize = 5;
/// How often a stream through another implementation is tried.
const TRIES: u32 = 3;
/// How long the first answer may take: lookups, and a peer that loses the packets which caused them.
const FIRST_ANSWER: Duration = Duration::from_secs(20);
/// How long the counters of a daemon may be behind the wire.
const COUNTERS: Duration = Duration::from_secs(3);

/// One cell of the matrix, and what was seen in it.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Who plays, `ROLE=NAME`.
    pub cast: String,
    /// What was asked of them.
    pub what: String,
    /// What was seen, in words.
    pub seen: String,
    /// What should have been different; empty = passed.
    pub troubles: Vec<String>,
    /// Why somebody in it cannot do it, if that is known.
    pub limitation: Option<&'static str>,
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cast, what, seen, troubles, limitation } = self;
        let result = match (troubles.as_slice(), limitation) {
            ([], _) => "pass".to_owned(),
            (troubles, None) => troubles.join("; "),
            (troubles, Some(why)) => format!("peer's limitation: {why} ({})", troubles.join("; ")),
        };
        write!(f, "| {cast} | {what} | {result} | {seen} |")
    }
}

impl Cell {
    /// Nothing seen yet.
    pub fn new(network: &Network, what: impl Into<String>) -> Self {
        let (cast, what) = (network.plan().cast(), what.into());
        Self { cast, what, seen: String::new(), troubles: Vec::new(), limitation: None }
    }

    /// Notes `trouble` unless `good`.
    pub fn expect(&mut self, good: bool, trouble: impl Into<String>) {
        if !good {
            self.troubles.push(trouble.into());
        }
    }

    /// Prints the row of the table.
    ///
    /// # Panics
    /// When there is trouble of no known limitation, with the logs of everybody in the network.
    pub fn conclude(self, network: &Network) {
        conclude([self], network);
    }

    fn is_as_it_should_be(&self) -> bool {
        self.troubles.is_empty() || self.limitation.is_some()
    }
}

/// Prints the rows of the table.
///
/// # Panics
/// As [`Cell::conclude`], after the last row.
pub fn conclude(cells: impl IntoIterator<Item = Cell>, network: &Network) {
    let print = |cell: Cell| {
        println!("{cell}");
        cell
    };
    let cells = cells.into_iter().map(print).filter(|cell| !cell.is_as_it_should_be());
    let troubled: Vec<_> = cells.map(|cell| cell.to_string()).collect();
    assert!(troubled.is_empty(), "{}\n{}", troubled.join("\n"), network.logs());
}

/// Pings and a stream both ways between the hosts of two roles; `inner` is the family they speak.
///
/// # Errors
/// What the kernel said, or a daemon that cannot be asked.
pub fn exchange(network: &Network, (one, two): (Role, Role), inner: Family) -> io::Result<Cell> {
    let plan = network.plan();
    let mut cell = Cell::new(network, format!("{one} and {two}, {inner} in {}", plan.core));
    cell.limitation = plan.limitation(inner);
    let ends = [network.host(one, inner)?, network.host(two, inner)?];
    for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        let first = first_answer(from, to, FIRST_ANSWER)?;
        cell.expect(first.is_some(), format!("{to} never answered {from}"));
    }
    if !cell.troubles.is_empty() {
        return Ok(cell);
    }
    // A data plane in Python loses packets on a busy machine.
    let foreign = plan.roles().iter().any(|&(_, program)| program != Program::Isthmus);
    let tries = if foreign { TRIES } else { 1 };
    let mut number = 1;
    loop {
        let mut tried = cell.clone();
        measure(network, (one, two), inner, &ends, &mut tried)?;
        if number > 1 {
            tried.seen += &format!(", try {number}");
        }
        if tried.troubles.is_empty() || number == tries {
            return Ok(tried);
        }
        number += 1;
    }
}

/// Pings and streams between hosts that answer each other already.
fn measure(
    network: &Network,
    (one, two): (Role, Role),
    inner: Family,
    ends: &[Host<'_>; 2],
    cell: &mut Cell,
) -> io::Result<()> {
    let before = network.tally()?;
    let mark = network.core().mark();
    for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        let answered = (0..PINGS).filter(|_| from.ping(to).unwrap_or(false)).count();
        cell.expect(answered == PINGS, format!("{answered} of {PINGS} pings of {from} answered"));
    }
    let arrived = traffic::both_ways(&ends[0], &ends[1], STREAM)?;
    cell.expect(arrived == [STREAM; 2], format!("{arrived:?} of {STREAM} datagrams arrived"));
    judge_core(network, (one, two), inner, mark, cell);
    judge_counters(network, (one, two), &before, cell)?;
    cell.seen = format!("{arrived:?} of {STREAM} datagrams; {}", cell.seen);
    Ok(())
}

/// Pings until an answer comes; how long that took.
fn first_answer(from: &Host<'_>, to: &Host<'_>, limit: Duration) -> io::Result<Option<Duration>> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        if from.ping(to)? {
            return Ok(Some(begin.elapsed()));
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(None)
}

/// Everything between the two crossed the core encapsulated, from RLOC to RLOC.
fn judge_core(
    network: &Network,
    (one, two): (Role, Role),
    inner: Family,
    mark: Mark,
    cell: &mut Cell,
) {
    let plan = network.plan();
    let packets = network.core().since(mark);
    let wanted = STREAM as usize + 2 * PINGS;
    let count = |from, to| {
        let between =
            |p: &&Packet| plan.has_rloc(from, p.source) && p.destination == network.rloc(to);
        packets.iter().filter(between).filter(|p| p.inner() == Some(inner)).count()
    };
    let counts = [count(one, two), count(two, one)];
    cell.expect(
        counts.iter().all(|&count| count >= wanted),
        format!("{counts:?} packets in the core, not {wanted} each way"),
    );
    let native = packets.iter().filter(|p| plan.is_eid(p.source) || plan.is_eid(p.destination));
    let native = native.count();
    cell.expect(native == 0, format!("{native} packets crossed the core without encapsulation"));
    cell.seen = format!("{counts:?} LISP packets in the core");
    let late = packets.iter().filter(|p| network.has_left(p.source)).count();
    if late > 0 {
        cell.seen += &format!(", {late} of them from the RLOC that was left");
    }
}

/// The daemons of ours between the two counted what they forwarded, and none of ours dropped anything.
fn judge_counters(
    network: &Network,
    (one, two): (Role, Role),
    before: &[network::Tally],
    cell: &mut Cell,
) -> io::Result<()> {
    let enough = u64::from(STREAM);
    let deadline = Instant::now() + COUNTERS;
    loop {
        let after = network.tally()?;
        let mut troubles = Vec::new();
        for (before, after) in before.iter().zip(&after) {
            let (out, back) = (
                after.encapsulated - before.encapsulated,
                after.decapsulated - before.decapsulated,
            );
            if [one, two].contains(&after.role) && (out < enough || back < enough) {
                troubles.push(format!("{} counts {out} out and {back} in", after.role));
            }
            if after.dropped != before.dropped {
                let (before, now) = (&before.dropped, &after.dropped);
                troubles.push(format!("{} dropped {now:?}, before {before:?}", after.role));
            }
        }
        if troubles.is_empty() || Instant::now() > deadline {
            cell.troubles.extend(troubles);
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
}
