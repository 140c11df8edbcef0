//! EIDs that are no IP prefixes: distinguished names (RFC 9735) and ranges of instances (RFC 8060 §4.1).

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};

use super::{InstanceId, write_instance};

/// A distinguished name in its instance: every name that begins with it belongs to it (RFC 9735 §4).
///
/// Two are equal when instance and name are: whether EID mask-len counts the NUL (RFC 9735 §3) or not (lispers.net) is only kept, to
/// be sent back as it came.
#[derive(Clone, Debug)]
pub struct NamePrefix {
    instance_id: InstanceId,
    name: Box<[u8]>,
    mask_len: u8,
}

impl NamePrefix {
    /// The longest name, in octets without the NUL: EID mask-len has 8 bits.
    pub const MAX_LEN: usize = 31;

    /// What `mask_len` bits of `name`, given without its NUL, mean; octets beyond them are cut off.
    ///
    /// 0 bits of a name that is not empty mean all of it: lispers.net asks so. `None` when the bits are no whole octets, more than
    /// name and NUL have, or when the name is longer than [`Self::MAX_LEN`].
    pub fn new(instance_id: InstanceId, name: &[u8], mask_len: u8) -> Option<Self> {
        let significant = match usize::from(mask_len / 8) {
            _ if !mask_len.is_multiple_of(8) => return None,
            0 => name.len(),
            octets if octets == name.len() + 1 => name.len(),
            octets => octets,
        };
        let name = name.get(..significant).filter(|name| name.len() <= Self::MAX_LEN)?;
        let mask_len = if mask_len == 0 { with_nul(name.len()) } else { mask_len };
        Some(Self { instance_id, name: name.into(), mask_len })
    }

    /// The whole of `name`, EID mask-len with its NUL (RFC 9735 §3); `None` for a name with a NUL in it or beyond [`Self::MAX_LEN`].
    pub fn whole(instance_id: InstanceId, name: &str) -> Option<Self> {
        if name.contains('\0') {
            return None;
        }
        Self::new(instance_id, name.as_bytes(), 0)
    }

    /// The instance.
    pub const fn instance_id(&self) -> InstanceId {
        self.instance_id
    }

    /// The octets, without a NUL.
    pub fn name(&self) -> &[u8] {
        &self.name
    }

    /// EID mask-len in bits, with or without the NUL as it came.
    pub const fn mask_len(&self) -> u8 {
        self.mask_len
    }

    /// Whether `other` is this name or begins with it, instance included.
    pub fn covers(&self, other: &Self) -> bool {
        self.instance_id == other.instance_id && other.name.starts_with(&self.name)
    }
}

/// EID mask-len of a name of `len` octets and its NUL; without it where 8 bits do not suffice.
fn with_nul(len: usize) -> u8 {
    u8::try_from((len + 1) * 8).unwrap_or((NamePrefix::MAX_LEN * 8) as u8)
}

impl PartialEq for NamePrefix {
    fn eq(&self, other: &Self) -> bool {
        (self.instance_id, &self.name) == (other.instance_id, &other.name)
    }
}

impl Eq for NamePrefix {}

impl Hash for NamePrefix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.instance_id, &self.name).hash(state);
    }
}

impl PartialOrd for NamePrefix {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NamePrefix {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.instance_id, &self.name).cmp(&(other.instance_id, &other.name))
    }
}

impl fmt::Display for NamePrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_instance(f, self.instance_id)?;
        write!(f, "'{}'", self.name.escape_ascii())
    }
}

/// A range of Instance IDs: those that share the first `mask_len` of 32 bits (RFC 8060 §4.1, CW-27).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceRange {
    first: u32,
    mask_len: u8,
}

impl InstanceRange {
    /// The bits beyond `mask_len` are cleared; `None` above 32.
    pub fn new(instance_id: u32, mask_len: u8) -> Option<Self> {
        let unused = 32_u32.checked_sub(mask_len.into())?;
        Some(Self { first: instance_id & u32::MAX.checked_shl(unused).unwrap_or(0), mask_len })
    }

    /// The lowest Instance ID, 32 bits.
    pub const fn first(&self) -> u32 {
        self.first
    }

    /// IID mask-len.
    pub const fn mask_len(&self) -> u8 {
        self.mask_len
    }

    /// Whether `instance_id` is one of them.
    pub fn contains(&self, instance_id: InstanceId) -> bool {
        Self::new(instance_id.get(), self.mask_len) == Some(*self)
    }

    /// Whether `other` is this range or part of it.
    pub fn covers(&self, other: &Self) -> bool {
        self.mask_len <= other.mask_len && Self::new(other.first, self.mask_len) == Some(*self)
    }
}

impl fmt::Display for InstanceRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}/{}]", self.first, self.mask_len)
    }
}

/// A table keyed by distinguished name, with the longest match of RFC 9735 §4 within one instance.
#[derive(Clone, Debug)]
pub struct NameTable<T> {
    entries: BTreeMap<InstanceId, Names<T>>,
}

/// The names of one instance by their octets.
type Names<T> = BTreeMap<Box<[u8]>, (NamePrefix, T)>;

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new() }
    }
}

impl<T> NameTable<T> {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.entries.values().map(Names::len).sum()
    }

    /// Whether the table has no entry.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of exactly this name.
    pub fn get(&self, name: &NamePrefix) -> Option<&T> {
        self.entries.get(&name.instance_id)?.get(&name.name).map(|(_, value)| value)
    }

    /// The entry of exactly this name, to change.
    pub fn get_mut(&mut self, name: &NamePrefix) -> Option<&mut T> {
        self.entries.get_mut(&name.instance_id)?.get_mut(&name.name).map(|(_, value)| value)
    }

    /// Inserts or replaces, EID mask-len included; returns what was there.
    pub fn insert(&mut self, name: NamePrefix, value: T) -> Option<T> {
        let names = self.entries.entry(name.instance_id).or_default();
        names.insert(name.name.clone(), (name, value)).map(|(_, value)| value)
    }

    /// Removes the entry of exactly this name.
    pub fn remove(&mut self, name: &NamePrefix) -> Option<T> {
        let names = self.entries.get_mut(&name.instance_id)?;
        let removed = names.remove(&name.name).map(|(_, value)| value);
        if names.is_empty() {
            self.entries.remove(&name.instance_id);
        }
        removed
    }

    /// The longest entry that is `name` or that it begins with, with the EID mask-len it was inserted with (CW-32).
    pub fn longest_match(&self, name: &NamePrefix) -> Option<(&NamePrefix, &T)> {
        self.covering(name).last()
    }

    /// Every entry that is `name` or that it begins with, shortest first.
    pub fn covering<'a>(
        &'a self,
        name: &NamePrefix,
    ) -> impl Iterator<Item = (&'a NamePrefix, &'a T)> {
        let names = self.entries.get(&name.instance_id);
        (0..=name.name.len())
            .filter_map(move |len| names?.get(&name.name[..len]))
            .map(|(name, value)| (name, value))
    }

    /// Every entry, in order of instance and name.
    pub fn iter(&self) -> impl Iterator<Item = (&NamePrefix, &T)> {
        self.entries.values().flat_map(|names| names.values().map(|(name, value)| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(name: &str) -> NamePrefix {
        NamePrefix::whole(InstanceId::DEFAULT, name).unwrap()
    }

    fn bits(name: &str, mask_len: u8) -> Option<NamePrefix> {
        NamePrefix::new(InstanceId::DEFAULT, name.as_bytes(), mask_len)
    }

    #[test]
    fn cw_32_tv_r12_the_longest_registered_beginning_answers_with_its_mask_len() {
        let mut table = NameTable::default();
        table.insert(bits("ietf", 40).unwrap(), 1);
        let (found, value) = table.longest_match(&bits("ietf.lisp", 80).unwrap()).unwrap();
        assert_eq!((found.name(), found.mask_len(), *value), (b"ietf".as_slice(), 40, 1));
        table.insert(bits("ietf.lisp", 80).unwrap(), 2);
        assert_eq!(table.longest_match(&whole("ietf.lisp")).map(|(_, &value)| value), Some(2));
        assert_eq!(table.longest_match(&whole("ietf.l")).map(|(_, &value)| value), Some(1));
        assert_eq!(table.longest_match(&whole("iet")), None);
        let elsewhere = NamePrefix::whole(InstanceId::new(7).unwrap(), "ietf").unwrap();
        assert_eq!(table.longest_match(&elsewhere), None);
    }

    #[test]
    fn cw_29_the_nul_may_count_or_not() {
        let (with, without) = (bits("ietf", 40).unwrap(), bits("ietf", 32).unwrap());
        assert_eq!(with, without);
        assert_eq!((with.mask_len(), without.mask_len()), (40, 32));
        // lispers.net asks for names with a mask-len of 0.
        assert_eq!((bits("ietf", 0), bits("ietf", 0).unwrap().mask_len()), (Some(with), 40));
        assert_eq!(bits("ietf.lisp", 32), bits("ietf", 40));
        assert_eq!((bits("ietf", 48), bits("ietf", 39), bits("", 16)), (None, None, None));
    }

    #[test]
    fn cw_30_the_empty_name_covers_every_name() {
        let mut table = NameTable::default();
        table.insert(whole(""), ());
        assert!(table.longest_match(&whole("anything")).is_some());
        assert_eq!((whole("").mask_len(), bits("", 0)), (8, Some(whole(""))));
        assert_eq!(table.remove(&whole("")), Some(()));
        assert!(table.is_empty());
    }

    #[test]
    fn cw_29_a_name_that_no_mask_len_can_tell_is_refused() {
        let longest = "x".repeat(31);
        assert_eq!(NamePrefix::whole(InstanceId::DEFAULT, &longest).unwrap().mask_len(), 248);
        assert_eq!(NamePrefix::whole(InstanceId::DEFAULT, &"x".repeat(32)), None);
        assert_eq!(NamePrefix::whole(InstanceId::DEFAULT, "a\0b"), None);
        assert_eq!(bits(&"x".repeat(40), 248), Some(whole(&longest)));
    }

    #[test]
    fn names_and_ranges_are_shown_as_operators_write_them() {
        let instance_id = InstanceId::new(1000).unwrap();
        let name = NamePrefix::whole(instance_id, "host-1").unwrap();
        assert_eq!(name.to_string(), "[1000]'host-1'");
        assert_eq!(NamePrefix::new(InstanceId::DEFAULT, b"a\n", 0).unwrap().to_string(), "'a\\n'");
        assert_eq!(InstanceRange::new(0x1ff, 24).unwrap().to_string(), "[256/24]");
    }

    #[test]
    fn cw_27_a_range_of_instances_counts_its_leading_bits() {
        let range = InstanceRange::new(0x1ff, 24).unwrap();
        assert_eq!((range.first(), range.mask_len()), (0x100, 24));
        let contains = |id| range.contains(InstanceId::new(id).unwrap());
        assert_eq!([0xff, 0x100, 0x1ff, 0x200].map(contains), [false, true, true, false]);
        let part = InstanceRange::new(0x180, 25).unwrap();
        assert!(range.covers(&part) && !part.covers(&range) && range.covers(&range));
        assert!(InstanceRange::new(7, 0).unwrap().covers(&range));
        assert_eq!(InstanceRange::new(0, 33), None);
    }

    proptest! {
        #[test]
        fn cw_32_the_table_agrees_with_a_plain_search(
            names in proptest::collection::vec("[ab]{0,5}", 0..20), asked in "[ab]{0,7}",
        ) {
            let mut table = NameTable::default();
            for name in &names {
                table.insert(whole(name), name.clone());
            }
            let expected =
                names.iter().filter(|name| asked.starts_with(*name)).max_by_key(|name| name.len());
            prop_assert_eq!(table.longest_match(&whole(&asked)).map(|(_, name)| name), expected);
            prop_assert_eq!(table.iter().count(), table.len());
            for name in &names {
                table.remove(&whole(name));
            }
            prop_assert!(table.is_empty());
        }
    }
}
