//! The policy in force: replaced while packets flow, followed by the workers once per batch.
use super::Policy;
use crate::counters::Arrivals;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a policy is put in the place of another.
#[derive(Debug)]
pub struct PolicySwitch<P> {
    generation: AtomicU64,
    current: Mutex<Rules<P>>,
}

/// A policy, and where each worker counts what arrives under it.
#[derive(Debug)]
pub struct Rules<P> {
    /// The policy.
    pub policy: Arc<P>,
    /// By worker.
    pub arrivals: Box<[Arc<Arrivals>]>,
}

/// One worker's end of a [`PolicySwitch`].
#[derive(Debug)]
pub struct PolicyFollower<P> {
    switch: Arc<PolicySwitch<P>>,
    worker: usize,
    seen: u64,
}

impl<P: Policy> PolicySwitch<P> {
    /// A switch that begins with `rules`.
    pub fn new(rules: Rules<P>) -> Arc<Self> {
        Arc::new(Self { generation: AtomicU64::new(1), current: Mutex::new(rules) })
    }

    /// From now on these rules hold: for each worker from its next batch on.
    pub fn replace(&self, rules: Rules<P>) {
        let mut current = self.lock();
        *current = rules;
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// The end of worker number `worker`, which has followed nothing yet.
    pub fn follower(self: &Arc<Self>, worker: usize) -> PolicyFollower<P> {
        PolicyFollower { switch: Arc::clone(self), worker, seen: 0 }
    }

    fn lock(&self) -> MutexGuard<'_, Rules<P>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Policy> PolicyFollower<P> {
    /// The rules that hold now, if they are others than at the last call: one load, as long as they are not.
    #[inline]
    pub fn follow(&mut self) -> Option<(Arc<P>, Arc<Arrivals>)> {
        let generation = self.switch.generation.load(Ordering::Acquire);
        if generation == self.seen { None } else { self.take() }
    }

    #[cold]
    fn take(&mut self) -> Option<(Arc<P>, Arc<Arrivals>)> {
        let rules = self.switch.lock();
        self.seen = self.switch.generation.load(Ordering::Acquire);
        let arrivals = rules.arrivals.get(self.worker).cloned().unwrap_or_default();
        Some((Arc::clone(&rules.policy), arrivals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LocalEid;
    use crate::policy::SitePolicy;
    use mapping::eid::{EidPrefix, InstanceId};
    use std::net::IpAddr;

    fn rules(prefix: &str, workers: usize) -> Rules<SitePolicy> {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, prefix.parse().unwrap());
        let policy = SitePolicy::new(&[LocalEid { prefix, locator_set: Vec::new() }]);
        let arrivals = std::iter::repeat_with(|| Arc::new(Arrivals::new(1, 1))).take(workers);
        Rules { policy: Arc::new(policy), arrivals: arrivals.collect() }
    }

    #[test]
    fn a_worker_hears_of_every_policy_once() {
        let switch = PolicySwitch::new(rules("10.1.0.0/16", 2));
        let mut followers = [switch.follower(0), switch.follower(1)];
        let own: IpAddr = "10.2.0.1".parse().unwrap();
        for follower in &mut followers {
            let (policy, _) = follower.follow().unwrap();
            assert!(policy.admit_native(own, own).is_err());
            assert!(follower.follow().is_none());
        }
        switch.replace(rules("10.2.0.0/16", 2));
        let [one, other] = followers.map(|mut follower| follower.follow().unwrap());
        assert!(one.0.admit_native(own, own).is_ok());
        assert!(!Arc::ptr_eq(&one.1, &other.1), "each worker counts for itself");
    }
}
