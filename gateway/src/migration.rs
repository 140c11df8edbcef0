//! PURE. The migration report of any daemon: its parts, added up, and what they say in words.
use mapping::migration::RegistryMigrationView;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use xtr::migration::MigrationView;

/// What a daemon says of the migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Report {
    /// A Map-Server: what is registered.
    Registry(RegistryMigrationView),
    /// A tunnel router: what is sent and received.
    Router(MigrationView),
}

impl Report {
    /// Of the answer to [`Query::Migration`](mapping::admin::Query::Migration): a list of parts.
    ///
    /// # Errors
    /// It is no such list.
    pub fn of(view: Value) -> Result<Self, serde_json::Error> {
        let mut parts: Vec<Self> = serde_json::from_value(view)?;
        match parts.pop() {
            Some(Self::Registry(last)) => {
                let parts = parts.into_iter().filter_map(|part| match part {
                    Self::Registry(part) => Some(part),
                    Self::Router(_) => None,
                });
                Ok(Self::Registry(RegistryMigrationView::of(parts.chain([last]))))
            }
            Some(Self::Router(last)) => {
                let parts = parts.into_iter().filter_map(|part| match part {
                    Self::Router(part) => Some(part),
                    Self::Registry(_) => None,
                });
                Ok(Self::Router(MigrationView::of(parts.chain([last]))))
            }
            None => Ok(Self::Router(MigrationView::default())),
        }
    }

    /// This and a part of the same kind; another kind changes nothing.
    #[must_use]
    pub fn plus(self, part: Self) -> Self {
        match (self, part) {
            (Self::Registry(sum), Self::Registry(part)) => Self::Registry(sum.plus(part)),
            (Self::Router(sum), Self::Router(part)) => Self::Router(sum.plus(part)),
            (sum, _) => sum,
        }
    }

    /// With no more sites than a report has.
    #[must_use]
    pub fn finished(self) -> Self {
        match self {
            Self::Registry(sum) => Self::Registry(RegistryMigrationView::of([sum])),
            Self::Router(sum) => Self::Router(sum),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn op_01_a_report_knows_whose_it_is() {
        let part = json!({"registered": 2, "offers": [], "by_site": [], "sites_left_out": 0});
        let Report::Registry(sum) = Report::of(json!([part, part])).unwrap() else {
            panic!("a registry's");
        };
        assert_eq!(sum.registered, 4);
        let part = json!({"entries": 3, "sent": [], "received": [], "offers": [], "rlocs": [], "sites": [], "sites_left_out": 0});
        let Report::Router(sum) = Report::of(json!([part, part])).unwrap() else {
            panic!("a router's");
        };
        assert_eq!(sum.entries, 6);
        assert!(Report::of(json!({})).is_err());
    }
}
