//! The use cases of IPv6 migration, each as a list of things that must be seen.

use std::io;
use std::time::Instant;

use super::report::Checks;
use super::session::Lab;

/// A scenario of the lab.
pub(crate) struct Scenario {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// In one line.
    pub(crate) title: &'static str,
    body: fn(&Lab, &mut Checks) -> io::Result<()>,
}

/// All scenarios, in the order in which they run.
pub(crate) static SCENARIOS: &[Scenario] = &[];

impl Scenario {
    /// Runs it to its end, or to the first error, which is a failed acceptance.
    pub(crate) fn run(&self, lab: &Lab, print: bool) -> Checks {
        let begin = Instant::now();
        let mut checks = Checks::begin(self.name, self.title, print);
        if let Err(error) = (self.body)(lab, &mut checks) {
            checks.abort(&error);
        }
        checks.seconds = begin.elapsed().as_secs_f64();
        checks
    }
}
