//! The destinations that one reader looked up last: a hit spares the walk through the trie.
use super::Verdict;
use mapping::eid::InstanceId;
use std::net::IpAddr;

/// Destinations remembered, a power of two: 64 KiB per reader.
const SLOTS: usize = 1024;

/// One place per hash; the newer destination pushes the older one out.
pub(super) struct Recent {
    slots: Box<[Option<Slot>]>,
}

struct Slot {
    /// The version of the table that gave the verdict.
    version: u64,
    instance_id: InstanceId,
    destination: IpAddr,
    verdict: Verdict,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self { slots: (0..SLOTS).map(|_| None).collect() }
    }

    /// The verdict of `look_up` for this destination in this version of the table.
    #[inline]
    pub(super) fn get_or_look_up(
        &mut self,
        version: u64,
        instance_id: InstanceId,
        destination: IpAddr,
        look_up: impl FnOnce() -> Verdict,
    ) -> &Verdict {
        let slot = &mut self.slots[place(instance_id, destination)];
        let is_hit = matches!(slot, Some(slot) if slot.version == version
            && slot.destination == destination
            && slot.instance_id == instance_id);
        if !is_hit {
            *slot = None;
        }
        let slot = slot.get_or_insert_with(|| Slot {
            version,
            instance_id,
            destination,
            verdict: look_up(),
        });
        &slot.verdict
    }
}

#[inline]
fn place(instance_id: InstanceId, destination: IpAddr) -> usize {
    let bits = match destination {
        IpAddr::V4(address) => u64::from(address.to_bits()),
        IpAddr::V6(address) => {
            let bits = address.to_bits();
            ((bits >> 64) as u64).rotate_left(23) ^ bits as u64
        }
    };
    let mixed = (bits ^ u64::from(instance_id.get()) << 40).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 48) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drops::DropReason;
    use std::net::Ipv4Addr;

    #[test]
    fn a_verdict_lives_as_long_as_its_version_of_the_table() {
        let mut recent = Recent::new();
        let mut asked = 0;
        let mut get = |version, instance, last| {
            let instance = InstanceId::new(instance).expect("small");
            let address = Ipv4Addr::new(192, 0, 2, last).into();
            let before = asked;
            recent.get_or_look_up(version, instance, address, || {
                asked += 1;
                Verdict::Drop(DropReason::ActionDrop)
            });
            asked > before
        };
        assert!(get(1, 0, 7), "not known yet");
        assert!(!get(1, 0, 7), "known");
        assert!(get(1, 5, 7), "another instance");
        assert!(get(1, 0, 8), "another destination");
        assert!(get(2, 0, 7), "another table");
    }

    #[test]
    fn destinations_spread_over_the_places() {
        let place =
            |i: u32| place(InstanceId::DEFAULT, Ipv4Addr::from_bits(0xc000_0200 + i).into());
        let places: std::collections::BTreeSet<usize> = (0..256).map(place).collect();
        assert!(places.len() > 200, "{}", places.len());
    }
}
