//! The task that watches the links: sockets, kernel and lease files in, hosts seen out; routes and answers as it is told.
use super::frames::{self, Mac, Saying};
use super::gateway_mac::{GatewayLink, Gateways, station};
use super::host_routes::HostRoutes;
use super::leases::{self, LeaseFile, News};
use super::neighbours::{self, Neighbours, Reachable};
use super::responder::{Action, Place, Responder, Segment};
use super::sightings::{Sightings, Verdict, Watched};
use super::{Change, Counters, LanConfig, Range, Seen, Sign};
use crate::engine::link_socket::{LinkProtocol, LinkSocket};
use ipnet::IpNet;
use rtnetlink::Handle;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

/// Octets of a frame that are read; ARP and Neighbor Discovery need less.
const FRAME: usize = 512;
/// Frames waiting; what comes beyond waits, and is dropped, in the sockets.
const QUEUE: usize = 512;
/// After an error of a socket: its interface is down.
const PAUSE: Duration = Duration::from_millis(200);
/// How many hosts that were here before us are asked whether they still are.
const MAX_REMEMBERED: usize = 1024;

/// The other sides of the channels.
pub(super) struct Ends {
    pub(super) seen: mpsc::Sender<Seen>,
    pub(super) changes: mpsc::Receiver<Change>,
    pub(super) renewals: mpsc::Receiver<Renewal>,
    pub(super) counters: Arc<Counters>,
}

/// Another setup, and whom to tell that it is in force.
pub(super) struct Renewal {
    pub(super) setup: Box<Setup>,
    pub(super) done: oneshot::Sender<()>,
}

/// A site interface.
#[derive(Debug)]
struct Link {
    index: u32,
    name: String,
    /// Where routes to its hosts lead: its gateway, or itself.
    towards_hosts: u32,
    /// What we speak as.
    mac: Mac,
    /// The addresses we ask from.
    own: Vec<IpAddr>,
    link_local: Option<IpAddr>,
    arp: Arc<LinkSocket>,
    discovery: Arc<LinkSocket>,
}

/// What the configuration makes of the links: everything is open and listens.
pub(super) struct Setup {
    links: Vec<Link>,
    ranges: Vec<Range>,
    segments: Vec<Segment>,
    sightings: Sightings,
    leases: mpsc::Receiver<io::Result<News>>,
    frames: mpsc::Receiver<(u32, Saying)>,
    neighbours: Neighbours,
    remembered: Vec<Reachable>,
    _readers: JoinSet<()>,
}

impl Setup {
    pub(super) async fn open(
        handle: &Handle,
        config: &LanConfig,
        gateways: &Gateways,
        counters: &Arc<Counters>,
    ) -> io::Result<Self> {
        let used: Vec<&GatewayLink> = gateways.of(&config.gateways).collect();
        let mut links = Vec::new();
        for range in &config.ranges {
            for name in &range.interfaces {
                if links.iter().all(|link: &Link| link.name != *name) {
                    links.push(open(handle, name, &used).await?);
                }
            }
        }
        let (sender, frames) = mpsc::channel(QUEUE);
        let mut readers = JoinSet::new();
        for link in &links {
            for socket in [&link.arp, &link.discovery] {
                let (socket, counters) = (Arc::clone(socket), Arc::clone(counters));
                readers.spawn(read(socket, link.index, sender.clone(), counters));
            }
        }
        let indexes: Vec<u32> =
            links.iter().flat_map(|link| [link.index, link.towards_hosts]).collect();
        Ok(Self {
            sightings: Sightings::new(
                config.ranges.iter().map(|range| watched(range, &links)).collect(),
                gateways.links().iter().map(|gateway| gateway.config.mac).collect(),
            ),
            segments: segments(config, &links, &used),
            leases: leases::follow(config.leases.iter().map(|p| LeaseFile::new(p)).collect())?,
            neighbours: Neighbours::listen(indexes.clone())?,
            remembered: neighbours::remembered(handle, &indexes).await?,
            ranges: config.ranges.clone(),
            links,
            frames,
            _readers: readers,
        })
    }
}

/// Everything that the task owns.
pub(super) struct Watch {
    setup: Setup,
    responder: Responder,
    routes: HostRoutes,
    ends: Ends,
}

impl Watch {
    pub(super) async fn begin(
        handle: Handle,
        config: &LanConfig,
        gateways: &Gateways,
        (tun, ends): (u32, Ends),
    ) -> io::Result<Self> {
        let mut setup = Setup::open(&handle, config, gateways, &ends.counters).await?;
        let prefixes: Vec<IpNet> = config.ranges.iter().map(|range| range.prefix).collect();
        Ok(Self {
            responder: Responder::new(std::mem::take(&mut setup.segments)),
            routes: HostRoutes::begin(handle, tun, &prefixes).await?,
            setup,
            ends,
        })
    }

    /// Until nobody sends changes any more; then every route is removed.
    pub(super) async fn run(mut self) {
        self.ask_remembered(&[]);
        loop {
            self.renew_if_told().await;
            let due = self.responder.poll_timeout();
            let timeout = async {
                match due {
                    Some(due) => tokio::time::sleep_until(due.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(renewal) = self.ends.renewals.recv() => self.renew(renewal).await,
                change = self.ends.changes.recv() => match change {
                    Some(change) => {
                        // What concerns new links was sent after them.
                        self.renew_if_told().await;
                        self.apply(change).await;
                    }
                    None => break,
                },
                Some((interface, saying)) = self.setup.frames.recv() => self.heard(interface, &saying),
                reachable = self.setup.neighbours.next() => self.reachable(reachable),
                Some(news) = self.setup.leases.recv() => self.take_leases(news),
                () = timeout => self.responder.handle_timeout(Instant::now()),
            }
            self.act();
        }
        self.routes.remove_all().await;
    }

    async fn renew_if_told(&mut self) {
        while let Ok(renewal) = self.ends.renewals.try_recv() {
            self.renew(renewal).await;
        }
    }

    /// Takes another setup over. Hosts that are here stay, by the gateway that their interface has now, if any.
    async fn renew(&mut self, Renewal { setup, done }: Renewal) {
        let before = std::mem::replace(&mut self.setup, *setup);
        self.responder.set_segments(std::mem::take(&mut self.setup.segments));
        for (address, at) in self.routes.hosts() {
            let link = before.links.iter().find(|link| link.towards_hosts == at);
            let now = link
                .and_then(|link| self.setup.links.iter().find(|now| now.name == link.name))
                .filter(|now| now.towards_hosts != at);
            if let Some(now) = now
                && let Err(error) = self.routes.here(address, now.towards_hosts).await
            {
                Counters::count(&self.ends.counters.failures);
                tracing::warn!(%error, "cannot follow a host");
            }
        }
        self.ask_remembered(&before.ranges);
        // Whoever waited may be gone by now.
        let _ = done.send(());
    }

    /// Asks for the hosts that were there before us, but for those of ranges that were looked after already.
    fn ask_remembered(&mut self, known: &[Range]) {
        let remembered = std::mem::take(&mut self.setup.remembered);
        let is_known =
            |host: &Reachable| known.iter().any(|range| range.prefix.contains(&host.address));
        for host in remembered.into_iter().filter(|host| !is_known(host)).take(MAX_REMEMBERED) {
            self.ask(host.address, None);
        }
    }

    fn heard(&mut self, interface: u32, saying: &Saying) {
        let now = Instant::now();
        self.responder.handle_input(now, interface, saying);
        let host = (saying.has, Some(saying.mac));
        let verdict = self.setup.sightings.handle_input(now, interface, host, saying.to_one);
        self.pass_on(verdict, interface, saying.has);
    }

    /// The kernel asked the host itself, which answered.
    fn reachable(&mut self, Reachable { interface, address }: Reachable) {
        let of = |link: &&Link| link.index == interface || link.towards_hosts == interface;
        let Some(interface) = self.setup.links.iter().find(of).map(|link| link.index) else {
            return;
        };
        self.responder.heard(address);
        let now = Instant::now();
        let verdict = self.setup.sightings.handle_input(now, interface, (address, None), true);
        self.pass_on(verdict, interface, address);
    }

    fn pass_on(&mut self, verdict: Verdict, interface: u32, address: IpAddr) {
        let counters = &self.ends.counters;
        match verdict {
            Verdict::Seen => {
                let link = self.setup.links.iter().find(|link| link.index == interface);
                let interface = link.map(|link| link.name.clone());
                let seen = Seen { interface, address, sign: Sign::Neighbour };
                match self.ends.seen.try_send(seen) {
                    Ok(()) => Counters::count(&counters.heard),
                    Err(_) => {
                        Counters::count(&counters.too_many);
                        self.setup.sightings.forget(address);
                    }
                }
            }
            Verdict::TooMany => Counters::count(&counters.too_many),
            Verdict::Other | Verdict::Known => {}
        }
    }

    async fn apply(&mut self, change: Change) {
        let now = Instant::now();
        let outcome = match change {
            Change::Here(address, interfaces) => {
                self.responder.set_place(now, address, Some(Place::Here));
                let at = interfaces.iter().find_map(|name| {
                    let link = self.setup.links.iter().find(|link| link.name == *name)?;
                    Some(link.towards_hosts)
                });
                match at {
                    Some(interface) => self.routes.here(address, interface).await,
                    None => Ok(()),
                }
            }
            Change::Away(address) => {
                self.setup.sightings.forget(address);
                let routed = self.routes.away(address).await;
                self.responder.set_place(now, address, Some(Place::Away));
                routed
            }
            Change::Forget(address) => {
                self.setup.sightings.forget(address);
                self.responder.set_place(now, address, None);
                self.routes.remove(address).await;
                Ok(())
            }
            Change::Probe(address, interfaces) => {
                self.ask(address, Some(&interfaces));
                Ok(())
            }
        };
        if let Err(error) = outcome {
            Counters::count(&self.ends.counters.failures);
            tracing::warn!(%error, "cannot follow a host");
        }
    }

    /// Does what the responder wants done.
    fn act(&mut self) {
        while let Some(action) = self.responder.poll_action() {
            match action {
                Action::Look(address) => self.ask(address, None),
                Action::Answer { interface, gateway, address, asker } => {
                    let link = self.setup.links.iter().find(|link| link.index == interface);
                    let frame = frames::answer(gateway, address, asker);
                    if let (Some(link), Some(frame)) = (link, frame) {
                        link.send(address, &frame);
                        Counters::count(&self.ends.counters.answers);
                    }
                }
            }
        }
    }

    /// Asks for a host: on these interfaces, or wherever it may be.
    fn ask(&self, address: IpAddr, interfaces: Option<&[String]>) {
        let Some(range) = self.setup.ranges.iter().find(|range| range.prefix.contains(&address))
        else {
            return;
        };
        let named = interfaces.unwrap_or(&range.interfaces);
        for link in self.setup.links.iter().filter(|link| named.contains(&link.name)) {
            let frame =
                link.asks_from(address).and_then(|own| frames::question(link.mac, own, address));
            if let Some(frame) = frame {
                link.send(address, &frame);
            }
        }
    }

    fn take_leases(&mut self, news: io::Result<News>) {
        match news {
            Ok(news) => {
                for address in news.found.into_iter().take(MAX_REMEMBERED) {
                    self.ask(address, None);
                }
                for address in news.granted {
                    self.granted(address);
                }
            }
            Err(error) => {
                Counters::count(&self.ends.counters.failures);
                tracing::warn!(%error, "cannot read the leases of the DHCP server");
            }
        }
    }

    fn granted(&mut self, address: IpAddr) {
        let Some(range) = self.setup.ranges.iter().find(|range| range.prefix.contains(&address))
        else {
            return;
        };
        let interface = match range.interfaces.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        };
        let seen = Seen { interface, address, sign: Sign::Lease };
        if self.ends.seen.try_send(seen).is_err() {
            Counters::count(&self.ends.counters.too_many);
        }
    }
}

impl Link {
    fn send(&self, about: IpAddr, frame: &[u8]) {
        let socket = if about.is_ipv4() { &self.arp } else { &self.discovery };
        // What does not go is asked or answered again.
        if let Err(error) = socket.send(frame) {
            tracing::debug!(%error, interface = self.name, "frame not sent");
        }
    }

    /// The address that a question for `target` comes from; an IPv4 one may be missing.
    fn asks_from(&self, target: IpAddr) -> Option<IpAddr> {
        if target.is_ipv6() {
            return self.link_local;
        }
        let own = self.own.iter().copied().find(IpAddr::is_ipv4);
        Some(own.unwrap_or(Ipv4Addr::UNSPECIFIED.into()))
    }
}

async fn open(handle: &Handle, name: &str, gateways: &[&GatewayLink]) -> io::Result<Link> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let socket = |protocol| -> io::Result<_> {
        let socket = LinkSocket::open(index, protocol).map_err(|error| {
            io::Error::new(error.kind(), format!("listen for hosts on {name}: {error}"))
        })?;
        Ok(Arc::new(socket))
    };
    let gateway = gateways.iter().find(|gateway| gateway.config.interface == name);
    let (mac, link_local) = match gateway {
        Some(gateway) => (gateway.config.mac, Some(IpAddr::from(gateway.config.mac.link_local()))),
        None => station(handle, index).await?,
    };
    Ok(Link {
        index,
        name: name.to_owned(),
        towards_hosts: gateway.map_or(index, |gateway| gateway.index),
        mac,
        own: gateway.map(|gateway| gateway.config.addresses.clone()).unwrap_or_default(),
        link_local,
        arp: socket(LinkProtocol::Arp)?,
        discovery: socket(LinkProtocol::NeighbourDiscovery)?,
    })
}

fn watched(range: &Range, links: &[Link]) -> Watched {
    let on = links.iter().filter(|link| range.interfaces.contains(&link.name));
    Watched {
        range: range.prefix,
        interfaces: on.map(|link| link.index).collect(),
        extended: range.extended,
    }
}

fn segments(config: &LanConfig, links: &[Link], gateways: &[&GatewayLink]) -> Vec<Segment> {
    let mut segments = Vec::new();
    for range in config.ranges.iter().filter(|range| !range.extended) {
        for gateway in gateways {
            let name = &gateway.config.interface;
            let link = links.iter().find(|link| link.name == *name);
            if let Some(link) = link.filter(|_| range.interfaces.contains(name)) {
                segments.push(Segment {
                    range: range.prefix,
                    interface: link.index,
                    gateway: gateway.config.mac,
                    addresses: gateway.config.addresses.clone(),
                    at_home: range.at_home,
                });
            }
        }
    }
    segments
}

/// Reads a socket as long as anybody wants what it says.
async fn read(
    socket: Arc<LinkSocket>,
    interface: u32,
    queue: mpsc::Sender<(u32, Saying)>,
    counters: Arc<Counters>,
) {
    let mut buffer = [0; FRAME];
    loop {
        let Ok(length) = socket.receive(&mut buffer).await else {
            // The interface is down; it may come back.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let Some(said) = frames::parse(&buffer[..length]) else { continue };
        let Ok(saying) = said else {
            Counters::count(&counters.not_sane);
            continue;
        };
        if queue.send((interface, saying)).await.is_err() {
            return;
        }
    }
}
