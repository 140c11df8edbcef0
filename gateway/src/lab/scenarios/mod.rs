//! The use cases of IPv6 migration, each as a list of things that must be seen.

mod d1;
mod f1;
mod f2;
mod i1;
mod i2;
mod l1;
mod m1;
mod mtu;
mod p1;
mod s1;
mod s2;
mod s3;
mod t1;
mod wire;
mod x1;

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
pub(crate) static SCENARIOS: &[Scenario] = &[
    Scenario { name: "s1", title: s1::TITLE, body: s1::run },
    Scenario { name: "s2", title: s2::TITLE, body: s2::run },
    Scenario { name: "s3", title: s3::TITLE, body: s3::run },
    Scenario { name: "i1", title: i1::TITLE, body: i1::run },
    Scenario { name: "i2", title: i2::TITLE, body: i2::run },
    Scenario { name: "x1", title: x1::TITLE, body: x1::run },
    Scenario { name: "t1", title: t1::TITLE, body: t1::run },
    Scenario { name: "d1", title: d1::TITLE, body: d1::run },
    Scenario { name: "l1", title: l1::TITLE, body: l1::run },
    Scenario { name: "f1", title: f1::TITLE, body: f1::run },
    Scenario { name: "f2", title: f2::TITLE, body: f2::run },
    Scenario { name: "p1", title: p1::TITLE, body: p1::run },
    // Last: what routers said of the paths holds for ten minutes.
    Scenario { name: "m1", title: m1::TITLE, body: m1::run },
];

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
