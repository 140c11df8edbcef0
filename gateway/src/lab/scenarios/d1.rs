//! D1: two organisations with Map-Servers of their own, which find each other's sites through a Delegated Database Tree.
//!
//! ```text
//!          root  ::/0                       198.51.100.31
//!          /                       \
//!   ms-org-a  2001:db8:ea00::/40    ms-org-b  2001:db8:eb00::/40, and the Map-Resolver of both sites
//!   198.51.100.32                   198.51.100.33
//!         |                               |
//!   xtr-org-a  2001:db8:ea01::/48   xtr-org-b  2001:db8:eb01::/48
//! ```

use std::io;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use ipnet::IpNet;
use mapping::admin::Query;
use mapping::view::{ReferralView, ReferralsView};

use crate::lab::addresses::{ORG_A, ORG_B, ORG_ROOT, Organisation};
use crate::lab::configuration;
use crate::lab::daemons::Daemon;
use crate::lab::namespace::Namespace;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;
use crate::lab::topology::{self, SiteNamespaces};

/// In one line.
pub(crate) const TITLE: &str = "sites of two organisations that share a delegated database tree";

const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(2);
/// How long all registrations may take.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(10);
const PINGS: usize = 5;
/// What a Map-Resolver counts when a referral is not as it should be.
const REFERRAL_DROPS: [&str; 6] = [
    "referral_loop",
    "referral_mismatch",
    "referral_not_asked",
    "referral_not_authoritative",
    "referral_unusable",
    "ddt_unanswered",
];

/// The scenario's own part of the lab; the daemons end before their namespaces.
struct Tree {
    root: Daemon,
    map_servers: [Daemon; 2],
    xtrs: [Daemon; 2],
    sites: [SiteNamespaces; 2],
    servers: [Namespace; 3],
}

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let tree = Tree::bring_up(lab)?;
    let observed = tree
        .reach_each_other(lab, checks)
        .and_then(|()| tree.holes(lab, checks))
        .and_then(|()| tree.without_root(lab, checks));
    if observed.is_err() || checks.failed() > 0 {
        checks.show(&tree.logs());
    }
    tree.take_down(lab)?;
    observed
}

impl Tree {
    fn bring_up(lab: &Lab) -> io::Result<Self> {
        let core = &lab.topology.core4;
        let servers = [
            topology::guest(core, "ddt-root", ORG_ROOT)?,
            topology::guest(core, "ms-org-a", ORG_A.map_server)?,
            topology::guest(core, "ms-org-b", ORG_B.map_server)?,
        ];
        let sites = [
            topology::guest_site(core, ("xtr-org-a", "host-org-a"), &ORG_A)?,
            topology::guest_site(core, ("xtr-org-b", "host-org-b"), &ORG_B)?,
        ];
        let keys = lab.daemons.directory().display().to_string();
        let daemons = &lab.daemons;
        for organisation in [&ORG_A, &ORG_B] {
            daemons.write_key(organisation.name)?;
        }
        let server = |at: usize, text: String| daemons.add("mapping", &servers[at], &text);
        let root = server(0, configuration::ddt_root())?;
        let map_servers = [
            server(1, configuration::ddt_map_server(&ORG_A, &keys, false))?,
            server(2, configuration::ddt_map_server(&ORG_B, &keys, true))?,
        ];
        let xtr = |at: usize, organisation: &Organisation| {
            let text = configuration::ddt_xtr(organisation, ORG_B.map_server, &keys);
            daemons.add("xtr", &sites[at].xtr, &text)
        };
        let xtrs = [xtr(0, &ORG_A)?, xtr(1, &ORG_B)?];
        let tree = Self { root, map_servers, xtrs, sites, servers };
        let registered = lab.wait_for(REGISTRATION_LIMIT, || tree.registered().map(|n| n == 2))?;
        match registered {
            true => Ok(tree),
            false => Err(io::Error::other(format!("a site is not registered\n{}", tree.logs()))),
        }
    }

    fn take_down(self, lab: &Lab) -> io::Result<()> {
        for daemon in self.xtrs.iter().chain(&self.map_servers) {
            lab.daemons.stop(daemon)?;
        }
        lab.daemons.stop(&self.root)?;
        drop((self.sites, self.servers));
        Ok(())
    }

    fn reach_each_other(&self, lab: &Lab, checks: &mut Checks) -> io::Result<()> {
        let (host_a, host_b) = (&self.sites[0].host, &self.sites[1].host);
        let to_a = Header::new(ORG_B.host(), ORG_A.host());
        let first = ping(host_b, to_a, 100, FIRST_LIMIT)?;
        checks.that("the very first ping, organisation B to A", "reply", first, first.is_reply());
        let to_b = Header::new(ORG_A.host(), ORG_B.host());
        checks.equal("lost of 5 pings, A to B", 0, lost(host_a, to_b, 100, PINGS)?);

        let [map_server_a, resolver] = &self.map_servers;
        checks.equal("Map-Referrals of the root", 1, self.root.counter("map_referrals_sent")?);
        let sent = map_server_a.counter("map_referrals_sent")?;
        checks.equal("Map-Referrals of A's Map-Server", 1, sent);
        let forwarded = map_server_a.counter("map_requests_forwarded")?;
        checks.equal("Map-Requests it forwarded to A's ETR", 1, forwarded);
        let completed = lab.wait_for(LIMIT, || Ok(self.pending()? == 0))?;
        checks.that("lookups that B's Map-Resolver still follows", 0, self.pending()?, completed);
        let sent = resolver.counter("ddt_map_requests_sent")?;
        checks.equal("DDT Map-Requests of B's Map-Resolver", 2, sent);
        self.expect(lab, checks, "A's block", "ms-referral", ORG_A.block(), ORG_ROOT)?;
        self.expect(lab, checks, "A's site", "ms-ack", ORG_A.prefix(), ORG_A.map_server)?;
        self.lig(checks)
    }

    /// A person who asks B's Map-Resolver is answered by A's ETR.
    fn lig(&self, checks: &mut Checks) -> io::Result<()> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("lig").arg(ORG_A.host().to_string()).arg(format!("@{}", ORG_B.map_server));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // From a host that the ETR has not just answered: it answers the same again only after three seconds.
        let output = self.servers[0].start(command)?.wait_with_output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        let told =
            text.contains(&ORG_A.prefix().to_string()) && text.contains(&ORG_A.rloc.to_string());
        let observed = if told { "prefix and locator".into() } else { text };
        checks.that(
            "isthmus lig of A's host at B's Map-Resolver",
            "prefix and locator",
            observed,
            told,
        );
        Ok(())
    }

    /// EIDs that nobody has: in A's block, which the cache leads to, and in nobody's.
    fn holes(&self, lab: &Lab, checks: &mut Checks) -> io::Result<()> {
        self.look_for(ORG_A.address(2))?;
        let hole = "2001:db8:ea02::/47";
        self.expect(
            lab,
            checks,
            "next to A's site",
            "delegation-hole",
            parse(hole)?,
            ORG_A.map_server,
        )?;
        checks.equal("Map-Referrals of the root", 1, self.root.counter("map_referrals_sent")?);
        self.look_for("2001:db8:ec00::1".parse().map_err(io::Error::other)?)?;
        let hole = parse("2001:db8:ec00::/38")?;
        self.expect(lab, checks, "nobody's block", "delegation-hole", hole, ORG_ROOT)?;
        checks.equal("Map-Referrals of the root", 2, self.root.counter("map_referrals_sent")?);
        let mut drops = 0;
        for reason in REFERRAL_DROPS {
            drops += self.map_servers[1].drops(reason)?;
        }
        checks.equal("Map-Referrals that were not as they should be", 0, drops);
        Ok(())
    }

    /// What was learned lasts a day: the root is not needed for it.
    fn without_root(&self, lab: &Lab, checks: &mut Checks) -> io::Result<()> {
        lab.daemons.kill(&self.root)?;
        self.look_for(ORG_A.address(4))?;
        let hole = parse("2001:db8:ea04::/46")?;
        let text = "the root killed: elsewhere in A's block";
        self.expect(lab, checks, text, "delegation-hole", hole, ORG_A.map_server)?;
        lab.daemons.restart(&self.root, &self.servers[0])
    }

    /// Makes B's xTR ask for `eid`; nobody answers the ping itself.
    fn look_for(&self, eid: IpAddr) -> io::Result<()> {
        let header = Header::new(ORG_B.host(), eid);
        ping(&self.sites[1].host, header, 100, Duration::from_millis(300)).map(drop)
    }

    fn expect(
        &self,
        lab: &Lab,
        checks: &mut Checks,
        what: &str,
        action: &str,
        prefix: IpNet,
        source: IpAddr,
    ) -> io::Result<()> {
        let known = || -> io::Result<Option<ReferralView>> {
            let of_prefix =
                |entry: &ReferralView| entry.prefix.is_some_and(|p| p.prefix() == prefix);
            Ok(self.referrals()?.cache.into_iter().find(of_prefix))
        };
        lab.wait_for(LIMIT, || Ok(known()?.is_some()))?;
        let shown = match known()? {
            Some(ReferralView { action, source: Some(source), .. }) => {
                format!("{action} of {source}")
            }
            Some(ReferralView { action, .. }) => action,
            None => String::from("nothing"),
        };
        checks.equal(
            format!("B knows of {prefix}, {what}"),
            format!("{action} of {source}"),
            shown,
        );
        Ok(())
    }

    fn referrals(&self) -> io::Result<ReferralsView> {
        Ok(serde_json::from_value(self.map_servers[1].ask(&Query::Referrals)?)?)
    }

    fn pending(&self) -> io::Result<usize> {
        Ok(self.referrals()?.pending.len())
    }

    /// EID-prefixes registered at either Map-Server.
    fn registered(&self) -> io::Result<usize> {
        let mut count = 0;
        for map_server in &self.map_servers {
            count += map_server.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len);
        }
        Ok(count)
    }

    fn logs(&self) -> String {
        let daemons = [&self.root].into_iter().chain(&self.map_servers).chain(&self.xtrs);
        daemons.map(Daemon::log_tail).collect()
    }
}

fn parse(prefix: &str) -> io::Result<IpNet> {
    prefix.parse().map_err(io::Error::other)
}
