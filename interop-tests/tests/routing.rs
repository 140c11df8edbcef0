//! FRR and BIRD take the EID aggregates over from a gateway, with the snippets of `configs/`, and a neighbour that runs the other of the two
//! sends native traffic there as long as the gateway serves it: RFC 6832 §5.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::link;
use interop_tests::daemon::Daemon;
use interop_tests::routing::network::{
    Network, aggregates, gateway_config, legs, native, native_host, site_host,
};
use interop_tests::routing::stream::{Delivery, Stream};
use interop_tests::routing::way::{Change, WayWatch, way_of};
use interop_tests::routing::{Program, Router};
use interop_tests::site::or_skip;
use nix::sys::signal::Signal;

/// How long sessions and routes may take to come up: FRR waits for seconds before it tries again.
const PATIENCE: Duration = Duration::from_secs(150);
/// How long there must be no news until everything is taken to be in its place.
const QUIET: Duration = Duration::from_secs(1);
/// What the product promises: a gateway that ends or dies attracts nothing any more after this.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// What a failure of one of two gateways may cost beyond what the neighbour needs to see it.
const BEYOND_DETECTION: Duration = Duration::from_millis(50);
/// The routing protocol number of the gateway's routes and rules.
const PROTOCOL: u8 = 204;

/// One network at a time: a stream of a thousand packets a second wants its share of the machine.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
fn pi_01_pi_16_frr_announces_the_aggregates_as_long_as_the_gateway_serves_them() {
    hand_over(Program::Frr, Program::Bird);
}

#[test]
fn pi_01_pi_16_bird_announces_the_aggregates_as_long_as_the_gateway_serves_them() {
    hand_over(Program::Bird, Program::Frr);
}

fn hand_over(beside: Program, neighbour: Program) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !beside.installed() || !neighbour.installed() {
        return;
    }
    let Some(network) = or_skip(Network::build(1)) else { return };
    let stage = Stage::set(network, &[beside], neighbour);
    native_traffic_enters_through_the_aggregate(&stage);
    a_reload_withdraws_nothing(&stage);
    a_drain_withdraws_first_and_forwards_what_still_comes(stage, beside);
}

fn native_traffic_enters_through_the_aggregate(stage: &Stage) {
    assert_eq!(stage.neighbour.prefixes().expect("routes"), BTreeSet::from(aggregates()));
    // The first packets have the site's router ask for the way back.
    let first = stage.during(|| thread::sleep(Duration::from_millis(300)));
    assert!(first.iter().all(|delivery| delivery.unanswered() < delivery.sent()));
    let [delivery4, delivery6] = stage.during(|| thread::sleep(Duration::from_millis(500)));
    for delivery in [delivery4, delivery6] {
        assert!(delivery.sent() > 100, "{}", delivery.sent());
        assert_eq!((delivery.lost(), delivery.unanswered()), (0, 0));
    }
}

/// One that changes something, and one that changes nothing.
fn a_reload_withdraws_nothing(stage: &Stage) {
    let updates = stage.neighbour.updates().expect("updates");
    let watch = stage.watch();
    let deliveries = stage.during(|| {
        let gateway = &stage.gateways[0];
        let config = gateway_config(0);
        let changed = config.replace("[petr]", "reject-source-in-aggregates = false\n[petr]");
        for (config, keys) in [(&changed, 1), (&config, 1), (&config, 0)] {
            let taken_over = gateway.reload(config).expect("a reload");
            assert_eq!(taken_over.len(), keys, "{taken_over:?}");
            thread::sleep(Duration::from_millis(300));
        }
    });
    let changes = watch.finish().expect("changes");
    assert!(changes.is_empty(), "{changes:?}");
    let after = stage.neighbour.updates().expect("updates");
    let lost: Vec<_> = deliveries.iter().map(|one| (one.lost(), one.unanswered())).collect();
    println!(
        "reload: {} updates or withdrawals, {lost:?} of {} packets lost",
        after - updates,
        deliveries[0].sent() + deliveries[1].sent()
    );
    assert_eq!((updates, lost), (after, vec![(0, 0); 2]));
}

fn a_drain_withdraws_first_and_forwards_what_still_comes(mut stage: Stage, beside: Program) {
    let watch = stage.watch();
    let mut begin = Instant::now();
    let deliveries = stage.during(|| {
        begin = Instant::now();
        stage.gateways[0].signal(Signal::SIGTERM).expect("a signal");
        thread::sleep(WITHDRAWAL + Duration::from_millis(200));
    });
    let ended = stage.gateways[0].wait().expect("an end");
    assert!(ended.success(), "{}", stage.gateways[0].log());
    let gone = withdrawn(&watch.finish().expect("changes"), begin);
    let lost: Vec<_> =
        deliveries.iter().zip(&gone).map(|(d, gone)| d.lost_before(gone.before)).collect();
    println!(
        "{beside:?}: withdrawn {:?} after SIGTERM, {lost:?} lost until then",
        since(&gone, begin)
    );
    assert_eq!(lost, [0, 0]);
    let native = &stage.network.gateways[0];
    assert_eq!(link::routes_of_protocol(native, PROTOCOL).expect("routes"), []);
    assert_eq!(link::rules_of_protocol(native, PROTOCOL).expect("rules"), 0);

    stage.gateways[0] = stage.network.start_gateway(0).expect("the gateway starts again");
    stage.wait_for_routes(2);
    let watch = stage.watch();
    let begin = Instant::now();
    stage.gateways[0].signal(Signal::SIGKILL).expect("a signal");
    thread::sleep(WITHDRAWAL);
    let gone = withdrawn(&watch.finish().expect("changes"), begin);
    println!("{beside:?}: withdrawn {:?} after kill -9", since(&gone, begin));
    assert_eq!(stage.neighbour.prefixes().expect("routes"), BTreeSet::new());
}

#[test]
fn pi_11_one_of_two_gateways_dies_and_the_other_takes_over() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !Program::Frr.installed() || !Program::Bird.installed() {
        return;
    }
    // What BIRD announces has a better origin than what FRR does: where it takes part, the gateway in use is beside it.
    for (beside, neighbour) in [
        ([Program::Frr, Program::Bird], Program::Frr),
        ([Program::Frr, Program::Frr], Program::Bird),
    ] {
        let Some(network) = or_skip(Network::build(2)) else { return };
        let mut stage = Stage::set(network, &beside, neighbour);
        for _ in 0..2 {
            stage.kill_the_gateway_in_use();
        }
        stage.hang_the_host_in_use();
        stage.drain_the_gateway_in_use();
    }
}

/// Everything that runs.
struct Stage {
    gateways: Vec<Daemon>,
    /// Beside the gateways.
    routers: Vec<Router>,
    neighbour: Router,
    network: Network,
}

impl Stage {
    /// A gateway with each of `beside`, all announcing.
    fn set(network: Network, beside: &[Program], neighbour: Program) -> Self {
        let legs = legs(beside.len());
        let config = neighbour.neighbour(&legs, &native());
        let neighbour = neighbour.start(&network.internet, &config).expect("the neighbour");
        let routers =
            beside.iter().zip(&legs).zip(&network.gateways).map(|((program, leg), host)| {
                let snippet = program.snippet(leg).expect("a snippet");
                program.start(host, &snippet).expect("the routing daemon")
            });
        let routers: Vec<Router> = routers.collect();
        let gateways = (0..beside.len()).map(|at| network.start_gateway(at).expect("a gateway"));
        let stage = Self { gateways: gateways.collect(), routers, neighbour, network };
        stage.wait_for_routes(2 * beside.len());
        stage.warm_up();
        stage
    }

    /// Waits until the neighbour has so many routes, and packets go both ways, and nothing moves any more.
    fn wait_for_routes(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        let there = || -> io::Result<bool> {
            let found = self.neighbour.routes()?.len();
            let back = self.routers.iter().map(Router::prefixes).collect::<io::Result<Vec<_>>>()?;
            let back = back.iter().all(|prefixes| *prefixes == BTreeSet::from(native()));
            Ok(found == count && back && site_host().iter().all(|to| self.way(*to).is_some()))
        };
        let mut before = (None, Instant::now());
        while before.0.is_none() || before.1.elapsed() < QUIET {
            let now = there().expect("answers").then(|| self.neighbour.updates().expect("updates"));
            if now != before.0 {
                before = (now, Instant::now());
            }
            assert!(Instant::now() < deadline, "{}", self.state());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Has every gateway know the site's mappings: what a takeover costs is to be seen, not what a look-up costs on a busy machine.
    fn warm_up(&self) {
        for (host, gateway) in self.network.gateways.iter().zip(&self.gateways) {
            let deadline = Instant::now() + PATIENCE;
            while gateway.counter("map_cache_entries").expect("an answer") < 2 {
                let send = || {
                    for to in site_host() {
                        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                        UdpSocket::bind(any)?.send_to(b"", (to, 9))?;
                    }
                    io::Result::Ok(())
                };
                host.run(send).expect("a namespace").expect("a datagram");
                assert!(Instant::now() < deadline, "{}", gateway.log());
                thread::sleep(Duration::from_millis(100));
            }
        }
    }

    /// For people.
    fn state(&self) -> String {
        let of = |router: &Router| {
            let sessions = router.sessions().unwrap_or_else(|error| error.to_string());
            format!("{:?}: {:?}\n{sessions}\n{}", router.program(), router.routes(), router.log())
        };
        let beside: String = self.routers.iter().map(of).collect();
        let ways = site_host().map(|to| self.way(to));
        format!("beside: {beside}\nneighbour: {}\nways: {ways:?}", of(&self.neighbour))
    }

    fn way(&self, to: IpAddr) -> Option<IpAddr> {
        way_of(&self.network.internet, to).expect("a way")
    }

    fn watch(&self) -> WayWatch {
        WayWatch::start(&self.network.internet, site_host()).expect("a watch")
    }

    /// Sends from the native host to the site, IPv4 and IPv6, while `work` is done.
    fn during(&self, work: impl FnOnce()) -> [Delivery; 2] {
        let streams = [0, 1].map(|family| {
            let from = (&self.network.host, native_host()[family]);
            let to = (&self.network.site, site_host()[family]);
            Stream::start(from, to).expect("a stream")
        });
        thread::sleep(Duration::from_millis(200));
        work();
        streams.map(|stream| stream.finish().expect("what arrived"))
    }
    /// The gateway that the neighbour sends IPv4 packets to.
    fn in_use(&self) -> usize {
        let with = self.way(site_host()[0]).expect("a way");
        let at = legs(2).iter().position(|leg| leg.neighbour4 == with);
        at.expect("one of the gateways")
    }

    fn kill_the_gateway_in_use(&mut self) {
        let at = self.in_use();
        self.fail("kill -9", at, |gateway, _| gateway.signal(Signal::SIGKILL));
        self.gateways[at] = self.network.start_gateway(at).expect("the gateway starts again");
        self.wait_for_routes(4);
        self.warm_up();
    }

    /// Nothing is closed, nothing says a word any more: only BFD can see that.
    fn hang_the_host_in_use(&mut self) {
        let at = self.in_use();
        self.fail("a host that hangs", at, |gateway, router| {
            gateway.signal(Signal::SIGSTOP)?;
            router.hang(true)
        });
        self.gateways[at].signal(Signal::SIGCONT).expect("a signal");
        self.routers[at].hang(false).expect("signals");
        self.wait_for_routes(4);
        self.warm_up();
    }

    /// The other gateway takes over, later only by what the neighbour needs to see the failure.
    fn fail(&self, what: &str, at: usize, fail: impl FnOnce(&Daemon, &Router) -> io::Result<()>) {
        let watch = self.watch();
        let mut begin = Instant::now();
        let deliveries = self.during(|| {
            begin = Instant::now();
            fail(&self.gateways[at], &self.routers[at]).expect("a failure");
            thread::sleep(Duration::from_millis(1500));
        });
        let changes = watch.finish().expect("changes");
        for (to, delivery) in site_host().into_iter().zip(&deliveries) {
            // The families may be with different gateways, and then only one is hit.
            let moved = changes.iter().filter(|change| change.to == to && change.with.is_some());
            let detection = moved.map(|change| change.at - begin).max().unwrap_or_default();
            let outage = delivery.outage();
            println!(
                "{what} beside {:?}, neighbour {:?}: to {to} outage {outage:?} ({} of {} packets), another way after {detection:?}",
                self.routers[at].program(),
                self.neighbour.program(),
                delivery.lost(),
                delivery.sent()
            );
            assert!(outage <= detection + BEYOND_DETECTION, "{outage:?} > {detection:?} + 50 ms");
            assert!(detection <= WITHDRAWAL, "{detection:?}");
        }
    }

    /// Nobody notices.
    fn drain_the_gateway_in_use(&mut self) {
        let at = self.in_use();
        let watch = self.watch();
        let begin = Instant::now();
        let deliveries = self.during(|| {
            self.gateways[at].signal(Signal::SIGTERM).expect("a signal");
            thread::sleep(Duration::from_secs(3));
        });
        let changes = watch.finish().expect("changes");
        let moved = changes.iter().any(|change| change.with.is_some());
        assert!(moved && self.gateways[at].wait().expect("an end").success());
        let lost: Vec<_> = deliveries.iter().map(Delivery::lost).collect();
        println!("drain beside {:?}: {lost:?} packets lost", self.routers[at].program());
        let when = deliveries.iter().map(|delivery| delivery.losses(begin));
        assert_eq!(lost, [0, 0], "{:?} {changes:?}", when.collect::<Vec<_>>());
    }
}

/// The change by which each of the site's addresses had no way any more.
fn withdrawn(changes: &[Change], begin: Instant) -> [Change; 2] {
    site_host().map(|to| {
        let gone = changes.iter().find(|change| change.to == to && change.with.is_none());
        let gone = gone.unwrap_or_else(|| panic!("{to} has a way: {changes:?}"));
        assert!(gone.at - begin <= WITHDRAWAL, "{to} had a way for {:?}", gone.at - begin);
        *gone
    })
}

fn since(changes: &[Change; 2], begin: Instant) -> [Duration; 2] {
    changes.map(|change| change.at - begin)
}
