//! What happened, when and why.
use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::clock::Epoch;
use crate::limits::{Rate, TokenBucket};

/// Most events kept; older ones make room.
pub const MOST_EVENTS: usize = 2_048;
/// Octets of a text of an event; what is longer is cut off.
const LONGEST_TEXT: usize = 256;
/// Of one kind of event, per second and at once: what comes beyond is counted, so that one kind cannot push out all others.
const PER_SECOND: u32 = 5;
const AT_ONCE: u32 = 100;

/// What all events take, octets.
pub(super) const MOST_OCTETS: usize = MOST_EVENTS * (size_of::<Kept>() + 2 * LONGEST_TEXT);

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    Info,
    /// Something that somebody should look at.
    Warning,
    /// Something does not work.
    Error,
}

impl Severity {
    /// As printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// An event as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// What happened, in kebab case.
    pub kind: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// To whom or what: an RLOC, an EID-prefix, a site.
    pub subject: String,
    /// Why, or who says so, in words; may be empty.
    pub cause: String,
}

impl Told {
    /// Something ordinary.
    pub fn info(kind: &'static str, subject: impl ToString, cause: impl ToString) -> Self {
        Self::new(kind, Severity::Info, subject, cause)
    }

    /// Something to look at.
    pub fn warning(kind: &'static str, subject: impl ToString, cause: impl ToString) -> Self {
        Self::new(kind, Severity::Warning, subject, cause)
    }

    /// Something that does not work.
    pub fn error(kind: &'static str, subject: impl ToString, cause: impl ToString) -> Self {
        Self::new(kind, Severity::Error, subject, cause)
    }

    fn new(
        kind: &'static str,
        severity: Severity,
        subject: impl ToString,
        cause: impl ToString,
    ) -> Self {
        Self { kind, severity, subject: subject.to_string(), cause: cause.to_string() }
    }
}

/// The last events.
#[derive(Debug)]
pub struct Events {
    epoch: Epoch,
    kept: VecDeque<Kept>,
    /// The number of the next one.
    next: u64,
    /// By kind, of which there are few.
    paces: BTreeMap<&'static str, Pace>,
}

#[derive(Debug)]
struct Kept {
    at: Instant,
    told: Told,
    left_out: u64,
}

#[derive(Debug, Default)]
struct Pace {
    bucket: TokenBucket,
    left_out: u64,
}

impl Events {
    /// None yet; `now` is `unix` after 1970-01-01T00:00Z.
    pub fn new(now: Instant, unix: Duration) -> Self {
        Self {
            epoch: Epoch::new(now, unix),
            kept: VecDeque::new(),
            next: 0,
            paces: BTreeMap::new(),
        }
    }

    /// Whether there is room for one more of this kind now; if not, it is counted as left out.
    pub fn admits(&mut self, now: Instant, kind: &'static str) -> bool {
        let pace = self.paces.entry(kind).or_default();
        let admitted = pace.bucket.take(now, Rate::new(PER_SECOND, AT_ONCE));
        if !admitted {
            pace.left_out += 1;
        }
        admitted
    }

    /// Keeps an event that was admitted.
    pub fn keep(&mut self, now: Instant, mut told: Told) {
        let left_out = self.paces.get_mut(told.kind).map(|pace| std::mem::take(&mut pace.left_out));
        let left_out = left_out.unwrap_or_default();
        cut(&mut told.subject);
        cut(&mut told.cause);
        if self.kept.len() >= MOST_EVENTS {
            self.kept.pop_front();
        }
        self.kept.push_back(Kept { at: now, told, left_out });
        self.next += 1;
    }

    /// The events after the one with this number, the oldest first; all that are kept without it. A number that was never given, as from
    /// before a restart, counts as none.
    pub fn after(&self, after: Option<u64>) -> EventsView {
        let oldest = self.next - self.kept.len() as u64;
        let wanted = match after {
            Some(after) if after < self.next => after + 1,
            Some(_) | None => oldest,
        };
        let skipped = usize::try_from(wanted.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let numbered = (oldest..).zip(&self.kept).skip(skipped);
        let events = numbered.map(|(number, kept)| self.view(number, kept)).collect();
        EventsView { events, last: self.next.checked_sub(1), lost: oldest.saturating_sub(wanted) }
    }

    fn view(&self, number: u64, Kept { at, told, left_out }: &Kept) -> EventView {
        EventView {
            number,
            unix_milliseconds: self.epoch.unix_millis(*at),
            severity: told.severity,
            kind: told.kind.to_owned(),
            subject: told.subject.clone(),
            cause: told.cause.clone(),
            left_out: *left_out,
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|at| text.is_char_boundary(*at));
        text.truncate(end.unwrap_or_default());
    }
    text.shrink_to_fit();
}

/// What `isthmus events` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsView {
    /// The oldest first.
    pub events: Vec<EventView>,
    /// The number of the newest event there is: what comes later comes after it. `None` when there was none.
    pub last: Option<u64>,
    /// Events after the one that was named that made room before they were asked for.
    pub lost: u64,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventView {
    /// Counts up by one from 0.
    pub number: u64,
    /// When, since 1970.
    pub unix_milliseconds: u64,
    /// How bad it is.
    pub severity: Severity,
    /// What happened.
    pub kind: String,
    /// To whom or what.
    pub subject: String,
    /// Why.
    pub cause: String,
    /// Others of this kind since the one before that were not kept: there were too many.
    #[serde(default)]
    pub left_out: u64,
}
