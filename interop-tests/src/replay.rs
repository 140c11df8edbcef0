//! What a replay of captures needs: a tunnel router in the place of one in the captures, and a judge of what it says.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use gateway::config::{self, Environment, RoleConfig};
use mapping::config::Secret;
use mapping::transmit::Transmit;
use mapping::wire::Message;
use xtr::config::ControlConfig;

use crate::captures::{Datagram, control_datagrams};
use crate::dissector;

/// A tunnel router of the captures, whose place ours takes.
#[derive(Clone, Copy, Debug)]
pub struct Router {
    /// Its RLOC.
    pub rloc: &'static str,
    /// Its EID-prefixes, each with its instance.
    pub eids: &'static [(u32, &'static str)],
    /// Its Map-Server and Map-Resolver.
    pub map_server: &'static str,
    /// Key ID and key there.
    pub key: (u8, &'static str),
    /// The profile of whoever is there.
    pub profile: &'static str,
}

impl Router {
    /// Its RLOC as an address.
    ///
    /// # Panics
    /// When it is none.
    pub fn address(&self) -> IpAddr {
        self.rloc.parse().expect("an RLOC")
    }

    /// What the captures whose names begin so show on its way there, control messages alone.
    pub fn received(&self, captures: &str) -> Vec<Datagram> {
        let mut datagrams = control_datagrams();
        datagrams.retain(|datagram| {
            let is_ours = datagram.destination.ip() == self.address();
            datagram.capture.starts_with(captures) && is_ours
        });
        datagrams
    }

    /// What it is configured with, as from a file.
    ///
    /// # Panics
    /// When that is refused.
    pub fn config(&self) -> ControlConfig {
        let eids = self.eids.iter().map(|(instance_id, prefix)| {
            format!("[[eid]]\nprefix = \"{prefix}\"\ninstance-id = {instance_id}\n")
        });
        let text = format!(
            "[xtr]\nname = \"replay\"\nrlocs = {{ core = {{ address = \"{}\" }} }}\n\
             map-servers = [{{ address = \"{ms}\", key-id = {}, key-file = \"KEY\", profile = \"{}\" }}]\n\
             map-resolvers = [\"{ms}\"]\n{}",
            self.rloc,
            self.key.0,
            self.profile,
            eids.collect::<String>(),
            ms = self.map_server,
        );
        let environment = Environment { directory: PathBuf::new(), host: None };
        let loaded = config::parse(Path::new("xtr.toml"), &text, &environment);
        let mut control = match loaded.expect("a configuration").config {
            RoleConfig::Xtr(router) => router.control,
            _ => unreachable!("[xtr] makes an xTR"),
        };
        // Offline no key is read.
        for server in &mut control.map_servers {
            server.secret = Secret::new(self.key.1.into());
        }
        control
    }
}

/// How many messages of each kind there are, none of which an independent dissector has anything against.
///
/// # Panics
/// When one does not parse, or the dissector has.
pub fn judge(said: &[Transmit]) -> BTreeMap<&'static str, usize> {
    let mut kinds =
        BTreeMap::from(["Map-Register", "Map-Notify", "Map-Reply", "ECM"].map(|k| (k, 0)));
    for transmit in said {
        let message = Message::parse(&transmit.payload);
        let kind = match message.expect("what we send parses") {
            Message::MapRequest(_) => "Map-Request",
            Message::MapReply(_) => "Map-Reply",
            Message::MapRegister(_) => "Map-Register",
            Message::MapNotify(_) => "Map-Notify",
            Message::MapNotifyAck(_) => "Map-Notify-Ack",
            Message::MapReferral(_) => "Map-Referral",
            Message::InfoRequest(_) | Message::InfoReply(_) => "Info",
            Message::Encapsulated(_) => "ECM",
        };
        *kinds.entry(kind).or_insert(0) += 1;
    }
    println!("{} messages: {kinds:?}", said.len());
    if dissector::is_missing() {
        return kinds;
    }
    let directory = tempfile::tempdir().expect("temporary directory");
    let file = directory.path().join("said.pcap");
    let octets: Vec<_> = said.iter().map(|transmit| transmit.payload.clone()).collect();
    fs::write(&file, dissector::pcap(&octets)).expect("a capture");
    let frames = dissector::frames(&file, &[]);
    assert_eq!(frames.len(), said.len());
    for frame in frames {
        let dissector::Frame { number, protocols, remarks, .. } = &frame;
        assert!(frame.is_sound(), "{number}: {protocols}: {remarks}");
    }
    kinds
}
