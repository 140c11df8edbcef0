//! Who claims which prefix: duplicates and overlaps in any number of prefixes, without comparing all pairs.

use ipnet::IpNet;
use mapping::eid::{EidPrefix, EidTable, InstanceId};

use super::node::Node;

/// The prefixes claimed so far.
#[derive(Default)]
pub(crate) struct Claims {
    table: EidTable<Claim>,
}

struct Claim {
    owner: usize,
    shown: String,
    line: usize,
}

/// Whether an owner may claim a part of what it already claims.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nesting {
    /// More-specifics of one owner are fine.
    Allowed,
    /// No overlap at all.
    Refused,
}

impl Claims {
    /// Claims `prefix` for `owner`, shown as `shown` in messages (`site "a"`, empty for none); reports duplicates and
    /// overlaps at `node` with `instead` as what would be right.
    pub(crate) fn claim(
        &mut self,
        node: &Node<'_>,
        prefix: EidPrefix,
        owner: (usize, &str),
        nesting: Nesting,
        instead: &str,
    ) {
        let (owner, shown) = owner;
        if let Some(earlier) = self.table.get(&prefix) {
            let whose = parenthesised(&earlier.shown);
            let what = format!("{prefix} is already given in line {}{whose}", earlier.line);
            node.error(&what, "give it once");
            return;
        }
        let foreign = |claim: &Claim| nesting == Nesting::Refused || claim.owner != owner;
        let overlap = self
            .table
            .covering(&prefix)
            .chain(self.table.covered_by(&prefix))
            .find(|(_, claim)| foreign(claim));
        if let Some((other, earlier)) = overlap {
            let whose = parenthesised(&earlier.shown);
            let what = format!("{prefix} overlaps {other} in line {}{whose}", earlier.line);
            node.error(&what, instead);
        }
        let line = node.report().line(node.path());
        self.table.insert(prefix, Claim { owner, shown: shown.to_owned(), line });
    }
}

fn parenthesised(owner: &str) -> String {
    if owner.is_empty() { String::new() } else { format!(" ({owner})") }
}

/// Reports duplicates and overlaps within one list.
pub(crate) fn check_list(prefixes: &[(Node<'_>, IpNet)]) {
    let mut claims = Claims::default();
    for (node, prefix) in prefixes {
        let prefix = EidPrefix::new(InstanceId::DEFAULT, *prefix);
        claims.claim(node, prefix, (0, ""), Nesting::Refused, "keep the shorter one only");
    }
}
