//! The use cases, each as a list of things that must be seen. A scenario runs on the network of the IPv6 migration or on
//! a [`Plan`] that it names.

mod d1;
mod exercises;
mod f1;
mod f2;
mod failover;
mod i1;
mod i2;
mod l1;
mod m1;
mod mobility;
mod mtu;
mod nat;
mod p1;
mod s1;
mod s2;
mod s3;
mod t1;
mod traffic_engineering;
mod trusted_core;
mod wire;
mod x1;

use std::io;
use std::time::Instant;

use super::network::{Network, Plan};
use super::report::Checks;
use super::session::{Lab, Session};
use super::topology;

/// A scenario of the lab.
pub(crate) struct Scenario {
    /// As on the command line.
    pub(crate) name: &'static str,
    /// In one line.
    pub(crate) title: &'static str,
    /// Whether it belongs to all of them.
    pub(crate) when: When,
    body: Body,
}

/// When a scenario is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Also when none is named.
    Always,
    /// Only when it is named: what it shows, others prove.
    Named,
}

/// What a scenario does on a network of its own.
type OnPlan = fn(&mut Network, &mut Checks) -> io::Result<()>;

/// What a scenario does, and on which network.
#[derive(Clone, Copy)]
enum Body {
    /// On the network of the IPv6 migration.
    Migration(fn(&Lab, &mut Checks) -> io::Result<()>),
    /// On one of its own, which it may share with other scenarios.
    Planned(&'static Plan, OnPlan),
}

/// All scenarios, in the order in which they run.
pub(crate) static SCENARIOS: &[Scenario] = &[
    Scenario::of_migration("s1", s1::TITLE, s1::run),
    Scenario::of_migration("s2", s2::TITLE, s2::run),
    Scenario::of_migration("s3", s3::TITLE, s3::run),
    Scenario::of_migration("i1", i1::TITLE, i1::run),
    Scenario::of_migration("i2", i2::TITLE, i2::run),
    Scenario::of_migration("x1", x1::TITLE, x1::run),
    Scenario::of_migration("t1", t1::TITLE, t1::run),
    Scenario::of_migration("d1", d1::TITLE, d1::run),
    Scenario::of_migration("l1", l1::TITLE, l1::run),
    Scenario::of_migration("f1", f1::TITLE, f1::run),
    Scenario::of_migration("f2", f2::TITLE, f2::run),
    Scenario::of_migration("p1", p1::TITLE, p1::run),
    // The last of its network: what routers said of the paths holds for ten minutes.
    Scenario::of_migration("m1", m1::TITLE, m1::run),
    Scenario::planned("mobility", mobility::TITLE, (&mobility::PLAN, mobility::run)),
    Scenario::planned(
        "traffic-engineering",
        traffic_engineering::TITLE,
        (&traffic_engineering::PLAN, traffic_engineering::run),
    ),
    Scenario::planned("failover", failover::TITLE, (&failover::PLAN, failover::run)),
    Scenario::planned("nat", nat::TITLE, (&nat::PLAN, nat::run)),
    Scenario::planned(
        "trusted-core",
        trusted_core::TITLE,
        (&trusted_core::PLAN, trusted_core::run),
    ),
    Scenario::exercise("exercise-1", 1),
    Scenario::exercise("exercise-2", 2),
    Scenario::exercise("exercise-3", 3),
    Scenario::exercise("exercise-4", 4),
    Scenario::exercise("exercise-5", 5),
    Scenario::exercise("exercise-6", 6),
    Scenario::exercise("exercise-7", 7),
];

impl Scenario {
    const fn of_migration(
        name: &'static str,
        title: &'static str,
        body: fn(&Lab, &mut Checks) -> io::Result<()>,
    ) -> Self {
        Self { name, title, when: When::Always, body: Body::Migration(body) }
    }

    /// The exercise of that number; learners name it.
    const fn exercise(name: &'static str, number: usize) -> Self {
        let body = Body::Planned(exercises::plan(number), exercises::RUNS[number - 1]);
        Self { name, title: exercises::TITLES[number - 1], when: When::Named, body }
    }

    const fn planned(
        name: &'static str,
        title: &'static str,
        (plan, body): (&'static Plan, OnPlan),
    ) -> Self {
        Self { name, title, when: When::Always, body: Body::Planned(plan, body) }
    }

    /// The plan of its network; `None` for that of the IPv6 migration.
    pub(crate) fn plan(&self) -> Option<&'static Plan> {
        match self.body {
            Body::Migration(_) => None,
            Body::Planned(plan, _) => Some(plan),
        }
    }

    /// The name of its network.
    pub(crate) fn network(&self) -> &'static str {
        self.plan().map_or("migration", |plan| plan.name)
    }

    /// Its network as a drawing.
    pub(crate) fn drawing(&self) -> &'static str {
        self.plan().map_or(topology::DRAWING, |plan| plan.drawing)
    }

    /// Runs it to its end, or to the first error, which is a failed acceptance.
    pub(crate) fn run(&self, session: &mut Session, print: bool) -> Checks {
        let begin = Instant::now();
        let mut checks = self.checks(print);
        let outcome = match (self.body, session) {
            (Body::Migration(body), Session::Migration(lab)) => body(lab, &mut checks),
            (Body::Planned(_, body), Session::Planned(network)) => body(network, &mut checks),
            _ => Err(io::Error::other("another network is up")),
        };
        if let Err(error) = outcome {
            checks.abort(&error);
        }
        checks.seconds = begin.elapsed().as_secs_f64();
        checks
    }

    /// What remains to be said when its network does not come up.
    pub(crate) fn without_network(&self, error: &io::Error, print: bool) -> Checks {
        let mut checks = self.checks(print);
        checks.abort(error);
        checks
    }

    fn checks(&self, print: bool) -> Checks {
        Checks::begin(self.name, self.title, print)
    }
}
