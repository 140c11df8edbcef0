//! Another tenant, in instance 7, has the very addresses of the client and of the VM; nobody gets the other's packets.

use std::io;
use std::sync::Arc;

use super::Bed;
use super::plan::{CLIENT, TENANT, VM, XTR_T, XTR_U};
use crate::lab::capture::{Capture, Mark};
use crate::lab::decode::Datagram;
use crate::lab::probe::session::Session;
use crate::lab::report::Checks;

/// Their sessions, and from when on captures are looked at.
pub(super) struct Tenants {
    sessions: Vec<Session>,
    core: Mark,
    hosts: Vec<(Arc<Capture>, Mark)>,
}

impl Bed<'_> {
    /// The others talk, too, by TCP: whatever is UDP is not theirs.
    pub(super) fn tenants_begin(&self) -> io::Result<Tenants> {
        let client = self.network.namespace("host-u")?;
        let server = self.network.namespace("host-t")?;
        let captures = [self.network.capture_of("host-u")?, self.network.capture_of("host-t")?];
        let hosts = captures.into_iter().map(|capture| {
            let mark = capture.mark();
            (capture, mark)
        });
        let hosts = hosts.collect();
        let sessions = [0, 1].map(|n| Session::start((&client, CLIENT[n]), (&server, VM[n])));
        let sessions = sessions.into_iter().collect::<io::Result<_>>()?;
        Ok(Tenants { sessions, core: self.core.mark(), hosts })
    }

    pub(super) fn tenants_end(&self, checks: &mut Checks, tenants: Tenants) -> io::Result<()> {
        let others = [XTR_T, XTR_U];
        let packets = self.core.datagrams_since(tenants.core);
        let is_right = |packet: &Datagram| {
            let theirs = others.contains(&packet.source) && others.contains(&packet.destination);
            let ours = !others.contains(&packet.source) && !others.contains(&packet.destination);
            packet.lisp().is_none_or(|lisp| match lisp.instance_id {
                TENANT => theirs,
                0 => ours,
                _ => false,
            })
        };
        let of_tenant = packets
            .iter()
            .filter(|packet| packet.lisp().is_some_and(|lisp| lisp.instance_id == TENANT));
        let shown = format!(
            "{} of {}, {} of them in instance {TENANT}",
            packets.iter().filter(|packet| !is_right(packet)).count(),
            packets.iter().filter(|packet| packet.lisp().is_some()).count(),
            of_tenant.count()
        );
        let text = "packets between tenants in the core, of those captured last";
        checks.that(text, 0, shown, packets.iter().all(is_right));
        for (session, family) in tenants.sessions.into_iter().zip(super::FAMILIES) {
            let survived = session.finish();
            let passed = survived.is_ok();
            let shown = survived.map_or_else(|error| error.to_string(), |s| s.to_string());
            let text = format!("the other tenant's session between the same addresses, {family}");
            checks.that(text, "every record", shown, passed);
        }
        let mut strange = 0;
        let mut all = 0;
        for (capture, mark) in tenants.hosts {
            let packets = capture.datagrams_since(mark);
            all += packets.len();
            strange += packets.iter().filter(|packet| packet.udp().is_some()).count();
        }
        let text = "packets delivered to the wrong tenant";
        checks.that(text, 0, format!("{strange} of {all}"), strange == 0 && all > 0);
        Ok(())
    }
}
