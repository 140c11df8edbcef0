//! A core with a member behind a wire with a length: needs the right to make namespaces.

use std::net::IpAddr;
use std::time::Duration;

use super::*;
use crate::lab::probe::craft::Header;
use crate::lab::probe::ping::{Answer, ping};
use crate::lab::probe::session::Session;
use crate::lab::probe::stream::Stream;
use crate::lab::relay::Way;

const LIMIT: Duration = Duration::from_secs(2);
const DELAY: Duration = Duration::from_millis(25);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A network without daemons, or a word on why this test is skipped.
fn network(build: fn(&mut Network) -> io::Result<()>) -> Option<Network> {
    if let Err(error) = Namespace::create("probe") {
        println!("SKIP: no network namespace can be made here: {error}");
        return None;
    }
    let mut network = Network {
        daemons: Daemons::none_unwatched(),
        started: Vec::new(),
        relays: Vec::new(),
        captures: Vec::new(),
        namespaces: Vec::new(),
        accesses: Vec::new(),
        pcap: None,
    };
    build(&mut network).unwrap();
    Some(network)
}

fn build(network: &mut Network) -> io::Result<()> {
    let core = network.core("core", address("10.255.255.254"), address("2001:db8:c0::ffff"))?;
    let a = network.router("a")?;
    let rlocs = [address("10.1.1.1"), address("2001:db8:c0::1")];
    network.access(&core, &a, Access::of(&a, "core0", &rlocs))?;
    let b = network.router("b")?;
    let p = [address("10.2.1.1"), address("2001:db8:c0::2")];
    let p = Access { at_core: "b-p", at_router: "isp-p", rlocs: &p };
    network.access_through_relay(&core, &b, p)?;
    let q = Access { at_core: "b-q", at_router: "isp-q", rlocs: &[address("10.2.1.2")] };
    network.access(&core, &b, q)?;
    Ok(())
}

#[test]
fn a_wire_has_the_length_it_is_given_and_loses_what_it_is_told_to() {
    let Some(network) = network(build) else { return };
    let (a, b) = (network.namespace("a").unwrap(), network.namespace("b").unwrap());
    let relay = network.relay_to("b-p").unwrap();
    for (from, to) in [("10.1.1.1", "10.2.1.1"), ("2001:db8:c0::1", "2001:db8:c0::2")] {
        relay.delay(Duration::ZERO);
        let header = Header::new(address(from), address(to));
        assert!(ping(&a, header, 1400, LIMIT).unwrap().is_reply());
        relay.delay(DELAY);
        let Answer::Reply(after) = ping(&a, header, 1400, LIMIT).unwrap() else {
            panic!("no reply of {to}");
        };
        assert!(after >= 2 * DELAY, "{after:?}");
        relay.delay(Duration::ZERO);
        relay.blackhole(address(to));
        assert_eq!(ping(&a, header, 100, DELAY).unwrap(), Answer::Nothing);
        relay.restore(address(to));
        let lost = relay.lose(1, |_, packet| {
            packet.icmp().is_some_and(|icmp| icmp.kind >= 128 || icmp.kind == 0)
        });
        let first = ping(&a, header, 100, DELAY).unwrap();
        assert_eq!((first, lost.happened()), (Answer::Nothing, true));
        assert!(ping(&a, header, 100, LIMIT).unwrap().is_reply());
    }

    // What carries the other access's RLOC takes that one; with the wire cut everything does.
    let q = Stream::start((&b, address("10.2.1.2")), (&a, address("10.1.1.1"))).unwrap();
    let before = relay.passed(Way::ToCore);
    assert!(q.arrival_after(Instant::now(), LIMIT).is_some());
    thread::sleep(Duration::from_millis(50));
    assert!(relay.passed(Way::ToCore) < before + 10);
    assert_eq!(q.finish().unwrap().lost(), 0);
    relay.cut(true).unwrap();
    let q = Header::new(address("10.2.1.2"), address("10.1.1.1"));
    // The kernel takes a moment to see that the carrier is gone.
    let replies = wait_for(LIMIT, || Ok(ping(&b, q, 100, DELAY)?.is_reply()));
    assert!(replies.unwrap());
    relay.cut(false).unwrap();
}

#[test]
fn streams_and_sessions_survive_what_the_wire_does() {
    let Some(network) = network(build) else { return };
    let (a, b) = (network.namespace("a").unwrap(), network.namespace("b").unwrap());
    let relay = network.relay_to("b-p").unwrap();
    let (near, far) = ((&*a, address("10.1.1.1")), (&*b, address("10.2.1.1")));
    assert!(ping(&a, Header::new(near.1, far.1), 100, LIMIT).unwrap().is_reply());
    let session = Session::start(near, far).unwrap();
    let there = Stream::start(near, far).unwrap();
    let back = Stream::start(far, near).unwrap();
    thread::sleep(Duration::from_millis(200));
    let begin = Instant::now();
    relay.blackhole(far.1);
    thread::sleep(Duration::from_millis(100));
    relay.restore(far.1);
    assert!(there.arrival_after(Instant::now(), LIMIT).is_some());
    let (there, back) = (there.finish().unwrap(), back.finish().unwrap());
    assert!(there.outage_between(begin, begin + LIMIT) >= Duration::from_millis(90), "{there}");
    assert!(there.lost() >= 50, "{there}");
    assert_eq!((there.duplicates(), there.reordered()), (0, 0), "{there}");
    assert_eq!((back.lost(), back.duplicates(), back.reordered()), (0, 0, 0), "{back}");
    let survived = session.finish().unwrap();
    assert!(survived.records > 20, "{survived}");
}
