//! What an xTR of a LISP site lets through: its own EIDs out, its own EIDs in (RFC 9300 §4).
use super::{Onward, Policy};
use crate::config::{DynamicRange, LocalEid};
use crate::drops::DropReason;
use mapping::eid::{Eid, EidPrefix, EidTable, InstanceId};
use std::net::IpAddr;

/// The admission rules of a site.
#[derive(Clone, Debug)]
pub struct SitePolicy {
    /// Own EID-prefixes by instance with their number, for packets from the core.
    own: EidTable<u32>,
    /// By number.
    prefixes: Box<[EidPrefix]>,
    /// The same prefixes with their instance as value, for packets from the site, which do not say their instance.
    instance_of: EidTable<InstanceId>,
    /// Own instances, sorted.
    instances: Box<[InstanceId]>,
    /// Ranges of which hosts may be here, with their number.
    ranges: EidTable<u32>,
    has_ranges: bool,
}

impl SitePolicy {
    /// The rules for these EID-prefixes; instances must not share addresses (the configuration refuses it).
    pub fn new(eids: &[LocalEid]) -> Self {
        let (mut own, mut instance_of) = (EidTable::default(), EidTable::default());
        let mut instances = Vec::new();
        for (number, eid) in (0..).zip(eids) {
            own.insert(eid.prefix, number);
            let untagged = EidPrefix::new(InstanceId::DEFAULT, eid.prefix.prefix());
            instance_of.insert(untagged, eid.prefix.instance_id());
            instances.push(eid.prefix.instance_id());
        }
        instances.sort_unstable();
        instances.dedup();
        let prefixes = eids.iter().map(|eid| eid.prefix).collect();
        let (instances, ranges) = (instances.into_boxed_slice(), EidTable::default());
        Self { own, prefixes, instance_of, instances, ranges, has_ranges: false }
    }

    /// Hosts of these ranges are let through as well (DY-01); the forwarding table knows which of them are here.
    #[must_use]
    pub fn with_ranges(mut self, ranges: &[DynamicRange]) -> Self {
        let (mut instances, mut prefixes) = (self.instances.to_vec(), self.prefixes.to_vec());
        for DynamicRange { range, .. } in ranges {
            let untagged = EidPrefix::new(InstanceId::DEFAULT, range.prefix());
            self.instance_of.insert(untagged, range.instance_id());
            // A range that is an own EID-prefix is counted as that.
            let number = prefixes.iter().position(|own| own == range).unwrap_or(prefixes.len());
            if number == prefixes.len() {
                prefixes.push(*range);
            }
            self.ranges.insert(*range, u32::try_from(number).unwrap_or(u32::MAX));
            instances.push(range.instance_id());
        }
        self.prefixes = prefixes.into_boxed_slice();
        instances.sort_unstable();
        instances.dedup();
        self.instances = instances.into_boxed_slice();
        self.has_ranges = !ranges.is_empty();
        self
    }

    /// The number of the range that has this host, whose instance its address tells.
    fn range_of(&self, instance_id: InstanceId, address: IpAddr) -> Option<u32> {
        let range = || self.ranges.lookup(Eid::new(instance_id, address));
        self.has_ranges.then(range)?.map(|(_, &number)| number)
    }
}

impl Policy for SitePolicy {
    /// The source must be an own EID; its prefix says the instance.
    fn admit_native(&self, source: IpAddr, _destination: IpAddr) -> Result<InstanceId, DropReason> {
        let source = Eid::new(InstanceId::DEFAULT, source);
        let refused =
            if self.has_ranges { DropReason::DynEidNotAllowed } else { DropReason::SourceNotEid };
        self.instance_of.lookup(source).map(|(_, &id)| id).ok_or(refused)
    }

    fn roams(&self, address: IpAddr) -> bool {
        if !self.has_ranges {
            return false;
        }
        let instance = self.instance_of.lookup(Eid::new(InstanceId::DEFAULT, address));
        instance.is_some_and(|(_, &id)| self.range_of(id, address).is_some())
    }

    /// The instance must be configured (DE-16), the destination an own EID in that instance (DE-18, DE-19).
    fn admit_decapsulated(
        &self,
        _outer_source: IpAddr,
        instance_id: InstanceId,
        _source: IpAddr,
        destination: IpAddr,
    ) -> Result<Onward, DropReason> {
        if self.instances.binary_search(&instance_id).is_err() {
            return Err(DropReason::InstanceUnknown);
        }
        if let Some(number) = self.range_of(instance_id, destination) {
            return Ok(Onward::Follow(number));
        }
        match self.own.lookup(Eid::new(instance_id, destination)) {
            Some((_, &number)) => Ok(Onward::DeliverOwn(number)),
            None => Err(DropReason::DestinationNotLocalEid),
        }
    }

    /// A site reaches non-LISP destinations natively: the kernel forwards.
    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }

    fn own_prefixes(&self) -> Vec<EidPrefix> {
        self.prefixes.to_vec()
    }

    fn native_rule(&self, source: IpAddr, _destination: IpAddr) -> String {
        match self.instance_of.lookup(Eid::new(InstanceId::DEFAULT, source)) {
            Some((prefix, _)) => format!("{source} is in {}, an own EID-prefix", prefix.prefix()),
            None => format!("{source} is in no own EID-prefix"),
        }
    }

    fn decapsulated_rule(
        &self,
        _outer_source: IpAddr,
        instance_id: InstanceId,
        _source: IpAddr,
        destination: IpAddr,
    ) -> String {
        if self.instances.binary_search(&instance_id).is_err() {
            return format!("instance {instance_id} has no EID-prefix here");
        }
        match self.own.lookup(Eid::new(instance_id, destination)) {
            Some((prefix, _)) => format!("{destination} is in {prefix}, an own EID-prefix"),
            None => format!("{destination} is in no own EID-prefix of instance {instance_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::eid::EidPrefix;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn id(value: u32) -> InstanceId {
        InstanceId::new(value).expect("24 bits")
    }

    fn site(eids: &[(u32, &str)]) -> SitePolicy {
        let eids: Vec<LocalEid> = eids
            .iter()
            .map(|&(instance, prefix)| LocalEid {
                prefix: EidPrefix::new(id(instance), prefix.parse().expect("prefix")),
                locator_set: Vec::new(),
            })
            .collect();
        SitePolicy::new(&eids)
    }

    fn decapsulated(policy: &SitePolicy, instance: u32, to: &str) -> Result<Onward, DropReason> {
        policy.admit_decapsulated(ip("198.51.100.12"), id(instance), ip("2001:db8::1"), ip(to))
    }

    #[test]
    fn a_packet_from_the_site_needs_an_own_source() {
        let policy = site(&[(0, "2001:db8:e001::/48"), (0, "203.0.113.0/26")]);
        let to = ip("2001:db8:e002::1");
        assert_eq!(policy.admit_native(ip("2001:db8:e001::1"), to), Ok(id(0)));
        assert_eq!(policy.admit_native(ip("203.0.113.63"), ip("192.0.2.1")), Ok(id(0)));
        for source in ["2001:db8:e002::1", "203.0.113.64", "::1"] {
            let verdict = policy.admit_native(ip(source), to);
            assert_eq!(verdict, Err(DropReason::SourceNotEid), "{source}");
        }
    }

    #[test]
    fn de_25_control_messages_in_data_are_not_taken() {
        let site = site(&[(0, "192.0.2.0/24")]);
        let verdict = site.admit_decapsulated(
            ip("198.51.100.2"),
            id(0xff_ffff),
            ip("203.0.113.1"),
            ip("192.0.2.1"),
        );
        assert_eq!(verdict, Err(DropReason::InstanceUnknown));
    }

    #[test]
    fn de_16_an_instance_not_configured_is_dropped() {
        let policy = site(&[(7, "203.0.113.0/26")]);
        assert!(matches!(decapsulated(&policy, 7, "203.0.113.1"), Ok(Onward::DeliverOwn(_))));
        for instance in [0, 8, InstanceId::MAX] {
            let verdict = decapsulated(&policy, instance, "203.0.113.1");
            assert_eq!(verdict, Err(DropReason::InstanceUnknown), "{instance}");
        }
    }

    #[test]
    fn de_17_no_instance_id_is_instance_zero() {
        let policy = site(&[(0, "203.0.113.0/26")]);
        let arrived = InstanceId::default();
        assert!(matches!(
            decapsulated(&policy, arrived.get(), "203.0.113.1"),
            Ok(Onward::DeliverOwn(_))
        ));
    }

    #[test]
    fn de_18_a_packet_never_crosses_instances() {
        let policy = site(&[(1, "203.0.113.0/26"), (2, "203.0.113.64/26")]);
        assert!(matches!(decapsulated(&policy, 1, "203.0.113.1"), Ok(Onward::DeliverOwn(_))));
        let crossing = decapsulated(&policy, 2, "203.0.113.1");
        assert_eq!(crossing, Err(DropReason::DestinationNotLocalEid));
        assert_eq!(policy.admit_native(ip("203.0.113.1"), ip("192.0.2.1")), Ok(id(1)));
        assert_eq!(policy.admit_native(ip("203.0.113.65"), ip("192.0.2.1")), Ok(id(2)));
    }

    #[test]
    fn de_19_a_destination_that_is_no_own_eid_is_dropped() {
        let policy = site(&[(0, "2001:db8:e001::/48"), (0, "203.0.113.0/26")]);
        assert!(matches!(decapsulated(&policy, 0, "2001:db8:e001::80"), Ok(Onward::DeliverOwn(_))));
        for to in ["2001:db8:e002::1", "203.0.113.64", "192.0.2.80"] {
            let verdict = decapsulated(&policy, 0, to);
            assert_eq!(verdict, Err(DropReason::DestinationNotLocalEid), "{to}");
        }
    }

    #[test]
    fn what_is_delivered_carries_the_number_of_its_eid_prefix() {
        let policy = site(&[(0, "203.0.113.0/26"), (7, "203.0.113.64/26"), (0, "203.0.113.0/28")]);
        let own = policy.own_prefixes();
        for (instance, to) in [(0, "203.0.113.1"), (0, "203.0.113.60"), (7, "203.0.113.64")] {
            let Ok(Onward::DeliverOwn(number)) = decapsulated(&policy, instance, to) else {
                panic!("{to} is delivered");
            };
            let prefix = own[number as usize];
            let nested = own.iter().filter(|own| own.contains(Eid::new(id(instance), ip(to))));
            assert_eq!(nested.max_by_key(|own| own.mask_len()), Some(&prefix), "{to}");
        }
    }

    #[test]
    fn dy_04_what_follows_its_host_carries_the_number_of_the_range() {
        let range = |text: &str| DynamicRange {
            range: EidPrefix::new(id(0), text.parse().unwrap()),
            locator_set: Vec::new(),
            interfaces: Vec::new(),
            timeout: DynamicRange::TIMEOUT,
            limit: DynamicRange::LIMIT,
            extended_subnet: false,
        };
        let policy = site(&[(0, "203.0.113.0/26"), (0, "192.0.2.0/24")]);
        let policy = policy.with_ranges(&[range("172.16.4.0/24"), range("192.0.2.0/24")]);
        let followed = |to| match decapsulated(&policy, 0, to) {
            Ok(Onward::Follow(number)) => policy.own_prefixes()[number as usize].prefix(),
            other => panic!("{to}: {other:?}"),
        };
        assert_eq!(followed("172.16.4.7"), "172.16.4.0/24".parse().unwrap());
        assert_eq!(followed("192.0.2.7"), "192.0.2.0/24".parse().unwrap());
        assert_eq!(policy.own_prefixes().len(), 3, "each once");
    }

    #[test]
    fn the_rule_names_the_prefix() {
        let site = site(&[(7, "203.0.113.0/26")]);
        let native = |source| site.native_rule(ip(source), ip("192.0.2.1"));
        assert_eq!(native("203.0.113.1"), "203.0.113.1 is in 203.0.113.0/26, an own EID-prefix");
        assert_eq!(native("192.0.2.9"), "192.0.2.9 is in no own EID-prefix");
        let inside = |instance, to| {
            site.decapsulated_rule(ip("198.51.100.2"), id(instance), ip("192.0.2.1"), ip(to))
        };
        assert_eq!(
            inside(7, "203.0.113.1"),
            "203.0.113.1 is in [7]203.0.113.0/26, an own EID-prefix"
        );
        assert_eq!(inside(8, "203.0.113.1"), "instance 8 has no EID-prefix here");
        assert_eq!(inside(7, "192.0.2.1"), "192.0.2.1 is in no own EID-prefix of instance 7");
    }

    #[test]
    fn a_site_forwards_natively() {
        assert_eq!(site(&[(0, "203.0.113.0/26")]).admit_native_forward(), Ok(()));
    }
}
