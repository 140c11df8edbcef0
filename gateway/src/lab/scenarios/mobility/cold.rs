//! The cold migration: the VM is off for a while, then on in the other data centre with the default gateway that it always had; and row 10.
//!
//! The use case has it off for 60 s. What matters is that it is longer than the detection timeout (3 s here), so that the former site
//! has withdrawn it: that is waited for, and the time is printed.

use std::fs;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use xtr::view::HostView;

use super::configuration::GATEWAY_STATION;
use super::plan::{BRIDGE, CLIENT, GATEWAY, UPLINKS, VM, VM_PORT, XTR, leases};
use super::{Bed, LIMIT, PROTOCOL, SECOND, ms, wire};
use crate::lab::addresses::host;
use crate::lab::link;
use crate::lab::network::wait_for;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::ping;
use crate::lab::report::Checks;

/// How long a silent VM may stay registered: its timeout, and what deregistration takes.
const WITHDRAWN: Duration = Duration::from_secs(10);
/// How long it is off at least: longer than the detection timeout, even where only the aggregate is registered.
const OFF: Duration = Duration::from_millis(3_500);
/// How long one ping of several waits.
const TRY: Duration = Duration::from_millis(100);
/// A file of leases is looked at once in a second.
const LEASE_LIMIT: Duration = Duration::from_secs(5);

/// What is seen of the VM at its new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// Gratuitous ARP and an unsolicited Neighbor Advertisement, no packet.
    Announcement,
    /// Leases of the DHCP server there, no packet.
    Lease,
    /// Its own packets, and nothing before them.
    Packets,
}

impl Bed<'_> {
    /// From DC1 to DC2 twice, and home in between.
    pub(super) fn cold(&mut self, checks: &mut Checks) -> io::Result<()> {
        for sign in [Sign::Announcement, Sign::Packets, Sign::Lease] {
            self.cold_move(checks, sign)?;
        }
        Ok(())
    }

    fn cold_move(&mut self, checks: &mut Checks, sign: Sign) -> io::Result<()> {
        let off = Instant::now();
        link::down(&self.fabric, VM_PORT)?;
        link::unplug(&self.fabric, UPLINKS[self.at])?;
        link::plug(&self.fabric, UPLINKS[1 - self.at], BRIDGE)?;
        self.withdrawn(checks, off)?;
        thread::sleep(OFF.saturating_sub(off.elapsed()));
        self.at = 1 - self.at;
        let down = off.elapsed();
        link::up(&self.fabric, VM_PORT)?;
        let begin = Instant::now();
        let how = match sign {
            Sign::Announcement => {
                self.announce()?;
                "gratuitous ARP and NA only"
            }
            Sign::Lease => {
                self.lease()?;
                "a lease only"
            }
            Sign::Packets => "its own packets",
        };
        let what = format!("off for {:.1} s, now in {}, {how}", down.as_secs_f64(), self.place());
        // At home a host that is known to be nowhere else is here anyway.
        if sign != Sign::Packets {
            self.detected(checks, &what, sign, begin)?;
        }
        let mark = self.core.mark();
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            // Who is to speak first.
            let (namespace, header) = match sign {
                Sign::Packets => (&self.vm, Header::new(vm, client)),
                _ => (&self.c.host, Header::new(client, vm)),
            };
            let begin = Instant::now();
            let mut answer = ping(namespace, header, 100, TRY)?;
            while !answer.is_reply() && begin.elapsed() < SECOND {
                answer = ping(namespace, header, 100, TRY)?;
            }
            checks.that(
                format!("{what}: {vm} and the client reach each other"),
                "within 1 s",
                format!("{answer}, {} after", ms(begin.elapsed())),
                answer.is_reply() && begin.elapsed() < SECOND,
            );
        }
        for gateway in GATEWAY {
            let station = link::station_of(&self.vm, gateway)?.unwrap_or_default();
            let shown = station.iter().map(|octet| format!("{octet:02x}")).collect::<Vec<_>>();
            let text = format!("its default gateway {gateway} is still");
            checks.that(text, "00:00:5e:00:01:01", shown.join(":"), station == GATEWAY_STATION);
        }
        let frames = self.core.since(mark);
        for (client, vm) in CLIENT.into_iter().zip(VM) {
            let back = wire::data(&frames, XTR[self.at], self.c.rloc, client).len();
            let elsewhere = wire::data(&frames, XTR[1 - self.at], self.c.rloc, client).len();
            let text = format!("packets of {vm} from {}, and from elsewhere", self.place());
            let shown = format!("{back}, {elsewhere}");
            checks.that(text, "at least 1, 0", shown, back >= 1 && elsewhere == 0);
        }
        if self.at == 1 { self.settled(checks, "after a cold move") } else { self.home(checks) }
    }

    /// A host that was withdrawn and came home is part of the aggregate again.
    fn home(&self, checks: &mut Checks) -> io::Result<()> {
        for vm in VM {
            let prefix = host(vm).to_string();
            let by = self.registered(&prefix)?;
            let passed = by.is_empty() || by == XTR[0].to_string();
            let shown = if by.is_empty() { "the aggregate only".to_owned() } else { by };
            checks.that(format!("{vm} is home, registered by"), "DC1's router", shown, passed);
            let knows = || self.c.knows(&prefix);
            let right = || Ok(knows()?.is_empty() || knows()? == XTR[0].to_string());
            let right = wait_for(super::SOLICITED, right)?;
            checks.that("the client's mapping of it alone", "none, or DC1", knows()?, right);
        }
        Ok(())
    }

    /// Who saw it how.
    fn detected(
        &self,
        checks: &mut Checks,
        what: &str,
        sign: Sign,
        begin: Instant,
    ) -> io::Result<()> {
        for vm in VM {
            let wanted = match (sign, vm.is_ipv4()) {
                (Sign::Lease, _) => "lease",
                (_, true) => "arp",
                (_, false) => "nd",
            };
            let limit = if sign == Sign::Lease { LEASE_LIMIT } else { SECOND };
            let here = || -> io::Result<Option<HostView>> {
                let views: Vec<HostView> =
                    serde_json::from_value(self.xtrs[self.at].ask(&Query::Mobility)?)?;
                Ok(views.into_iter().find(|view| view.eid == vm && view.place == "here"))
            };
            wait_for(limit, || Ok(here()?.is_some()))?;
            let by = here()?.and_then(|view| view.detected_by).unwrap_or_default();
            checks.that(
                format!("{what}: {vm} is detected by"),
                format!("{wanted}, within {} s", limit.as_secs()),
                format!("{by}, within {}", ms(begin.elapsed())),
                by == wanted,
            );
        }
        Ok(())
    }

    /// A DHCP server gives the VM its addresses, and writes it down as dnsmasq does.
    fn lease(&self) -> io::Result<()> {
        let [v4, v6] = VM;
        let text = format!(
            "4102444800 52:54:00:00:00:07 {v4} vm *\n\
             duid 00:01:00:01:2a:00:00:00:52:54:00:00:00:01\n\
             4102444800 7 {v6} vm 00:01:00:01:2a:00:00:00:52:54:00:00:00:07\n"
        );
        fs::write(leases(self.network, self.at), text)
    }

    /// Row 10.
    pub(super) fn powered_off(&mut self, checks: &mut Checks) -> io::Result<()> {
        let begin = Instant::now();
        link::down(&self.fabric, VM_PORT)?;
        self.withdrawn(checks, begin)?;
        for (xtr, router) in self.xtrs.iter().zip(&self.routers) {
            let no_route = || {
                let routes = link::routes_of_protocol(router, PROTOCOL)?;
                Ok(!VM.iter().any(|vm| routes.contains(&host(*vm))))
            };
            let gone = wait_for(LIMIT, no_route)?;
            checks.equal(format!("host routes are gone, {}", xtr.name), true, gone);
            let known = || -> io::Result<usize> {
                let views: Vec<HostView> = serde_json::from_value(xtr.ask(&Query::Mobility)?)?;
                Ok(views.iter().filter(|view| VM.contains(&view.eid)).count())
            };
            wait_for(LIMIT, || Ok(known()? == 0))?;
            let text = format!("entries, here or away, of {}", xtr.name);
            checks.equal(text, 0, known()?);
        }
        Ok(())
    }

    /// The former site gives up the VM, which is off since `begin`.
    fn withdrawn(&self, checks: &mut Checks, begin: Instant) -> io::Result<()> {
        for vm in VM {
            let prefix = host(vm).to_string();
            let gone = wait_for(WITHDRAWN.saturating_sub(begin.elapsed()), || {
                Ok(self.registered(&prefix)?.is_empty())
            })?;
            let shown = format!("{gone}, after {:.1} s", begin.elapsed().as_secs_f64());
            checks.that(format!("the VM is off: {vm} is withdrawn"), "true", shown, gone);
        }
        Ok(())
    }
}
