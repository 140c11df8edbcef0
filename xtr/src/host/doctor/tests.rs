//! Each finding, made true one by one.
use super::*;

/// A host that has everything.
fn host() -> (Wanted, Facts) {
    let rloc: IpAddr = "198.51.100.1".parse().expect("address");
    let resolver = "198.51.100.2".parse().expect("address");
    let wanted = Wanted {
        router: true,
        ipv4: true,
        ipv6: true,
        tun: "isthmus0".to_owned(),
        addresses: vec![rloc],
        ports: vec![4341, 4342],
        peers: vec![("Map-Resolver", resolver)],
        interfaces: vec!["lan0".to_owned()],
        descriptors: 200,
        trusts_clock: true,
        ..Wanted::default()
    };
    let link = |name: &str, underlay| LinkFact {
        name: name.to_owned(),
        running: true,
        mtu: 1600,
        underlay,
        offloads: Some([true, true, false]),
        ..LinkFact::default()
    };
    let facts = Facts {
        capabilities: 0x3000,
        io_uring_disabled: Some(0),
        forwarding_v4: Some(true),
        forwarding_v6: Some(true),
        rp_filter: vec![("all".to_owned(), 0), ("core0".to_owned(), 0)],
        rmem_max: Some(212_992),
        memlock: Some(64 << 20),
        descriptors: 1024,
        paths: vec![Some((1600, "core0".to_owned()))],
        links: vec![link("core0", true), link("lan0", false)],
        clock_synchronized: Some(true),
        unix_seconds: 1_800_000_000,
        ..Facts::default()
    };
    (wanted, facts)
}

/// The one finding of a host where `change` was done.
fn one(change: impl FnOnce(&mut Wanted, &mut Facts)) -> Finding {
    let (mut wanted, mut facts) = host();
    change(&mut wanted, &mut facts);
    let mut found = findings(&wanted, &facts);
    assert_eq!(found.len(), 1, "{found:?}");
    let finding = found.remove(0);
    assert!(CHECKS.contains(&finding.check), "{finding:?}");
    finding
}

fn error(check: &str, what: &str, mend: &str, change: impl FnOnce(&mut Wanted, &mut Facts)) {
    of(Severity::Error, check, what, mend, change);
}

fn of(
    severity: Severity,
    check: &str,
    what: &str,
    mend: &str,
    change: impl FnOnce(&mut Wanted, &mut Facts),
) {
    let found = one(change);
    assert_eq!((found.check, found.severity), (check, severity), "{found:?}");
    assert!(found.what.contains(what) && found.mend.contains(mend), "{found:?}");
    assert!(!found.means.is_empty());
}

#[test]
fn a_host_that_has_everything_has_no_findings() {
    let (wanted, facts) = host();
    assert_eq!(findings(&wanted, &facts), Vec::new());
}

#[test]
fn what_stops_a_daemon_is_an_error_with_the_command_that_mends_it() {
    error("capabilities", "CAP_NET_ADMIN is missing", "systemctl start", |_, facts| {
        (facts.capabilities, facts.rmem_max) = (1 << 13, None);
    });
    error("capabilities", "CAP_BPF", "intake", |wanted, _| wanted.ring = true);
    error("tun-device", "is not there", "modprobe tun", |_, facts| facts.tun = TunFact::Missing);
    error("tun-device", "may not be opened", "chmod", |_, facts| facts.tun = TunFact::Denied);
    error("tun-device", "isthmus0 already", "ip link delete isthmus0", |_, facts| {
        facts.tun_name_taken = true;
    });
    error(
        "forwarding",
        "net.ipv4.ip_forward is 0",
        "sysctl -w net.ipv4.ip_forward=1",
        |_, facts| {
            facts.forwarding_v4 = Some(false);
        },
    );
    error("forwarding", "net.ipv6.conf.all.forwarding", "=1", |_, facts| {
        facts.forwarding_v6 = Some(false);
    });
    error("interfaces", "no interface lan0", "configuration", |_, facts| {
        facts.links[1].missing = true;
    });
    error("interfaces", "198.51.100.1 is on no interface", "ip address add", |wanted, facts| {
        facts.missing_addresses = wanted.addresses.clone();
    });
    error("routes", "no route to the Map-Resolver", "ip route add 198.51.100.2", |_, facts| {
        facts.paths = vec![None];
    });
    error("ports", "port 4341 of 198.51.100.1 is taken by vpp (7)", "ss -lunp", |wanted, facts| {
        facts.taken = vec![(wanted.addresses[0], 4341, Some("vpp (7)".to_owned()))];
    });
    error("descriptors", "1024", "ulimit", |wanted, _| wanted.descriptors = 2000);
    error("clock", "since 1970", "ntp", |_, facts| facts.unix_seconds = 12);
}

#[test]
fn io_uring_disabled_by_policy_is_said_so() {
    for (disabled, what, mend) in [
        (
            Some(2),
            "io_uring is disabled by this host's policy for everybody",
            "kernel.io_uring_disabled=0",
        ),
        (Some(1), "io_uring is disabled by this host's policy for unprivileged", "io_uring_group"),
        (Some(0), "forbidden by a seccomp filter", "io_uring_setup"),
        (None, "forbidden by a seccomp filter", "io_uring_setup"),
    ] {
        error("io-uring", what, mend, |_, facts| {
            (facts.ring, facts.io_uring_disabled) = (RingFact::Forbidden, disabled);
        });
    }
    of(Severity::Warning, "io-uring", "unprivileged users", "io_uring_group", |_, facts| {
        facts.io_uring_disabled = Some(1);
    });
    for (ring, what) in [
        (RingFact::Missing, "no io_uring"),
        (RingFact::TooOld, "too old"),
        (RingFact::NoMemory, "no memory"),
        (RingFact::Failed("odd".to_owned()), "odd"),
    ] {
        error("io-uring", what, "", |_, facts| facts.ring = ring);
    }
}

#[test]
fn what_costs_packets_is_a_warning() {
    let warning = |check, what, mend, change: fn(&mut Wanted, &mut Facts)| {
        of(Severity::Warning, check, what, mend, change);
    };
    warning(
        "rp-filter",
        "all.rp_filter is 1",
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
        |_, facts| {
            facts.rp_filter[0].1 = 1;
        },
    );
    warning("rp-filter", "core0.rp_filter is 1", "core0.rp_filter=2", |_, facts| {
        facts.rp_filter[1].1 = 1;
        facts.links[1].underlay = true;
    });
    warning("interfaces", "lan0 is down", "ip link set lan0 up", |_, facts| {
        facts.links[1].running = false;
    });
    warning("mtu", "1300", "ip link set core0 mtu 1536", |_, facts| facts.links[0].mtu = 1300);
    warning("offloads", "large-receive", "ethtool -K core0 lro off", |_, facts| {
        facts.links[0].offloads = Some([true, true, true]);
    });
    warning("routes", "no route to the Map-Server", "ip route", |wanted, facts| {
        wanted.peers.push(("Map-Server", "192.0.2.9".parse().expect("address")));
        facts.paths.push(None);
    });
    warning("memlock", "65536", "LimitMEMLOCK", |_, facts| facts.memlock = Some(65_536));
    warning("socket-buffers", "212992", "sysctl -w net.core.rmem_max=16777216", |wanted, facts| {
        wanted.router = false;
        facts.capabilities = 0;
    });
}

#[test]
fn what_is_worth_knowing_is_a_note() {
    let note = |check, what, mend, change: fn(&mut Wanted, &mut Facts)| {
        of(Severity::Note, check, what, mend, change);
    };
    note("mtu", "1500", "mtu 1536", |_, facts| facts.links[0].mtu = 1500);
    note("mtu", "1500", "mtu 1556", |_, facts| {
        (facts.links[0].mtu, facts.links[0].underlay_ipv6) = (1500, true);
    });
    note("offloads", "generic-receive", "gro on", |_, facts| {
        facts.links[1].offloads = Some([false, true, false]);
    });
    note("ports", "taken by isthmus (7)", "isthmus show status", |wanted, facts| {
        facts.tun_name_taken = true;
        facts.taken = vec![(wanted.addresses[0], 4342, Some("isthmus (7)".to_owned()))];
    });
    note("clock", "nothing keeps", "state-dir", |_, facts| facts.clock_synchronized = Some(false));
    note("clock", "nothing keeps", "ntp", |wanted, facts| {
        (wanted.trusts_clock, facts.clock_synchronized) = (false, Some(false));
    });
}

#[test]
fn what_stops_comes_first_and_a_map_server_needs_no_tunnel() {
    let (mut wanted, mut facts) = host();
    facts.links[0].mtu = 1500;
    facts.forwarding_v4 = Some(false);
    facts.rp_filter[0].1 = 1;
    let severities: Vec<Severity> =
        findings(&wanted, &facts).iter().map(|finding| finding.severity).collect();
    assert_eq!(severities, [Severity::Error, Severity::Warning, Severity::Note]);
    wanted.router = false;
    facts.tun = TunFact::Missing;
    assert_eq!(findings(&wanted, &facts), Vec::new());
}

#[tokio::test]
async fn this_host_can_be_looked_at() {
    let wanted = Wanted {
        router: true,
        addresses: vec!["127.0.0.1".parse().expect("address")],
        peers: vec![("Map-Resolver", "127.0.0.1".parse().expect("address"))],
        interfaces: vec!["there-is-none0".to_owned()],
        ..Wanted::default()
    };
    let facts = collect(&wanted).await;
    assert_eq!((facts.paths.len(), facts.links.len()), (1, 1), "{facts:?}");
    assert!(facts.links[0].missing && facts.unix_seconds > 0 && facts.descriptors > 0);
    let found = findings(&wanted, &facts);
    assert!(found.iter().any(|finding| finding.what.contains("there-is-none0")), "{found:?}");
}
