//! PURE. Changes that wait until the kernel has made those before: the last word about a host counts, so that their number is that of the
//! hosts, however long the kernel takes.
use super::Change;
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

/// Hosts with changes waiting; what concerns more of them is lost, and counted.
pub(super) const MAX_HOSTS: usize = 65_536;

/// Changes, hosts in the order in which their first one came.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    order: VecDeque<IpAddr>,
    hosts: HashMap<IpAddr, Waiting>,
}

/// Of one host.
#[derive(Debug, Default)]
struct Waiting {
    place: Option<Change>,
    question: Option<Change>,
}

impl Backlog {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }

    /// Lets a change wait, in the place of an earlier one of its kind; false if there is no room.
    #[must_use]
    pub(super) fn push(&mut self, change: Change) -> bool {
        let address = change.address();
        if !self.hosts.contains_key(&address) {
            if self.order.len() >= MAX_HOSTS {
                return false;
            }
            self.order.push_back(address);
        }
        let waiting = self.hosts.entry(address).or_default();
        match change {
            Change::Probe(..) => waiting.question = Some(change),
            Change::Here(..) | Change::Away(_) | Change::Forget(_) => waiting.place = Some(change),
        }
        true
    }

    /// The next change: where a host is before the question whether it is there.
    pub(super) fn pop(&mut self) -> Option<Change> {
        let address = *self.order.front()?;
        let waiting = self.hosts.get_mut(&address)?;
        let next = waiting.place.take().or_else(|| waiting.question.take());
        if waiting.question.is_none() {
            self.order.pop_front();
            self.hosts.remove(&address);
        }
        next
    }

    /// Nobody makes changes any more.
    pub(super) fn clear(&mut self) {
        self.order.clear();
        self.hosts.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0xac10_0000 + number).into()
    }

    fn drain(backlog: &mut Backlog) -> Vec<Change> {
        std::iter::from_fn(|| backlog.pop()).collect()
    }

    #[test]
    fn dy_01_the_last_word_about_a_host_counts_and_hosts_keep_their_order() {
        let (one, other) = (host(1), host(2));
        let lan = || vec!["lan0".to_owned()];
        let mut backlog = Backlog::default();
        for change in [
            Change::Here(one, lan()),
            Change::Probe(one, lan()),
            Change::Forget(other),
            Change::Away(one),
            Change::Here(other, lan()),
        ] {
            assert!(backlog.push(change));
        }
        let expected = [Change::Away(one), Change::Probe(one, lan()), Change::Here(other, lan())];
        assert_eq!(drain(&mut backlog), expected);
        assert!(backlog.is_empty() && backlog.hosts.is_empty());
    }

    #[test]
    fn dy_01_what_waits_for_a_slow_kernel_is_bounded() {
        let mut backlog = Backlog::default();
        let hosts = MAX_HOSTS as u32 + 10;
        let taken = (0..hosts).filter(|&number| backlog.push(Change::Away(host(number)))).count();
        assert_eq!(taken, MAX_HOSTS);
        assert!((0..1_000_000).all(|_| backlog.push(Change::Forget(host(7)))), "known ones change");
        assert_eq!((backlog.order.len(), backlog.hosts.len()), (MAX_HOSTS, MAX_HOSTS));
        assert_eq!(drain(&mut backlog).len(), MAX_HOSTS);
    }
}
