//! A site behind a NAT of the strictest kind, which an RTR carries through it (draft-ermagan-lisp-nat-traversal).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mapping::admin::Query;
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    Address, AuthenticationData, CONTROL_PORT, EidField, EidRecord, EncapsulatedControlMessage,
    InfoRequest, LocatorRecord, MapRegister, Message, XtrIdentity,
};
use xtr::packet::lisp::DATA_PORT;
use xtr::view::{NatRlocView, NatSiteView, NatView};

use crate::lab::addresses::host;
use crate::lab::capture::{Capture, Mark};
use crate::lab::daemons::Daemon;
use crate::lab::decode::Datagram;
use crate::lab::link;
use crate::lab::namespace::Namespace;
use crate::lab::nat::Nat;
use crate::lab::network::{Access, Network, Plan, wait_for};
use crate::lab::probe::craft::{self, Header};
use crate::lab::probe::ping::{lost, ping};
use crate::lab::probe::tcp;
use crate::lab::relay::Relay;
use crate::lab::report::Checks;
use crate::lab::topology::SITE_LINK;

/// In one line.
pub(crate) const TITLE: &str = "a site behind a NAT, reached through an RTR";

/// The network.
pub(crate) static PLAN: Plan = Plan { name: "nat", drawing: DRAWING, build };

const DRAWING: &str = r"
     host-a 2001:db8:e001::10, 203.0.113.10           host-b 2001:db8:e002::10, 203.0.113.74
        |                                                |
      xtr-a  192.168.1.2                               xtr-b  198.51.100.12
        |                                                |
      NAT    198.51.100.99                               |
        |                                                |
     ===+================== core ========================+======== ms 198.51.100.2
                              |               |
      outside 198.51.100.66 --+              rtr  198.51.100.1 (RTR, PITR, PETR)
      (forges)                                |
                                           host-n 2001:db8:ffff::80, 192.0.2.80 (knows nothing of LISP)
";

const CORE: IpAddr = v4([198, 51, 100, 254]);
const CORE6: IpAddr = v6(0xc0, 0x254);
const MS: IpAddr = v4([198, 51, 100, 2]);
const RTR: IpAddr = v4([198, 51, 100, 1]);
const XTR_A: IpAddr = v4([192, 168, 1, 2]);
const NAT: IpAddr = v4([198, 51, 100, 99]);
const XTR_B: IpAddr = v4([198, 51, 100, 12]);
const OUTSIDE: IpAddr = v4([198, 51, 100, 66]);
/// Hosts, IPv6 and IPv4.
const A: [IpAddr; 2] = [v6(0xe001, 0x10), v4([203, 0, 113, 10])];
const B: [IpAddr; 2] = [v6(0xe002, 0x10), v4([203, 0, 113, 74])];
const N: [IpAddr; 2] = [v6(0xffff, 0x80), v4([192, 0, 2, 80])];
const AGGREGATES: &str = "[\"2001:db8:e000::/36\", \"203.0.113.0/24\"]";
const A_PREFIX4: &str = "203.0.113.0/26";

/// Between two Map-Registers of the xTR behind the NAT.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// The NAT forgets after so long, which is shorter than every NAT there is.
const NAT_FORGETS: Duration = Duration::from_secs(3);
/// The RTR forgets after so long.
const RTR_FORGETS: Duration = Duration::from_secs(5);
const FIRST_LIMIT: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(10);
const PINGS: usize = 10;
const OCTETS: usize = 2_000_000;

const fn v4([a, b, c, d]: [u8; 4]) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(hextet: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, hextet, 0, 0, 0, 0, last))
}

fn build(network: &mut Network) -> io::Result<()> {
    let core = network.core("core", CORE, CORE6)?;
    let (ms, outside) = (network.node("ms")?, network.node("outside")?);
    network.access(&core, &ms, Access::of(&ms, "core0", &[MS]))?;
    network.access(&core, &outside, Access::of(&outside, "core0", &[OUTSIDE]))?;
    let (xtr_a, xtr_b) = (network.router("xtr-a")?, network.router("xtr-b")?);
    let relay =
        network.access_through_relay(&core, &xtr_a, Access::of(&xtr_a, "wan0", &[XTR_A]))?;
    link::route(core.namespace(), host(NAT), None, "xtr-a")?;
    if let (IpAddr::V4(inside), IpAddr::V4(outside)) = (XTR_A, NAT) {
        relay.translate(Nat::new(inside, outside, NAT_FORGETS));
    }
    network.access(&core, &xtr_b, Access::of(&xtr_b, "core0", &[XTR_B]))?;
    let rtr = network.router("rtr")?;
    network.access(&core, &rtr, Access::of(&rtr, "core0", &[RTR]))?;
    let subnets =
        |hextet, block, [six, four]: [IpAddr; 2]| [(v6(hextet, 1), six, 64), (v4(block), four, 26)];
    for (router, name, subnets) in [
        (&xtr_a, "host-a", subnets(0xe001, [203, 0, 113, 1], A)),
        (&xtr_b, "host-b", subnets(0xe002, [203, 0, 113, 65], B)),
        (&rtr, "host-n", subnets(0xffff, [192, 0, 2, 65], N)),
    ] {
        let machine = network.node(name)?;
        network.site(router, &machine, &subnets)?;
    }
    let keys = [network.key("a")?, network.key("b")?, network.key("rtr")?];
    let map_server = network.daemon("mapping", &ms, &map_server(&keys))?;
    network.daemon("gateway", &rtr, &gateway(&keys[2]))?;
    network.daemon("xtr", &xtr_a, &behind_nat(&keys[0]))?;
    network.daemon("xtr", &xtr_b, &in_the_open(&keys[1]))?;
    network.wait_for_registrations(&map_server, 4)?;
    network.capture(core.namespace(), true)?;
    Ok(())
}

fn map_server([a, b, rtr]: &[String; 3]) -> String {
    let site = |name: &str, key: &str, eids: &str| {
        format!(
            "\n[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key}\" }}]\neid-prefixes = {eids}\n"
        )
    };
    let a = site("a", a, "[\"2001:db8:e001::/48\", \"203.0.113.0/26\"]");
    let b = site("b", b, "[\"2001:db8:e002::/48\", \"203.0.113.64/26\"]");
    format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{MS}\"]\n\n\
         [nat]\nrtrs = [{{ address = \"{RTR}\", key-id = 5, key-file = \"{rtr}\" }}]\n{a}{b}"
    )
}

fn gateway(key: &str) -> String {
    format!(
        "[gateway]\nname = \"rtr\"\nrlocs = [\"{RTR}\"]\nmap-resolvers = [\"{MS}\"]\ntun = {{ queues = 2 }}\n\n\
         [pitr]\neid-aggregates = {AGGREGATES}\n\n[petr]\naccept-from = {{ eids = {AGGREGATES} }}\n\n\
         [rtr]\neid-prefixes = {AGGREGATES}\n\
         nat = {{ map-servers = [{{ address = \"{MS}\", key-id = 5, key-file = \"{key}\" }}], timeout = \"{}s\" }}\n",
        RTR_FORGETS.as_secs()
    )
}

fn behind_nat(key: &str) -> String {
    let nat = format!(
        "xtr-id = \"a1\"\nsite-id = 1\nnat-traversal = {{ keepalive = \"{}s\" }}\n",
        KEEPALIVE.as_secs()
    );
    site_xtr(("xtr-a", XTR_A), key, &nat, ["2001:db8:e001::/48", A_PREFIX4])
}

fn in_the_open(key: &str) -> String {
    let petr = format!("use-petr = [{{ address = \"{RTR}\" }}]\n");
    site_xtr(("xtr-b", XTR_B), key, &petr, ["2001:db8:e002::/48", "203.0.113.64/26"])
}

fn site_xtr((name, rloc): (&str, IpAddr), key: &str, more: &str, eids: [&str; 2]) -> String {
    let eids =
        eids.map(|eid| format!("\n[[eid]]\nprefix = \"{eid}\"\ninterfaces = [\"{SITE_LINK}\"]\n"));
    format!(
        "[xtr]\nname = \"{name}\"\nrlocs = {{ core = {{ address = \"{rloc}\" }} }}\n\
         map-servers = [{{ address = \"{MS}\", key-id = 1, key-file = \"{key}\" }}]\n\
         map-resolvers = [\"{MS}\"]\ntun = {{ queues = 2 }}\n{more}{}",
        eids.concat()
    )
}

/// Runs it.
pub(crate) fn run(network: &mut Network, checks: &mut Checks) -> io::Result<()> {
    let bed = Bed {
        core: network.capture_of("core")?,
        hosts: [
            network.namespace("host-a")?,
            network.namespace("host-b")?,
            network.namespace("host-n")?,
        ],
        outside: network.namespace("outside")?,
        ms: network.daemon_in("ms")?,
        rtr: network.daemon_in("rtr")?,
        xtr_a: network.daemon_in("xtr-a")?,
        relay: network.relay_to("xtr-a")?,
    };
    bed.found(checks)?;
    bed.reached(checks)?;
    bed.on_the_wire(checks)?;
    bed.kept_open(checks)?;
    bed.moved(checks)?;
    bed.forged(checks)?;
    network.daemons().kill(&bed.xtr_a)?;
    bed.ended(checks)
}

/// The pieces that it uses.
struct Bed {
    core: Arc<Capture>,
    /// Behind the NAT, in the open, and without LISP.
    hosts: [Arc<Namespace>; 3],
    outside: Arc<Namespace>,
    ms: Arc<Daemon>,
    rtr: Arc<Daemon>,
    xtr_a: Arc<Daemon>,
    relay: Arc<Relay>,
}

impl Bed {
    /// What both routers say of the NAT.
    fn found(&self, checks: &mut Checks) -> io::Result<()> {
        wait_for(LIMIT, || Ok(self.own()?.is_some_and(|own| own.state == "registered")))?;
        let own = self.own()?.ok_or_else(|| io::Error::other("show nat has no RLOC"))?;
        checks.equal("the xTR behind the NAT", "registered".to_owned(), own.state);
        let seen = own.seen_as.map_or_else(String::new, |seen| seen.ip().to_string());
        checks.equal("it is seen as", NAT.to_string(), seen);
        let rtr = own.rtr.map_or_else(String::new, |rtr| rtr.to_string());
        checks.equal("its RTR", RTR.to_string(), rtr);
        let sites = self.sites()?;
        checks.equal("EID-prefixes behind NATs, at the RTR", 2, sites.len());
        let bound = self.binding(CONTROL_PORT).map(|port| SocketAddr::new(NAT, port).to_string());
        let translated: BTreeSet<_> =
            sites.iter().map(|site| site.translated.to_string()).collect();
        let translated = translated.into_iter().collect::<Vec<_>>().join(" and ");
        checks.equal("where it sends their packets", bound.unwrap_or_default(), translated);
        Ok(())
    }

    /// Pings and TCP, both ways, both families.
    fn reached(&self, checks: &mut Checks) -> io::Result<()> {
        let [a, b, n] = &self.hosts;
        for (text, from, (source, destination)) in [
            ("host B to host A", b, (B, A)),
            ("host A to host B", a, (A, B)),
            ("host N to host A", n, (N, A)),
            ("host A to host N", a, (A, N)),
        ] {
            for (family, (source, destination)) in
                ["IPv6", "IPv4"].iter().zip(source.into_iter().zip(destination))
            {
                let header = Header::new(source, destination);
                let first = ping(from, header, 100, FIRST_LIMIT)?;
                let name = format!("{text}, {family}: the first ping");
                checks.that(name, "a reply", first, first.is_reply());
                let missing = lost(from, header, 100, PINGS)?;
                checks.equal(format!("{text}, {family}: lost of {PINGS} more"), 0, missing);
            }
        }
        for (text, client, server) in [
            ("TCP from host B to host A, both ways", (b, B[0]), (a, A[0])),
            ("TCP from host A to host B, both ways", (a, A[1]), (b, B[1])),
            ("TCP from host A to host N, both ways", (a, A[0]), (n, N[0])),
            ("TCP from host N to host A, both ways", (n, N[1]), (a, A[1])),
        ] {
            let (client, server) = ((client.0.as_ref(), client.1), (server.0.as_ref(), server.1));
            match tcp::transfer(client, server, OCTETS) {
                Ok(transfer) => checks.that(text, "2 MB each way", transfer, true),
                Err(error) => checks.that(text, "2 MB each way", error, false),
            }
        }
        Ok(())
    }

    /// NT-11, NT-12: one port out, and by the binding of the Map-Registers in.
    fn on_the_wire(&self, checks: &mut Checks) -> io::Result<()> {
        let mark = self.core.mark();
        for last in 0..4u8 {
            let mut header = Header::new(B[0], A[0]);
            header.traffic_class = last << 2;
            lost(&self.hosts[1], header, 100, 3)?;
            lost(&self.hosts[0], Header::new(A[1], B[1]), 100, 3)?;
        }
        let out = self.data(mark, (NAT, RTR));
        let ports: BTreeSet<u16> = out.iter().map(|(from, _)| *from).collect();
        checks.equal("UDP source ports of its data, outside the NAT", 1, ports.len());
        let to: BTreeSet<u16> = out.iter().map(|(_, to)| *to).collect();
        checks.equal("to port", DATA_PORT.to_string(), list(&to));
        let back = self.data(mark, (RTR, NAT));
        let from: BTreeSet<u16> = back.iter().map(|(from, _)| *from).collect();
        checks.equal("UDP source port of data to it", CONTROL_PORT.to_string(), list(&from));
        let to: BTreeSet<u16> = back.iter().map(|(_, to)| *to).collect();
        let bound: BTreeSet<u16> = self.binding(CONTROL_PORT).into_iter().collect();
        checks.equal("to the port of its Map-Registers", list(&bound), list(&to));
        Ok(())
    }

    /// Ports from and to, of LISP packets between these two.
    fn data(&self, mark: Mark, (from, to): (IpAddr, IpAddr)) -> Vec<(u16, u16)> {
        let ports = |packet: &Datagram| {
            let udp = packet.udp()?;
            let is_map_register = udp.destination_port == CONTROL_PORT;
            let is_it = (packet.source, packet.destination) == (from, to) && !is_map_register;
            // A Data-Map-Notify is shorter than the pings are long.
            (is_it && packet.length == OUTER + 100)
                .then_some((udp.source_port, udp.destination_port))
        };
        self.core.datagrams_since(mark).iter().filter_map(ports).collect()
    }

    /// NT-10: what the NAT would forget, the Map-Registers keep.
    fn kept_open(&self, checks: &mut Checks) -> io::Result<()> {
        let before = self.binding(CONTROL_PORT);
        thread::sleep(2 * NAT_FORGETS);
        let kept = before.is_some() && self.binding(CONTROL_PORT) == before;
        let seconds = 2 * NAT_FORGETS.as_secs();
        let text =
            format!("the binding after {seconds} s without data, in a NAT that forgets after 3");
        checks.that(text, "the same", if kept { "the same" } else { "another, or none" }, kept);
        let first = ping(&self.hosts[1], Header::new(B[0], A[0]), 100, FIRST_LIMIT)?;
        checks.that("host B to host A then", "a reply", first, first.is_reply());
        Ok(())
    }

    /// The NAT loses its memory, and gives other ports from then on.
    fn moved(&self, checks: &mut Checks) -> io::Result<()> {
        let before = self.binding(CONTROL_PORT);
        self.relay.nat(Nat::forget);
        let begin = Instant::now();
        let header = Header::new(B[0], A[0]);
        let back = wait_for(LIMIT, || {
            Ok(ping(&self.hosts[1], header, 100, Duration::from_millis(50))?.is_reply())
        })?;
        let took = begin.elapsed();
        let text = "the NAT forgets everything: host B reaches host A again";
        let observed = format!("{:.1} s", took.as_secs_f64());
        // Half a second for the machine.
        let within = KEEPALIVE + Duration::from_millis(500);
        checks.that(text, "within one keepalive, 1 s", observed, back && took <= within);
        let after = self.binding(CONTROL_PORT);
        let differs = after.is_some() && after != before;
        checks.that("by another port", "yes", if differs { "yes" } else { "no" }, differs);
        let here: BTreeSet<_> =
            self.sites()?.iter().map(|site| Some(site.translated.port())).collect();
        let told = here.len() == 1 && here.contains(&after);
        checks.that("which the RTR knows", "yes", if told { "yes" } else { "no" }, told);
        Ok(())
    }

    /// Who has no key learns nothing and changes nothing.
    fn forged(&self, checks: &mut Checks) -> io::Result<()> {
        let key = Secret::new(b"somebody's guess".to_vec());
        let prefix =
            EidPrefix::new(InstanceId::DEFAULT, A_PREFIX4.parse().map_err(io::Error::other)?);
        let authentication =
            AuthenticationData::zeroed(1, Algorithm::HmacSha256Hkdf.id(), auth::MAC_LEN);
        let (eid, sender) = (EidField::from(prefix), Address::None);
        let request = InfoRequest {
            nonce: 1,
            authentication: authentication.clone(),
            ttl_minutes: 0,
            eid,
            sender,
        };
        let (refused, answered) = ("authentication_failed", "info_replies_sent");
        let before = (self.ms.drops(refused)?, self.ms.counter(answered)?);
        self.send(MS, &signed(Message::InfoRequest(request), &key)?)?;
        let seen = wait_for(LIMIT, || Ok(self.ms.drops(refused)? > before.0))?;
        let text = "an Info-Request without the site's key: refused, and counted";
        checks.that(text, "yes", if seen { "yes" } else { "no" }, seen);

        let sites = self.places()?;
        let before = (self.ms.drops(refused)?, self.rtr.counter("map_registers_relayed")?);
        let locators = vec![LocatorRecord::new(RTR, 1, 100)];
        let register = MapRegister {
            want_map_notify: true,
            authentication,
            records: vec![EidRecord::new(prefix, 3, locators)],
            identity: Some(XtrIdentity { xtr_id: 0xa1, site_id: 1 }),
            ..MapRegister::new(u64::MAX - 1)
        };
        let ecm = EncapsulatedControlMessage {
            to_rtr: true,
            ..EncapsulatedControlMessage::new(
                SocketAddr::new(XTR_A, CONTROL_PORT),
                SocketAddr::new(MS, CONTROL_PORT),
                signed(Message::MapRegister(register), &key)?,
            )
        };
        self.send(RTR, &Message::Encapsulated(ecm).to_vec())?;
        let seen = wait_for(LIMIT, || Ok(self.ms.drops(refused)? > before.0))?;
        let relayed = self.rtr.counter("map_registers_relayed")? > before.1;
        let text = "a forged Map-Register through the RTR: relayed, and refused by the Map-Server";
        checks.that(text, "yes", if seen && relayed { "yes" } else { "no" }, seen && relayed);
        checks.equal("where the RTR sends A's packets", sites, self.places()?);
        let first = ping(&self.hosts[1], Header::new(B[1], A[1]), 100, FIRST_LIMIT)?;
        checks.that("host B to host A then", "a reply", first, first.is_reply());
        Ok(())
    }

    /// Nobody keeps the way open any more.
    fn ended(&self, checks: &mut Checks) -> io::Result<()> {
        let gone = wait_for(LIMIT, || Ok(self.sites()?.is_empty()))?;
        let text = "the xTR is killed: the RTR forgets it";
        let expected = format!("within {} s", RTR_FORGETS.as_secs());
        checks.that(text, expected, if gone { "yes" } else { "no" }, gone);
        Ok(())
    }

    fn send(&self, to: IpAddr, message: &[u8]) -> io::Result<()> {
        let packet = craft::udp(&Header::new(OUTSIDE, to), (40_000, CONTROL_PORT), message, true);
        craft::send(&self.outside, packet, to)
    }

    /// The outside port of the xTR's port 4341 towards this port of the RTR.
    fn binding(&self, port: u16) -> Option<u16> {
        let IpAddr::V4(rtr) = RTR else { return None };
        self.relay.nat(|nat| nat.port_of(DATA_PORT, (rtr, port))).flatten()
    }

    fn own(&self) -> io::Result<Option<NatRlocView>> {
        let view: NatView = serde_json::from_value(self.xtr_a.ask(&Query::Nat)?)?;
        Ok(view.rlocs.into_iter().next())
    }

    fn sites(&self) -> io::Result<Vec<NatSiteView>> {
        let view: NatView = serde_json::from_value(self.rtr.ask(&Query::Nat)?)?;
        Ok(view.sites)
    }

    fn places(&self) -> io::Result<String> {
        let places = self.sites()?;
        let places: Vec<_> =
            places.iter().map(|site| format!("{} at {}", site.prefix, site.translated)).collect();
        Ok(places.join(", "))
    }
}

/// Octets around the inner packet: IPv4, UDP, LISP.
const OUTER: usize = 36;

fn signed(message: Message, key: &Secret) -> io::Result<Vec<u8>> {
    let mut octets = message.to_vec();
    auth::sign_covering(&mut octets, key, Algorithm::HmacSha256Hkdf, auth::Covered::Message)
        .map_err(io::Error::other)?;
    Ok(octets)
}

fn list(ports: &BTreeSet<u16>) -> String {
    let ports: Vec<_> = ports.iter().map(u16::to_string).collect();
    ports.join(" and ")
}
