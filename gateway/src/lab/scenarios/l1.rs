//! L1: two sites and a Map-Server that require LISP-SEC, and somebody who answers lookups without being entitled to.
//!
//! ```text
//!   xtr-sec-a  2001:db8:f101::/48        ms-sec  198.51.100.34        xtr-sec-b  2001:db8:f201::/48
//!   198.51.100.43       |                     |                            198.51.100.44
//!   ------------------- core4 ------------------------------ core4 -----------------
//!                                        |
//!                                 mallory  198.51.100.35, whom A's xTR takes for a Map-Resolver
//! ```

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mapping::admin::Query;
use mapping::eid::{EidPrefix, InstanceId};
use mapping::sec::{self, Otk};
use mapping::wire::security::{EidAd, EidAdBody};
use mapping::wire::{
    CONTROL_PORT, EidField, EidRecord, EncapsulatedControlMessage, LocatorRecord, MacField,
    MapReply, Message,
};
use xtr::view::MapCacheEntryView;

use crate::lab::addresses::{MALLORY, Organisation, SEC_A, SEC_B};
use crate::lab::configuration;
use crate::lab::daemons::Daemon;
use crate::lab::namespace::Namespace;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{lost, ping};
use crate::lab::report::Checks;
use crate::lab::session::Lab;
use crate::lab::topology::{self, SiteNamespaces};

/// In one line.
pub(crate) const TITLE: &str = "sites that believe only what LISP-SEC proves";

/// The second Map-Resolver is asked a second after the first.
const FIRST_LIMIT: Duration = Duration::from_secs(5);
const LIMIT: Duration = Duration::from_secs(2);
/// How long all registrations may take.
const REGISTRATION_LIMIT: Duration = Duration::from_secs(10);
const PINGS: usize = 5;

/// The scenario's own part of the lab; the daemons end before their namespaces.
struct Secured {
    map_server: Daemon,
    xtrs: [Daemon; 2],
    mallory: Mallory,
    sites: [SiteNamespaces; 2],
    servers: [Namespace; 2],
}

/// Runs it.
pub(crate) fn run(lab: &Lab, checks: &mut Checks) -> io::Result<()> {
    let secured = Secured::bring_up(lab)?;
    let observed =
        secured.reach_each_other(lab, checks).and_then(|()| secured.look_up(lab, checks));
    if observed.is_err() || checks.failed() > 0 {
        checks.show(&secured.logs());
    }
    secured.take_down(lab)?;
    observed
}

impl Secured {
    fn bring_up(lab: &Lab) -> io::Result<Self> {
        let core = &lab.topology.core4;
        let servers = [
            topology::guest(core, "ms-sec", SEC_A.map_server)?,
            topology::guest(core, "mallory", MALLORY)?,
        ];
        let sites = [
            topology::guest_site(core, ("xtr-sec-a", "host-sec-a"), &SEC_A)?,
            topology::guest_site(core, ("xtr-sec-b", "host-sec-b"), &SEC_B)?,
        ];
        let mallory = Mallory::start(&servers[1])?;
        let daemons = &lab.daemons;
        for name in [SEC_A.name, SEC_B.name, "itr"] {
            daemons.write_key(name)?;
        }
        let keys = daemons.directory().display().to_string();
        let text = configuration::secure_map_server([&SEC_A, &SEC_B], &keys);
        let map_server = daemons.add("mapping", &servers[0], &text)?;
        let xtr = |at: usize, site: &Organisation, resolvers: &[IpAddr]| {
            let text = configuration::secure_xtr(site, resolvers, &keys);
            daemons.add("xtr", &sites[at].xtr, &text)
        };
        let xtrs =
            [xtr(0, &SEC_A, &[MALLORY, SEC_A.map_server])?, xtr(1, &SEC_B, &[SEC_B.map_server])?];
        let secured = Self { map_server, xtrs, mallory, sites, servers };
        let registered =
            lab.wait_for(REGISTRATION_LIMIT, || secured.registered().map(|n| n == 2))?;
        match registered {
            true => Ok(secured),
            false => Err(io::Error::other(format!("a site is not registered\n{}", secured.logs()))),
        }
    }

    fn take_down(self, lab: &Lab) -> io::Result<()> {
        for daemon in self.xtrs.iter().chain([&self.map_server]) {
            lab.daemons.stop(daemon)?;
        }
        drop(self.mallory);
        drop((self.sites, self.servers));
        Ok(())
    }

    fn reach_each_other(&self, lab: &Lab, checks: &mut Checks) -> io::Result<()> {
        let xtr = &self.xtrs[0];
        let to_b = Header::new(SEC_A.host(), SEC_B.host());
        let first = ping(&self.sites[0].host, to_b, 100, FIRST_LIMIT)?;
        checks.that("the very first ping, site A to B", "reply", first, first.is_reply());
        checks.equal("lost of 5 pings, A to B", 0, lost(&self.sites[0].host, to_b, 100, PINGS)?);
        let to_a = Header::new(SEC_B.host(), SEC_A.host());
        checks.equal("lost of 5 pings, B to A", 0, lost(&self.sites[1].host, to_a, 100, PINGS)?);

        let asked = lab.wait_for(LIMIT, || Ok(self.mallory.was_asked()))?;
        checks.that("mallory was asked, and answered", "yes", yes(asked), asked);
        for (reason, what) in [
            ("control_lisp_sec_missing", "forged Map-Replies without protection"),
            ("control_eid_ad_failed", "forged Map-Replies with a key of mallory's own"),
        ] {
            let refused = lab.wait_for(LIMIT, || Ok(xtr.drops(reason)? > 0))?;
            checks.that(format!("{what}, refused by A's xTR"), "yes", yes(refused), refused);
        }
        let entry = self.cached(&SEC_B)?;
        let locators = entry.as_ref().map_or_else(String::new, |entry| {
            let locators: Vec<_> = entry.locators.iter().map(|l| l.address.to_string()).collect();
            locators.join(", ")
        });
        checks.equal("locators of B's prefix at A", SEC_B.rloc.to_string(), locators);
        let proved = entry.is_some_and(|entry| entry.secured);
        checks.that("the mapping is secured", "yes", yes(proved), proved);
        let forwarded = self.map_server.counter("protected_map_requests_forwarded")?;
        checks.that(
            "protected Map-Requests that the Map-Server passed on",
            "2 or more",
            forwarded,
            forwarded >= 2,
        );
        let signed = self.xtrs[1].counter("protected_map_replies_sent")?;
        checks.that("Map-Replies that B's ETR signed", "1 or more", signed, signed >= 1);
        Ok(())
    }

    /// Whoever has the key is told, and whoever has none is not.
    fn look_up(&self, lab: &Lab, checks: &mut Checks) -> io::Result<()> {
        let key = lab.daemons.directory().join("site-itr.key");
        let key = key.display().to_string();
        let output = self.lig(&["--key-id", "7", "--key-file", &key])?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told = text.contains("secured: yes") && text.contains(&SEC_B.prefix().to_string());
        let shown = if told { String::from("secured: yes") } else { text };
        checks.that("isthmus lig with the key", "secured: yes", shown, told);
        let output = self.lig(&[])?;
        let silent = output.stdout.is_empty() && !output.status.success();
        checks.that("isthmus lig without it", "no answer", output.status, silent);
        let refused = self.map_server.drops("lisp_sec_missing")?;
        checks.equal("its Map-Requests, refused by the Map-Server", 3, refused);
        Ok(())
    }

    fn lig(&self, more: &[&str]) -> io::Result<Output> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("lig").arg(SEC_B.host().to_string()).arg(format!("@{}", SEC_B.map_server));
        command.args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.servers[1].start(command)?.wait_with_output()
    }

    /// What A's xTR has in its map-cache about the site.
    fn cached(&self, site: &Organisation) -> io::Result<Option<MapCacheEntryView>> {
        let entries: Vec<MapCacheEntryView> =
            serde_json::from_value(self.xtrs[0].ask(&Query::MapCache)?)?;
        Ok(entries.into_iter().find(|entry| entry.prefix == site.prefix()))
    }

    fn registered(&self) -> io::Result<usize> {
        Ok(self.map_server.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len))
    }

    fn logs(&self) -> String {
        [&self.map_server].into_iter().chain(&self.xtrs).map(Daemon::log_tail).collect()
    }
}

fn yes(holds: bool) -> &'static str {
    if holds { "yes" } else { "no" }
}

/// A Map-Resolver that answers everything with its own locator, until dropped.
struct Mallory {
    asked: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mallory {
    fn start(namespace: &Namespace) -> io::Result<Self> {
        let socket = namespace.run(|| UdpSocket::bind((MALLORY, CONTROL_PORT)))??;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        let (asked, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (noted, stopped) = (asked.clone(), stop.clone());
        let thread = namespace.spawn(move || {
            let mut buffer = [0; 2048];
            while !stopped.load(Ordering::Acquire) {
                let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
                let Ok(Message::Encapsulated(ecm)) = Message::parse(&buffer[..length]) else {
                    continue;
                };
                for (to, forged) in forge(&ecm) {
                    // A forgery that cannot be sent shows as one that was not refused.
                    let _ = socket.send_to(&forged, to);
                    noted.store(true, Ordering::Release);
                }
            }
        })?;
        Ok(Self { asked, stop, thread: Some(thread) })
    }

    fn was_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}

impl Drop for Mallory {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

/// Answers with the nonce that was asked with: one without protection, one protected with another one-time key.
fn forge(ecm: &EncapsulatedControlMessage) -> Vec<(SocketAddr, Vec<u8>)> {
    let Ok(request) = ecm.map_request() else { return Vec::new() };
    let Some(rloc) = request.itr_rloc_for(MALLORY) else { return Vec::new() };
    let prefix = EidPrefix::new(InstanceId::DEFAULT, SEC_B.prefix());
    let record = EidRecord::new(prefix, 1440, vec![LocatorRecord::new(MALLORY, 1, 100)]);
    let reply = MapReply::new(request.nonce, vec![record]);
    let to = SocketAddr::new(rloc, ecm.source.port());
    let mut forged = vec![(to, Message::MapReply(reply.clone()).to_vec())];
    let (otk, kdf_id, hmac_id) =
        (Otk::new([1; 16]), sec::kdf_id::HKDF_SHA256, sec::hmac_id::SHA_256_128);
    let hmac = MacField::zeroed(16);
    let body =
        EidAdBody { etr_cant_sign: false, hmac_id, prefixes: vec![EidField::from(prefix)], hmac };
    let mut eid_ad = EidAd { kdf_id, body: Some(body) };
    let sealed = sec::sign_eid_ad(&mut eid_ad, &otk)
        .and_then(|()| sec::ms_otk(&otk, kdf_id))
        .and_then(|ms_otk| sec::protect_reply(reply, &eid_ad.to_vec(), &ms_otk, hmac_id));
    forged.extend(sealed.ok().map(|octets| (to, octets)));
    forged
}
