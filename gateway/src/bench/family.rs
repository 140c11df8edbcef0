//! Which IP version travels in which.

use std::fmt;
use std::str::FromStr;

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What the hosts speak in what the core speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Family {
    /// Between the hosts: EIDs.
    pub(crate) inner: Version,
    /// Between the gateways: RLOCs.
    pub(crate) outer: Version,
}

impl Family {
    /// IPv6 over an IPv4 core, which migration begins with.
    pub(crate) const MIGRATION: Self = Self { inner: Version::V6, outer: Version::V4 };

    /// All four.
    pub(crate) const ALL: [Self; 4] = [
        Self::MIGRATION,
        Self { inner: Version::V4, outer: Version::V4 },
        Self { inner: Version::V4, outer: Version::V6 },
        Self { inner: Version::V6, outer: Version::V6 },
    ];
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-in-{}", self.inner, self.outer)
    }
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|family| family.to_string() == text);
        known.ok_or_else(|| {
            let all: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("one of {}", all.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_read_as_they_are_written() {
        for family in Family::ALL {
            assert_eq!(family.to_string().parse(), Ok(family));
        }
        assert_eq!(Family::MIGRATION.to_string(), "v6-in-v4");
        assert!("v6".parse::<Family>().is_err());
    }
}
