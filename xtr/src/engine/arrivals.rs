//! What arrived, by own EID-prefix and own RLOC, over all workers and all policies there were.
use crate::counters::{Arrivals, Traffic};
use mapping::eid::EidPrefix;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The books of one data plane.
#[derive(Debug, Default)]
pub(super) struct ArrivalBooks {
    rlocs: Vec<IpAddr>,
    /// The policy in force and the one before: a worker that is in the middle of a batch still counts there.
    versions: Vec<Version>,
    /// Of all before these.
    past: BTreeMap<(EidPrefix, IpAddr), Traffic>,
}

#[derive(Debug)]
struct Version {
    prefixes: Vec<EidPrefix>,
    workers: Box<[Arc<Arrivals>]>,
}

impl Version {
    fn add_to(&self, rlocs: &[IpAddr], sums: &mut BTreeMap<(EidPrefix, IpAddr), Traffic>) {
        for (prefix, &eid_prefix) in self.prefixes.iter().enumerate() {
            for (rloc, &address) in rlocs.iter().enumerate() {
                let sum = sums.entry((eid_prefix, address)).or_default();
                for worker in &self.workers {
                    *sum += worker.get(prefix, rloc);
                }
            }
        }
    }
}

impl ArrivalBooks {
    pub(super) fn new(rlocs: &[IpAddr]) -> Self {
        Self { rlocs: rlocs.to_vec(), ..Self::default() }
    }

    /// Pages for `workers` workers under a policy that numbers these EID-prefixes.
    pub(super) fn open(
        &mut self,
        prefixes: Vec<EidPrefix>,
        workers: usize,
    ) -> Box<[Arc<Arrivals>]> {
        if self.versions.len() > 1 {
            self.versions.remove(0).add_to(&self.rlocs, &mut self.past);
        }
        let page = || Arc::new(Arrivals::new(prefixes.len(), self.rlocs.len()));
        let pages: Box<[_]> = std::iter::repeat_with(page).take(workers).collect();
        self.versions.push(Version { prefixes, workers: pages.clone() });
        pages
    }

    /// What arrived for each EID-prefix of the policy in force, on each own RLOC, sorted.
    pub(super) fn sums(&self) -> Vec<(EidPrefix, IpAddr, Traffic)> {
        let mut sums = self.past.clone();
        self.versions.iter().for_each(|version| version.add_to(&self.rlocs, &mut sums));
        let current = self.versions.last().map(|version| version.prefixes.as_slice());
        let current = current.unwrap_or_default();
        sums.retain(|(prefix, _), _| current.contains(prefix));
        sums.into_iter().map(|((prefix, rloc), traffic)| (prefix, rloc, traffic)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_survive_a_change_of_the_policy() {
        let prefix =
            |text: &str| EidPrefix::new(mapping::eid::InstanceId::DEFAULT, text.parse().unwrap());
        let (one, two, three) =
            (prefix("10.1.0.0/16"), prefix("10.2.0.0/16"), prefix("10.3.0.0/16"));
        let [p, q]: [IpAddr; 2] = ["192.0.2.1", "192.0.2.2"].map(|rloc| rloc.parse().unwrap());
        let mut books = ArrivalBooks::new(&[p, q]);
        let packet = Traffic { packets: 1, octets: 100 };
        let pages = books.open(vec![one, two], 2);
        pages[0].count(0, 1, packet);
        pages[1].count(0, 1, packet);
        pages[1].count(1, 0, packet);
        for _ in 0..3 {
            books.open(vec![three, one], 2)[0].count(1, 1, packet);
        }
        // Late, in the batch during which the policy changed.
        pages[0].count(0, 0, packet);
        let seen = books.sums();
        let of =
            |prefix, rloc| seen.iter().find(|sum| (sum.0, sum.1) == (prefix, rloc)).map(|s| s.2);
        assert_eq!(of(one, q), Some(Traffic { packets: 5, octets: 500 }));
        assert_eq!(of(three, p), Some(Traffic::default()));
        assert_eq!(of(two, p), None);
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn what_nobody_numbered_is_counted_nowhere() {
        let arrivals = Arrivals::default();
        arrivals.count(3, 1, Traffic { packets: 1, octets: 1 });
        assert_eq!(arrivals.get(3, 1), Traffic::default());
    }
}
