//! A Map-Resolver and the ETRs behind it in one: every EID it is asked for has a mapping of its own, and every RLOC-probe is answered.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use gateway::lab::namespace::Namespace;
use ipnet::{IpNet, Ipv6Net};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    Action, Address, CONTROL_PORT, EidField, EidRecord, LocatorRecord, MapReply, MapRequest,
    Message,
};

/// How long it sleeps at most before it looks whether it is to end.
const NAP: Duration = Duration::from_millis(100);

/// It answers as long as it lives.
pub struct Oracle {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Oracle {
    /// Answers at `resolver` and at `etr`, both addresses in `namespace`, that every IPv6 EID is in a /64 at `etr`.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn start(namespace: &Namespace, resolver: IpAddr, etr: IpAddr) -> io::Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let mut oracle = Self { end, threads: Vec::new() };
        for own in [resolver, etr] {
            let socket = namespace.run(move || UdpSocket::bind((own, CONTROL_PORT)))??;
            socket.set_read_timeout(Some(NAP))?;
            let end = Arc::clone(&oracle.end);
            oracle.threads.push(std::thread::spawn(move || answer(&socket, etr, &end)));
        }
        Ok(oracle)
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic was printed.
            let _ = thread.join();
        }
    }
}

fn answer(socket: &UdpSocket, etr: IpAddr, end: &AtomicBool) {
    let mut octets = [0; 2048];
    while !end.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut octets) else { continue };
        let Some((reply, to)) = reply(&octets[..length], from, etr) else { continue };
        let mut octets = Vec::new();
        reply.encode(&mut octets);
        // Who asks again gets another one.
        let _ = socket.send_to(&octets, to);
    }
}

fn reply(octets: &[u8], from: SocketAddr, etr: IpAddr) -> Option<(MapReply, SocketAddr)> {
    let (request, to): (MapRequest, SocketAddr) = match Message::parse(octets).ok()? {
        Message::MapRequest(request) => (request, from),
        Message::Encapsulated(message) => {
            let request = message.map_request().ok()?;
            let rloc = request.itr_rloc_for(etr)?;
            (request, SocketAddr::new(rloc, message.source.port()))
        }
        _ => return None,
    };
    let EidField::Prefix(asked) = request.records.first()?.eid else { return None };
    let locator = LocatorRecord {
        priority: 1,
        weight: 100,
        multicast_priority: 255,
        multicast_weight: 0,
        local: request.probe,
        probed: request.probe,
        reachable: true,
        address: Address::from(etr),
    };
    // What is no EID has a negative mapping: a gateway asks for its Map-Resolver, to see whether it answers.
    let (eid, locators) = match asked.prefix() {
        IpNet::V6(prefix) => {
            let prefix = Ipv6Net::new(prefix.addr(), 64).ok()?;
            (EidPrefix::new(InstanceId::DEFAULT, prefix.into()), vec![locator])
        }
        IpNet::V4(_) => (asked, Vec::new()),
    };
    let record = EidRecord {
        ttl_minutes: 1440,
        action: Action::NativelyForward,
        authoritative: true,
        map_version: 0,
        eid: EidField::Prefix(eid),
        locators,
    };
    let reply = MapReply { probe: request.probe, ..MapReply::new(request.nonce, vec![record]) };
    Some((reply, to))
}
