//! Map-Version Numbers (RFC 9302 §6).

/// The version of a mapping: 12 bits in a circle, 0 being no version (MV-01).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MapVersion(u16);

impl MapVersion {
    /// The Null Map-Version: the mapping has none (RFC 9302 §6.1).
    pub const NULL: Self = Self(0);
    /// The largest number.
    pub const MAX: u16 = 0x0fff;
    /// Half of the circle.
    const HALF: u16 = 2048;

    /// The low 12 bits of `bits`.
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits & Self::MAX)
    }

    /// The number.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether it is the Null Map-Version.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The version after this one; 0xFFF is followed by 1 (MV-03).
    #[must_use]
    pub const fn next(self) -> Self {
        if self.0 == Self::MAX { Self(1) } else { Self(self.0 + 1) }
    }

    /// The version after so many changes.
    #[must_use]
    pub fn advanced(self, changes: u16) -> Self {
        (0..changes).fold(self, |version, _| version.next())
    }

    /// Whether this version comes after `other` (MV-02). The Null Map-Version is neither newer nor older than any.
    pub const fn is_newer_than(self, other: Self) -> bool {
        let (newer, older) = (self.0, other.0);
        if newer == 0 || older == 0 {
            return false;
        }
        (newer > older && newer - older <= Self::HALF)
            || (older > newer && older - newer > Self::HALF)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mv_01_a_version_has_12_bits_and_0_is_none() {
        assert_eq!(MapVersion::from_bits(0xffff).get(), 0x0fff);
        assert!(MapVersion::from_bits(0xf000).is_null() && MapVersion::NULL.is_null());
        assert!(!MapVersion::from_bits(1).is_null());
    }

    /// TV-R3.
    #[test]
    fn mv_02_half_of_the_circle_is_newer() {
        let own = MapVersion::from_bits(69);
        for number in 0..=MapVersion::MAX {
            let other = MapVersion::from_bits(number);
            assert_eq!(other.is_newer_than(own), (70..=2117).contains(&number), "{number}");
            let older = (1..=68).contains(&number) || number >= 2118;
            assert_eq!(own.is_newer_than(other), older, "{number}");
        }
    }

    #[test]
    fn mv_03_the_number_after_0xfff_is_1() {
        assert_eq!(MapVersion::from_bits(0x0fff).next().get(), 1);
        assert_eq!(MapVersion::from_bits(68).next().get(), 69);
        assert_eq!(MapVersion::from_bits(4094).advanced(3).get(), 2);
        assert!(MapVersion::from_bits(1).is_newer_than(MapVersion::from_bits(0x0fff)));
    }
}
