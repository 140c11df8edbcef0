//! What is to be reached, and whether it was. The figures themselves are in `targets.json`.

use std::io;

use serde::{Deserialize, Serialize};

/// A figure to be reached by our own daemons.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Target {
    /// The measurement's name.
    pub(crate) measurement: String,
    /// Which of its values.
    pub(crate) value: String,
    /// In words, with the unit.
    pub(crate) work: String,
    /// No release is worse than this.
    pub(crate) floor: f64,
    /// Where we are going.
    pub(crate) goal: f64,
    /// Which way is good.
    pub(crate) better: Better,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Better {
    /// At least the target.
    More,
    /// At most the target.
    Less,
}

impl Target {
    /// Whether `measured` reaches `target`, one of the two figures.
    pub(crate) fn is_met(&self, measured: f64, target: f64) -> bool {
        match self.better {
            Better::More => measured >= target,
            Better::Less => measured <= target,
        }
    }
}

/// All of them.
pub(crate) fn targets() -> io::Result<Vec<Target>> {
    Ok(serde_json::from_str(include_str!("targets.json"))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measurement::MEASUREMENTS;

    #[test]
    fn every_target_is_of_a_measurement_and_its_goal_is_beyond_its_floor() {
        for target in targets().unwrap() {
            let measurement = MEASUREMENTS.iter().find(|m| m.name == target.measurement);
            let measurement = measurement.unwrap_or_else(|| panic!("{target:?}"));
            assert!(measurement.columns().iter().any(|column| column.value == target.value));
            assert!(target.is_met(target.goal, target.floor), "{target:?}");
        }
    }

    #[test]
    fn less_can_be_better() {
        let target = |better| Target {
            measurement: String::new(),
            value: String::new(),
            work: String::new(),
            floor: 2.0,
            goal: 1.0,
            better,
        };
        assert!(target(Better::Less).is_met(1.5, 2.0) && !target(Better::Less).is_met(1.5, 1.0));
        assert!(target(Better::More).is_met(1.0, 1.0) && !target(Better::More).is_met(0.9, 1.0));
    }
}
