//! What was to be seen and what was seen: collected per scenario, printed for people or as JSON.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

/// One thing that had to be observed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Acceptance {
    /// `S1.3`.
    pub(crate) id: String,
    /// What it is about.
    pub(crate) text: String,
    /// What had to be seen.
    pub(crate) expected: String,
    /// What was seen.
    pub(crate) observed: String,
    /// Whether that is the same.
    pub(crate) passed: bool,
}

/// The acceptances of one scenario, as they are observed.
#[derive(Debug, Serialize)]
pub(crate) struct Checks {
    /// `s1`.
    pub(crate) scenario: &'static str,
    /// In one line.
    pub(crate) title: &'static str,
    /// In the order of observation.
    pub(crate) acceptances: Vec<Acceptance>,
    /// How long the scenario took.
    pub(crate) seconds: f64,
    #[serde(skip)]
    print: bool,
}

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// One per scenario that ran.
    pub(crate) scenarios: Vec<Checks>,
    /// Acceptances that were observed.
    pub(crate) observed: usize,
    /// Acceptances that were not.
    pub(crate) failed: usize,
    /// From start to end.
    pub(crate) seconds: f64,
}

impl Checks {
    /// Begins a scenario; with `print`, every acceptance is shown as it comes.
    pub(crate) fn begin(scenario: &'static str, title: &'static str, print: bool) -> Self {
        let checks = Self { scenario, title, acceptances: Vec::new(), seconds: 0.0, print };
        checks.show(&format!("\n{}  {title}\n", scenario.to_uppercase()));
        checks
    }

    /// For observations that may be made again: nothing is shown, and nothing counts until it is recorded here.
    pub(crate) fn apart(&self) -> Self {
        Self::begin(self.scenario, self.title, false)
    }

    /// Records whether `observed` is what had to be seen.
    pub(crate) fn that(
        &mut self,
        text: impl Into<String>,
        expected: impl Display,
        observed: impl Display,
        passed: bool,
    ) {
        let number = self.acceptances.len() + 1;
        let acceptance = Acceptance {
            id: format!("{}.{number}", self.scenario.to_uppercase()),
            text: text.into(),
            expected: expected.to_string(),
            observed: observed.to_string(),
            passed,
        };
        self.show(&line(&acceptance));
        self.acceptances.push(acceptance);
    }

    /// Records whether `observed` equals `expected`.
    pub(crate) fn equal<T: PartialEq + Display>(
        &mut self,
        text: impl Into<String>,
        expected: T,
        observed: T,
    ) {
        let passed = expected == observed;
        self.that(text, expected, observed, passed);
    }

    /// Records that the scenario could not go on.
    pub(crate) fn abort(&mut self, error: &io::Error) {
        self.that("the scenario runs to its end", "no error", error, false);
    }

    /// How many acceptances were not observed.
    pub(crate) fn failed(&self) -> usize {
        self.acceptances.iter().filter(|acceptance| !acceptance.passed).count()
    }

    /// Shows something beside the acceptances.
    pub(crate) fn show(&self, text: &str) {
        if self.print {
            show(text);
        }
    }
}

impl Report {
    /// Sums up.
    pub(crate) fn of(scenarios: Vec<Checks>, took: Duration) -> Self {
        let failed = scenarios.iter().map(Checks::failed).sum();
        let total: usize = scenarios.iter().map(|checks| checks.acceptances.len()).sum();
        Self { scenarios, observed: total - failed, failed, seconds: took.as_secs_f64() }
    }

    /// Whether there was something to observe and all of it was observed.
    pub(crate) fn passed(&self) -> bool {
        self.failed == 0 && self.observed > 0
    }

    /// The last line of the text output.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{} scenario{}, {} acceptances: {} observed, {} failed, {:.1} s",
            self.scenarios.len(),
            if self.scenarios.len() == 1 { "" } else { "s" },
            self.observed + self.failed,
            self.observed,
            self.failed,
            self.seconds
        )
    }
}

/// Prints to standard output; a reader that went away is no reason to stop.
pub(crate) fn show(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn line(acceptance: &Acceptance) -> String {
    let verdict = if acceptance.passed { "  ok  " } else { "  FAIL" };
    let Acceptance { id, text, expected, observed, .. } = acceptance;
    // A scenario of a long name has its acceptances' texts further right, all at one place.
    let width = id.split('.').next().map_or(0, str::len).max(3) + 3;
    let mut line = format!("{verdict} {id:<width$} {text:<66} {observed}\n");
    if !acceptance.passed {
        line.push_str(&format!("{:14}{:<66} expected: {expected}\n", "", ""));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acceptances_are_numbered_and_summed_up() {
        let mut checks = Checks::begin("s1", "IPv6 over an IPv4 core", false);
        checks.equal("native IPv6 frames in the core", 0, 0);
        checks.equal("lost pings", 0, 3);
        assert_eq!(checks.acceptances[1].id, "S1.2");
        let report = Report::of(vec![checks], Duration::from_millis(23_440));
        assert!(!report.passed());
        assert_eq!(report.summary(), "1 scenario, 2 acceptances: 1 observed, 1 failed, 23.4 s");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["scenarios"][0]["acceptances"][1]["observed"], "3");
    }

    #[test]
    fn a_failure_says_what_was_expected() {
        let mut checks = Checks::begin("i1", "", false);
        checks.that("MTU", 1444, 1500, false);
        let shown = line(&checks.acceptances[0]);
        assert!(shown.starts_with("  FAIL I1.1   MTU"));
        assert!(shown.trim_end().ends_with("expected: 1444"));
    }

    #[test]
    fn a_run_without_acceptances_has_proved_nothing() {
        assert!(!Report::of(Vec::new(), Duration::ZERO).passed());
    }
}
