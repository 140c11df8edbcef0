//! What was measured: every value of every round, medians, and what they are worth beside the targets.

use std::collections::BTreeMap;

use serde::Serialize;

use super::measurement::{Comparison, Measurement, Values};
use super::targets::Target;
use crate::cli::columns::{Align, table};

/// A column of a measurement's table.
#[derive(Debug)]
pub(crate) struct Column {
    /// The value's name in JSON.
    pub(crate) value: &'static str,
    /// What it is called in the table, with its unit.
    pub(crate) header: &'static str,
    /// Digits after the point.
    pub(crate) decimals: usize,
}

/// The name of the contender that the others are compared with.
pub(crate) const REFERENCE: &str = "vxlan";
/// The name of the one that round trips are compared with.
const PLAIN: &str = "plain";
/// The name of the contender that the targets are for.
pub(crate) const OURS: &str = "isthmus";

/// The whole run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this program.
    pub(crate) version: &'static str,
    /// Release of the kernel.
    pub(crate) kernel: String,
    /// Cores of the machine that this process may use.
    pub(crate) cores: usize,
    /// Rounds per measurement.
    pub(crate) rounds: usize,
    /// Seconds per contender and round.
    pub(crate) seconds: f64,
    /// In the order in which they were made.
    pub(crate) results: Vec<Outcome>,
    /// EID-prefixes that gateway 1's map-cache was filled with beforehand.
    pub(crate) map_cache: usize,
    /// What could not be measured, and why.
    pub(crate) failures: Vec<String>,
    /// The targets of what was measured.
    pub(crate) targets: Vec<Verdict>,
}

/// One measurement of one family combination.
#[derive(Debug, Serialize)]
pub(crate) struct Outcome {
    /// The measurement's name.
    pub(crate) measurement: &'static str,
    /// In one line.
    pub(crate) title: &'static str,
    /// What ran on which processor.
    pub(crate) placement: &'static str,
    /// `v6-in-v4`.
    pub(crate) family: String,
    /// Every value of every round.
    pub(crate) samples: Vec<Sample>,
    /// One per contender.
    pub(crate) summaries: Vec<Summary>,
    #[serde(skip)]
    columns: &'static [Column],
}

/// One contender, measured once.
#[derive(Debug, Serialize)]
pub(crate) struct Sample {
    /// Its name.
    pub(crate) contender: String,
    /// From 1.
    pub(crate) round: usize,
    /// What was measured.
    pub(crate) values: Values,
    /// What our daemons dropped meanwhile, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) drops: BTreeMap<String, u64>,
}

/// One contender's rounds.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// Its name.
    pub(crate) contender: String,
    /// The median of every value over the rounds.
    pub(crate) median: Values,
    /// The smallest of each.
    pub(crate) least: Values,
    /// The largest of each.
    pub(crate) most: Values,
    /// What our daemons dropped in all rounds, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) drops: BTreeMap<String, u64>,
}

/// A target and what was measured.
#[derive(Debug, Serialize)]
pub(crate) struct Verdict {
    /// What was to be reached.
    #[serde(flatten)]
    pub(crate) target: Target,
    /// `v6-in-v4`.
    pub(crate) family: String,
    /// The contender.
    pub(crate) contender: String,
    /// What was.
    pub(crate) measured: f64,
    /// Whether the floor was reached.
    pub(crate) floor_met: bool,
    /// Whether the goal was.
    pub(crate) goal_met: bool,
}

impl Outcome {
    /// Makes of the samples of all rounds what is worth showing. The ratio to VXLAN is taken within each round,
    /// because what disturbs the machine disturbs neighbours in time alike.
    pub(crate) fn of(measurement: &Measurement, family: String, mut samples: Vec<Sample>) -> Self {
        let columns = measurement.columns();
        match measurement.comparison() {
            Comparison::RatioToVxlan(value) => {
                compare(&mut samples, REFERENCE, (value, "ratio"), |own, other| own / other);
            }
            Comparison::AddedToPlain(pairs) => {
                for &pair in pairs {
                    compare(&mut samples, PLAIN, pair, |own, other| own - other);
                }
            }
            Comparison::Alone => {}
        }
        let mut names: Vec<String> = Vec::new();
        for sample in &samples {
            if !names.contains(&sample.contender) {
                names.push(sample.contender.clone());
            }
        }
        let summaries = names.into_iter().map(|name| Summary::of(name, &samples)).collect();
        let placement = measurement.placement();
        let (measurement, title) = (measurement.name, measurement.title);
        Self { measurement, title, placement, family, samples, summaries, columns }
    }

    /// The table for people.
    pub(crate) fn text(&self, targets: &[Target]) -> String {
        let shown: Vec<_> = self.columns.iter().filter(|column| self.is_measured(column)).collect();
        let mut header = vec![("Contender", Align::Left)];
        header.extend(shown.iter().map(|column| (column.header, Align::Right)));
        header.push(("spread", Align::Right));
        let mut rows = Vec::new();
        for summary in &self.summaries {
            let mut row = vec![summary.contender.clone()];
            row.extend(shown.iter().map(|column| cell(&summary.median, column)));
            row.push(summary.spread(self.columns.first()));
            rows.push(row);
        }
        let mut text = format!("\n{}  {}  {}\n", self.measurement, self.title, self.family);
        text.push_str(&table(2, &header, &rows));
        text.push_str(&format!("  placement: {}\n", self.placement));
        for target in targets.iter().filter(|target| target.measurement == self.measurement) {
            let Target { work, floor, goal, .. } = target;
            text.push_str(&format!("  target: {work}: floor {floor}, goal {goal}\n"));
        }
        for summary in &self.summaries {
            for (reason, count) in &summary.drops {
                text.push_str(&format!("  {} dropped {reason}: {count}\n", summary.contender));
            }
        }
        text
    }

    /// What is to be said of the targets: of our daemons as they are, not of variants.
    pub(crate) fn verdicts(&self, targets: &[Target]) -> Vec<Verdict> {
        let ours = self.summaries.iter().find(|summary| summary.contender == OURS);
        let judge = |target: &Target| {
            let measured = *ours?.median.get(target.value.as_str())?;
            Some(Verdict {
                target: target.clone(),
                family: self.family.clone(),
                contender: OURS.to_owned(),
                measured,
                floor_met: target.is_met(measured, target.floor),
                goal_met: target.is_met(measured, target.goal),
            })
        };
        targets.iter().filter(|t| t.measurement == self.measurement).filter_map(judge).collect()
    }

    fn is_measured(&self, column: &Column) -> bool {
        self.summaries.iter().any(|summary| summary.median.contains_key(column.value))
    }
}

impl Summary {
    fn of(contender: String, samples: &[Sample]) -> Self {
        let own: Vec<_> = samples.iter().filter(|sample| sample.contender == contender).collect();
        let mut lists: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        let mut drops = BTreeMap::new();
        for sample in own {
            for (&name, &value) in &sample.values {
                lists.entry(name).or_default().push(value);
            }
            for (reason, count) in &sample.drops {
                *drops.entry(reason.clone()).or_default() += count;
            }
        }
        let mut summary = Self {
            contender,
            median: Values::new(),
            least: Values::new(),
            most: Values::new(),
            drops,
        };
        for (name, mut list) in lists {
            list.sort_by(f64::total_cmp);
            summary.median.insert(name, median(&list));
            summary.least.insert(name, list[0]);
            summary.most.insert(name, list[list.len() - 1]);
        }
        summary
    }

    fn spread(&self, column: Option<&Column>) -> String {
        let shown = column.and_then(|column| {
            let (least, most) = (self.least.get(column.value)?, self.most.get(column.value)?);
            Some(format!("{least:.0$}..{most:.0$}", column.decimals))
        });
        shown.unwrap_or_default()
    }
}

/// The middle of sorted values, or the mean of the two in the middle; 0 without any.
pub(crate) fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    match sorted {
        [] => 0.0,
        _ if sorted.len() % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    }
}

/// Adds to every sample what `value` is beside another contender's in the same round.
fn compare(
    samples: &mut [Sample],
    other: &str,
    (value, result): (&'static str, &'static str),
    compared: impl Fn(f64, f64) -> f64,
) {
    let others: BTreeMap<usize, f64> = samples
        .iter()
        .filter(|sample| sample.contender == other)
        .filter_map(|sample| Some((sample.round, *sample.values.get(value)?)))
        .collect();
    for sample in samples {
        if let (Some(own), Some(other)) =
            (sample.values.get(value).copied(), others.get(&sample.round))
        {
            sample.values.insert(result, compared(own, *other));
        }
    }
}

fn cell(values: &Values, column: &Column) -> String {
    match values.get(column.value) {
        Some(value) => format!("{value:.0$}", column.decimals),
        None => "-".to_owned(),
    }
}

/// The targets' table for people; empty without any.
pub(crate) fn targets_text(verdicts: &[Verdict]) -> String {
    if verdicts.is_empty() {
        return String::new();
    }
    let header = [
        ("Target", Align::Left),
        ("family", Align::Left),
        ("measured", Align::Right),
        ("floor", Align::Right),
        ("", Align::Left),
        ("goal", Align::Right),
        ("", Align::Left),
    ];
    let figure =
        |value: f64| if value < 10.0 { format!("{value:.2}") } else { format!("{value:.0}") };
    let met = |met| if met { "met" } else { "not met" }.to_owned();
    let row = |verdict: &Verdict| {
        let Verdict { target, family, measured, floor_met, goal_met, .. } = verdict;
        vec![
            target.work.clone(),
            family.clone(),
            figure(*measured),
            figure(target.floor),
            met(*floor_met),
            figure(target.goal),
            met(*goal_met),
        ]
    };
    format!("\n{}", table(0, &header, &verdicts.iter().map(row).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
