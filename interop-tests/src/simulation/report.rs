//! The figures of a run.
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Which lookups count: those that every node and every way that takes part let complete, all the time from the first packet to the end.
pub(super) const RULE: &str = "a lookup counts if from its first packet to its end the asking site, both Map-Servers and (unless \
    they answer for it) the site asked for were up, on one island, with no locator that is cut off, and both Map-Servers had \
    acknowledged the site's registration within the time that a registration lives";

/// What happened in a simulation.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Simulated.
    pub elapsed: Duration,
    /// Sites.
    pub sites: u32,
    /// Map-cache entries over all sites at the end.
    pub map_cache_entries: usize,
    /// Lookups whose Map-Request a Map-Server answers (P-bit).
    pub proxied: Resolutions,
    /// Lookups that go on to the ETR.
    pub through_etr: Resolutions,
    /// Lookups that subscribe.
    pub subscribed: Resolutions,
    /// Moves of hosts.
    pub host_moves: u64,
    /// Packets to hosts that move, by what became of them.
    pub to_hosts: BTreeMap<&'static str, u64>,
    /// Packets by what became of them.
    pub packets: BTreeMap<&'static str, u64>,
    /// Messages sent, by what they are.
    pub messages: BTreeMap<&'static str, u64>,
    /// What fate did, and how often.
    pub strikes: BTreeMap<&'static str, u64>,
    /// Packets sent to a locator that was never registered for their EID.
    pub never_registered: u64,
    /// What broke a rule of the RFCs, in words; the first few.
    pub violations: Vec<String>,
    /// How many there were.
    pub violation_count: u64,
}

/// Lookups of one kind.
#[derive(Clone, Debug, Default)]
pub struct Resolutions {
    /// How long those took that found the mapping.
    pub times: Distribution,
    /// Given up after the retries of RFC 9301 §5.3.
    pub unanswered: u64,
    /// Answered otherwise than with the mapping, though the site was registered.
    pub negative: u64,
    /// By [`RULE`] not counted: found.
    pub found_in_trouble: u64,
    /// And not found.
    pub failed_in_trouble: u64,
}

impl Resolutions {
    /// Lookups with nobody who took part in trouble.
    pub fn total(&self) -> u64 {
        self.times.len() as u64 + self.unanswered + self.negative
    }

    /// The share of them that found the mapping, in percent.
    pub fn percent_found(&self) -> f64 {
        self.times.len() as f64 * 100.0 / self.total().max(1) as f64
    }
}

/// Durations.
#[derive(Clone, Debug, Default)]
pub struct Distribution {
    micros: Vec<u32>,
}

impl Distribution {
    pub(super) fn add(&mut self, duration: Duration) {
        self.micros.push(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX));
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.micros.is_empty()
    }

    /// What `percent` of them do not exceed.
    pub fn percentile(&self, percent: usize) -> Duration {
        let mut sorted = self.micros.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        Duration::from_micros(sorted.get(at).copied().unwrap_or_default().into())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} sites, {} map-cache entries, {:.0} s",
            self.sites,
            self.map_cache_entries,
            self.elapsed.as_secs_f64()
        )?;
        let kinds = [
            ("proxy-reply", &self.proxied),
            ("through the ETR", &self.through_etr),
            ("by subscription", &self.subscribed),
        ];
        for (name, kind) in kinds {
            writeln!(
                f,
                "resolved, {name}: {:.3} % of {} (unanswered {}, negative {}), p50 {:?}, p99 {:?}; \
                 not counted: {} found, {} not",
                kind.percent_found(),
                kind.total(),
                kind.unanswered,
                kind.negative,
                kind.times.percentile(50),
                kind.times.percentile(99),
                kind.found_in_trouble,
                kind.failed_in_trouble,
            )?;
        }
        writeln!(f, "counted: {RULE}")?;
        let site_hours = f64::from(self.sites) * self.elapsed.as_secs_f64() / 3_600.0;
        for (name, count) in &self.messages {
            let share = *count as f64 / site_hours;
            writeln!(f, "messages: {name}: {count}, {share:.1} per site and hour")?;
        }
        writeln!(f, "packets: {:?}", self.packets)?;
        writeln!(f, "moves of hosts: {}, packets to them: {:?}", self.host_moves, self.to_hosts)?;
        writeln!(f, "strikes: {:?}", self.strikes)?;
        writeln!(f, "to locators never registered: {}", self.never_registered)?;
        writeln!(f, "violations: {} {:#?}", self.violation_count, self.violations)
    }
}
