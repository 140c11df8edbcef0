//! The whole daemon in a network namespace of its own: it registers, resolves, forwards, shows itself, and leaves nothing behind.
//!
//! ```text
//!   10.1.0.1 lan0 [xTR daemon] 192.0.2.1 core0 --- 198.51.100.2 Map-Server/Map-Resolver
//!                                                 192.0.2.2 a socket that plays the remote xTR of 10.2.0.0/16
//! ```
use futures_util::TryStreamExt;
use mapping::admin::{ExplainQuery, Query, Request, Side};
use mapping::config::{Algorithm, MappingConfig, Profile, Secret, Site, SiteKey, SitePrefix};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::server::MapServer;
use mapping::wire::CONTROL_PORT;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::{Handle, IpVersion, LinkUnspec, LinkVeth, RouteMessageBuilder};
use serde_json::Value;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};
use xtr::config::{
    ControlConfig, DataConfig, Endpoint, HostConfig, LocalEid, OwnRloc, ProbeConfig, Role,
    RouterConfig,
};
use xtr::control::ControlPlane;
use xtr::daemon::{DaemonError, Reload, run, run_reloadable};
use xtr::drops::DropReason;
use xtr::host::changes::{Change, Changes};
use xtr::host::underlay::{Path, PathAnswer, PathQuestion, answer_paths};
use xtr::policy::{Onward, Policy};

const OWN: &str = "192.0.2.1";
const REMOTE: &str = "192.0.2.2";
const SERVER: &str = "198.51.100.2";
const PATIENCE: Duration = Duration::from_secs(10);

struct AdmitAll;

impl Policy for AdmitAll {
    fn admit_native(&self, _: IpAddr, _: IpAddr) -> Result<InstanceId, DropReason> {
        Ok(InstanceId::DEFAULT)
    }

    fn admit_decapsulated(
        &self,
        _: IpAddr,
        _: InstanceId,
        _: IpAddr,
        _: IpAddr,
    ) -> Result<Onward, DropReason> {
        Ok(Onward::Deliver)
    }

    fn admit_native_forward(&self) -> Result<(), DropReason> {
        Ok(())
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("address")
}

fn prefix(text: &str) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, text.parse().expect("prefix"))
}

fn secret() -> Secret {
    Secret::new(b"secret".to_vec())
}

fn control_config(address: &str, eid: &str) -> ControlConfig {
    let endpoint = Endpoint::Address(ip(SERVER));
    ControlConfig {
        rlocs: vec![OwnRloc::new("core", ip(address), 1, 1)],
        map_resolvers: vec![endpoint.clone()],
        map_servers: vec![xtr::config::MapServer {
            endpoint,
            key_id: 1,
            secret: secret(),
            algorithm: Algorithm::HmacSha256Hkdf,
            covers: mapping::auth::Covered::Message,
            profile: Profile::Rfc9301,
        }],
        eids: vec![LocalEid { prefix: prefix(eid), locator_set: Vec::new() }],
        probe: Some(ProbeConfig::default()),
        ..ControlConfig::of(Role::Xtr)
    }
}

fn router_config() -> RouterConfig {
    RouterConfig {
        state_dir: None,
        name: "site-a".to_owned(),
        control: control_config(OWN, "10.1.0.0/16"),
        data: DataConfig {
            rlocs: vec![ip(OWN)],
            tun_name: "isthmus0".to_owned(),
            queues: Some(1),
            source_ports: 8,
            ..DataConfig::default()
        },
        host: HostConfig {
            announce: ["203.0.113.0/24", "2001:db8:e000::/36"]
                .map(|text| text.parse().expect("prefix"))
                .to_vec(),
            announce_table: 254,
            announce_metric: 120,
            withdraw_after: None,
            site_interfaces: vec!["lan0".to_owned()],
            site_prefixes: ["10.1.0.0/16", "2001:db8:e001::/48"]
                .map(|text| text.parse().expect("prefix"))
                .to_vec(),
            native_interfaces: Vec::new(),
            ..HostConfig::default()
        },
    }
}

/// A proxy with the same RLOC and aggregates.
fn proxy_config(native_interfaces: &[&str]) -> RouterConfig {
    let mut config = router_config();
    config.control.role = Role::Proxy;
    config.control.eids.clear();
    config.control.map_servers.clear();
    config.host.site_interfaces.clear();
    config.host.site_prefixes.clear();
    config.host.native_interfaces = native_interfaces.iter().map(ToString::to_string).collect();
    config
}

/// Runs `test` in a network namespace of its own, if the process may make one.
fn in_namespace<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            println!("SKIP: cannot make a network namespace: {error}");
            return;
        }
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(test());
    });
    thread.join().expect("the test passes");
}

async fn set_up_links() -> Handle {
    let (connection, handle, _) = rtnetlink::new_connection().expect("netlink");
    tokio::spawn(connection);
    handle.link().set(LinkUnspec::new_with_index(1).up().build()).execute().await.expect("lo up");
    for (name, addresses) in
        [("core0", &[(OWN, 24), (REMOTE, 24), (SERVER, 32)][..]), ("lan0", &[("10.1.0.1", 16)][..])]
    {
        let peer = format!("{name}-peer");
        handle.link().add(LinkVeth::new(name, &peer).build()).execute().await.expect("link");
        let index = set_link(&handle, name, true).await;
        set_link(&handle, &peer, true).await;
        for (address, width) in addresses {
            let request = handle.address().add(index, ip(address), *width);
            request.execute().await.expect("address");
        }
    }
    handle
}

/// Sets an interface up or down; returns its index.
async fn set_link(handle: &Handle, name: &str, up: bool) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let index = links.try_next().await.expect("link").expect("link").header.index;
    let link = LinkUnspec::new_with_index(index);
    let link = if up { link.up() } else { link.down() };
    handle.link().set(link.build()).execute().await.expect("link set");
    index
}

/// The Map-Server, and a remote xTR that registers 10.2.0.0/16 and answers.
async fn serve_mapping_system() {
    let site = |name: &str, eid: &str| {
        let key = SiteKey { id: 1, secret: secret(), algorithms: vec![Algorithm::HmacSha256Hkdf] };
        let prefixes = vec![SitePrefix { prefix: prefix(eid), accept_more_specifics: false }];
        Site::new(name, vec![key], prefixes)
    };
    let mut config = MappingConfig::new("ms", vec![ip(SERVER)]);
    config.sites = vec![site("a", "10.1.0.0/16"), site("b", "10.2.0.0/16")];
    let mut server = MapServer::new(config, [1; 32]);
    let local = SocketAddr::new(ip(SERVER), CONTROL_PORT);
    let socket = UdpSocket::bind(local).await.expect("bound");
    let mut remote =
        ControlPlane::new(control_config(REMOTE, "10.2.0.0/16"), Instant::now(), [2; 32], 1);
    let remote_local = SocketAddr::new(ip(REMOTE), CONTROL_PORT);
    let remote_socket = UdpSocket::bind(remote_local).await.expect("bound");
    let (mut buffer, mut remote_buffer) = ([0; 2000], [0; 2000]);
    loop {
        server.handle_timeout(Instant::now());
        remote.handle_timeout(Instant::now());
        while let Some(out) = server.poll_transmit() {
            socket.send_to(&out.payload, out.destination).await.expect("sent");
        }
        while let Some(out) = remote.poll_transmit() {
            remote_socket.send_to(&out.payload, out.destination).await.expect("sent");
        }
        tokio::select! {
            Ok((length, from)) = socket.recv_from(&mut buffer) => {
                server.handle_input(Instant::now(), local, from, &buffer[..length]);
            }
            Ok((length, from)) = remote_socket.recv_from(&mut remote_buffer) => {
                remote.handle_input(Instant::now(), remote_local, from, &remote_buffer[..length]);
            }
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
    }
}

/// A daemon in a task.
struct Running {
    requests: mpsc::Sender<Request>,
    stop: oneshot::Sender<()>,
    task: tokio::task::JoinHandle<Result<(), DaemonError>>,
}

impl Running {
    async fn start(config: RouterConfig) -> Self {
        Self::start_reloadable(config).await.0
    }

    async fn start_reloadable(config: RouterConfig) -> (Self, mpsc::Sender<Reload<AdmitAll>>) {
        let (reload, reloads) = mpsc::channel(1);
        let (requests, receiver) = mpsc::channel(4);
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let daemon = run_reloadable(config, AdmitAll, receiver, reloads, shutdown, || {
            let _ = ready.send(());
        });
        let task = tokio::spawn(daemon);
        tokio::time::timeout(PATIENCE, is_ready).await.expect("in time").expect("it starts");
        (Self { requests, stop, task }, reload)
    }

    async fn end(self) {
        self.stop.send(()).expect("it listens");
        let ended = tokio::time::timeout(PATIENCE, self.task).await;
        ended.expect("in time").expect("no panic").expect("an orderly end");
    }

    async fn ask(&self, query: Query) -> Value {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request { query, after: None, reply }).await.expect("it listens");
        answer.await.expect("an answer").expect("a view").view
    }

    /// Asks until the answer is as wanted.
    async fn wait_for(&self, query: Query, wanted: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let answer = self.ask(query.clone()).await;
            if wanted(&answer) {
                return answer;
            }
            assert!(start.elapsed() < PATIENCE, "{query:?}: {answer:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// How many routes and rules carry protocol 204.
async fn owned(handle: &Handle) -> (usize, usize) {
    use rtnetlink::packet_route::AddressFamily;
    use rtnetlink::packet_route::route::{RouteMessage, RouteProtocol};
    use rtnetlink::packet_route::rule::{RuleAttribute, RuleMessage};
    let own = RouteProtocol::Other(204);
    let (mut route_count, mut rule_count) = (0, 0);
    for (family, version) in
        [(AddressFamily::Inet, IpVersion::V4), (AddressFamily::Inet6, IpVersion::V6)]
    {
        let mut query = RouteMessage::default();
        query.header.address_family = family;
        let routes: Vec<RouteMessage> =
            handle.route().get(query).execute().try_collect().await.expect("routes");
        let rules: Vec<RuleMessage> =
            handle.rule().get(version).execute().try_collect().await.expect("rules");
        route_count += routes.iter().filter(|route| route.header.protocol == own).count();
        rule_count += rules
            .iter()
            .filter(|rule| rule.attributes.contains(&RuleAttribute::Protocol(own)))
            .count();
    }
    (route_count, rule_count)
}

#[test]
fn the_daemon_registers_resolves_forwards_and_cleans_up() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let mapping_system = tokio::spawn(serve_mapping_system());
        let daemon = Running::start(router_config()).await;
        // Of each family: aggregate, throw and default; a rule for the interface and one for the EID-prefix.
        assert_eq!(owned(&handle).await, (6, 4));
        let registered = |views: &Value| views[0]["state"] == "registered";
        daemon.wait_for(Query::Registrations, registered).await;

        let tunnel = UdpSocket::bind(SocketAddr::new(ip(REMOTE), 4341)).await.expect("bound");
        let host = UdpSocket::bind("10.1.0.1:7000").await.expect("bound");
        host.send_to(b"first packet", "10.2.0.9:7000").await.expect("sent");
        let mut buffer = [0; 2000];
        let received = tokio::time::timeout(PATIENCE, tunnel.recv_from(&mut buffer)).await;
        let (length, from) = received.expect("in time").expect("received");
        assert_eq!(from.ip(), ip(OWN));
        assert!(buffer[..length].ends_with(b"first packet"), "nothing is lost on a miss");

        let up = |views: &Value| views[0]["state"] == "up";
        daemon.wait_for(Query::Locators, up).await;
        let cache = daemon.ask(Query::MapCache).await;
        assert_eq!(cache[0]["prefix"], "10.2.0.0/16");
        assert_eq!(
            (&cache[0]["via"], &cache[0]["state"]),
            (&"map-reply".into(), &"complete".into())
        );
        assert_eq!(cache[0]["locators"][0]["address"], REMOTE);
        assert_eq!(cache[0]["packets"], 1);
        let counters = daemon.ask(Query::Counters).await;
        assert_eq!(counters["itr_encap"], 1);
        assert!(counters["map_requests_sent"].as_u64() >= Some(1));
        explanations_fit(&daemon, from).await;
        let status = daemon.ask(Query::Status).await;
        assert_eq!((&status["role"], &status["name"]), (&"xtr".into(), &"site-a".into()));
        let forwarding = "/proc/sys/net/ipv4/ip_forward";
        let noted = |status: &Value| status["notes"].to_string().contains("net.ipv4.ip_forward");
        let forwards = std::fs::read_to_string(forwarding);
        assert_eq!(noted(&status), forwards.is_ok_and(|value| value.trim() == "0"));
        // A switch is noted as it is now, not as it was at the start.
        for value in ["1", "0"] {
            if std::fs::write(forwarding, value).is_ok() {
                assert_eq!(noted(&daemon.ask(Query::Status).await), value == "0");
            }
        }
        assert!(daemon.ask(Query::Drops).await.is_array());

        // The link loses its carrier, and gets it back.
        let down = |status: &Value| status["notes"].to_string().contains("RLOC 192.0.2.1 is down");
        set_link(&handle, "core0-peer", false).await;
        daemon.wait_for(Query::Status, down).await;
        let counters = daemon.ask(Query::Counters).await;
        assert!(counters["map_registers_sent"].as_u64() >= Some(2));
        set_link(&handle, "core0-peer", true).await;
        daemon.wait_for(Query::Status, |status| !down(status)).await;

        daemon.stop.send(()).expect("it listens");
        let ended = tokio::time::timeout(PATIENCE, daemon.task).await;
        ended.expect("in time").expect("no panic").expect("an orderly end");
        assert_eq!(owned(&handle).await, (0, 0));
        mapping_system.abort();
    });
}

/// What is said of the packet that came out of `from`, and of others; and that saying it does nothing else.
async fn explanations_fit(daemon: &Running, from: SocketAddr) {
    let counters = daemon.ask(Query::Counters).await;
    let question = |destination: &str| ExplainQuery {
        from: Side::Native,
        source: ip("10.1.0.1"),
        destination: ip(destination),
        protocol: 17,
        source_port: 7000,
        destination_port: 7000,
        length: 40,
        dont_fragment: true,
        ttl: 64,
        tos: 0,
        instance_id: 0,
        rloc: None,
    };
    let sent = daemon.ask(Query::Explain(question("10.2.0.9"))).await;
    assert_eq!(sent["verdict"], "encapsulate", "{sent:#}");
    assert_eq!(sent["outer"]["source_port"], from.port(), "the flow's port");
    assert_eq!(sent["outer"]["destination"], REMOTE);
    assert_eq!(sent["entry"]["prefix"], "10.2.0.0/16");
    assert_eq!(sent["size"]["sent"][0], 76);
    let limit = sent["size"]["largest_inner"].as_u64().expect("a size");
    let large = ExplainQuery { length: limit as u16 + 1, ..question("10.2.0.9") };
    let large = daemon.ask(Query::Explain(large)).await;
    assert_eq!((&large["verdict"], &large["reason"]), (&"drop".into(), &"packet_too_big".into()));
    assert_eq!(large["icmp"]["mtu"], limit);
    let miss = daemon.ask(Query::Explain(question("10.9.0.9"))).await;
    assert_eq!(miss["verdict"], "wait", "{miss:#}");
    let asked = format!("would ask Map-Resolver {SERVER}");
    let steps = miss["steps"].as_array().expect("steps");
    assert!(steps.iter().any(|step| step["text"] == asked.as_str()), "{miss:#}");
    let own = ExplainQuery {
        from: Side::Core,
        rloc: Some(ip(REMOTE)),
        source: ip("10.2.0.9"),
        ..question("10.1.0.1")
    };
    assert_eq!(daemon.ask(Query::Explain(own.clone())).await["verdict"], "deliver");
    let spoofed = ExplainQuery { rloc: Some(ip(OWN)), ..own };
    let spoofed = daemon.ask(Query::Explain(spoofed)).await;
    assert_eq!(spoofed["reason"], "outer_source_martian");
    let after = daemon.ask(Query::Counters).await;
    for name in ["native_in_packets", "core_in_packets", "drop_packet_too_big", "held"] {
        assert_eq!(counters[name], after[name], "{name}: nothing happened");
    }
    assert_eq!(counters["lookups_outstanding"], after["lookups_outstanding"]);
    assert_eq!(daemon.ask(Query::MapCache).await[0]["packets"], 1);
}

#[test]
fn what_a_crash_left_behind_is_cleaned_up() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let crashed = Running::start(router_config()).await;
        crashed.task.abort();
        let _ = crashed.task.await;
        assert_ne!(owned(&handle).await.1, 0, "rules outlive a crash");
        let daemon = Running::start(router_config()).await;
        assert_eq!(owned(&handle).await, (6, 4));
        daemon.stop.send(()).expect("it listens");
        let ended = tokio::time::timeout(PATIENCE, daemon.task).await;
        ended.expect("in time").expect("no panic").expect("an orderly end");
        assert_eq!(owned(&handle).await, (0, 0));
    });
}

/// Where the kernel would send a packet for an EID that comes in on `interface`: an interface's name, or `None` if nowhere.
async fn next_of_native(handle: &Handle, interface: &str, eid: &str) -> Option<String> {
    use rtnetlink::packet_route::route::{RouteAttribute, RouteMessage, RouteType};
    let ipv4 = eid.parse::<std::net::Ipv4Addr>().is_ok();
    let (source, width) = if ipv4 { ("192.0.2.77", 32) } else { ("2001:db8:ffff::77", 128) };
    let question = rtnetlink::RouteMessageBuilder::<IpAddr>::new()
        .destination_prefix(ip(eid), width)
        .expect("destination")
        .source_prefix(ip(source), width)
        .expect("source")
        .input_interface(set_link(handle, interface, true).await)
        .build();
    let answer: RouteMessage =
        handle.route().get(question).execute().try_next().await.ok().flatten()?;
    let output = answer.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    });
    let output = output.filter(|_| answer.header.kind == RouteType::Unicast)?;
    let links = xtr::host::underlay::interfaces(handle).await.expect("interfaces");
    links.get(&output).map(|link| link.name.clone())
}

#[test]
fn pi_07_the_underlay_is_no_native_side_unless_configured() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let switches = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"];
        let forwards = |name| std::fs::write(format!("/proc/sys/net/{name}"), "1").is_ok();
        let forwards = switches.into_iter().all(forwards);
        if !forwards {
            println!("SKIP: forwarding cannot be switched on, so the kernel is not asked");
        }
        let into_tun = Some("isthmus0".to_owned());
        let eids = ["203.0.113.9", "2001:db8:e001::9"];

        // Of each family: the aggregate, and the same unreachable for what comes in on core0.
        let daemon = Running::start(proxy_config(&[])).await;
        assert_eq!(owned(&handle).await, (4, 2));
        for eid in eids.into_iter().filter(|_| forwards) {
            assert_eq!(next_of_native(&handle, "core0", eid).await, None);
            assert_eq!(next_of_native(&handle, "lan0", eid).await, into_tun);
        }
        if forwards {
            let elsewhere = next_of_native(&handle, "core0", "10.1.0.9").await;
            assert_eq!(elsewhere.as_deref(), Some("lan0"), "everything else is as ever");
        }
        daemon.end().await;
        assert_eq!(owned(&handle).await, (0, 0));

        // What a crash leaves behind does not stay in the way of an interface that has become native too.
        let crashed = Running::start(proxy_config(&[])).await;
        crashed.task.abort();
        let _ = crashed.task.await;
        assert_eq!(owned(&handle).await.1, 2, "rules outlive a crash");
        let daemon = Running::start(proxy_config(&["core0"])).await;
        assert_eq!(owned(&handle).await, (2, 0));
        for eid in eids.into_iter().filter(|_| forwards) {
            assert_eq!(next_of_native(&handle, "core0", eid).await, into_tun);
        }
        daemon.end().await;
    });
}

#[test]
fn pi_16_aggregates_are_withdrawn_while_they_cannot_be_served() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let mut config = proxy_config(&["core0"]);
        config.host.withdraw_after = Some(Duration::from_secs(1));
        let daemon = Running::start(config).await;
        let announced = async |count: usize| {
            let start = Instant::now();
            while owned(&handle).await != (count, 0) {
                assert!(start.elapsed() < PATIENCE, "{:?}", owned(&handle).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let why = async || {
            let status = daemon.ask(Query::Status).await;
            let notes = status["notes"].as_array().expect("notes").clone();
            let notes = notes.iter().filter_map(Value::as_str);
            notes.filter(|note| note.contains("not announced")).collect::<String>()
        };
        announced(2).await;
        // Nobody answers at the Map-Resolver's address.
        announced(0).await;
        assert!(why().await.contains("no Map-Resolver answers"), "{}", why().await);
        let mapping_system = tokio::spawn(serve_mapping_system());
        announced(2).await;
        assert_eq!(why().await, "");
        // The underlay is gone.
        set_link(&handle, "core0-peer", false).await;
        announced(0).await;
        assert!(why().await.contains("no own RLOC"), "{}", why().await);
        set_link(&handle, "core0-peer", true).await;
        announced(2).await;
        daemon.end().await;
        announced(0).await;
        mapping_system.abort();
    });
}

#[test]
fn pi_16_aggregates_that_the_kernel_refuses_at_a_reload_are_announced_later() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let mut config = proxy_config(&["core0"]);
        config.host.withdraw_after = Some(Duration::from_secs(1));
        let (daemon, reloads) = Running::start_reloadable(config.clone()).await;
        let announced = async |count: usize| {
            let start = Instant::now();
            while owned(&handle).await != (count, 0) {
                assert!(start.elapsed() < PATIENCE, "{:?}", owned(&handle).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Nobody answers at the Map-Resolver's address.
        announced(2).await;
        announced(0).await;
        // They are to be there whatever answers, but no route leads to a device that is down.
        set_link(&handle, "isthmus0", false).await;
        config.host.withdraw_after = None;
        assert_eq!(reload(&reloads, &config).await, Ok(()));
        let status = daemon.ask(Query::Status).await;
        assert!(status["notes"].to_string().contains("not announced"), "{status:#}");
        assert_eq!(owned(&handle).await, (0, 0));
        set_link(&handle, "isthmus0", true).await;
        announced(2).await;
        let status = daemon.ask(Query::Status).await;
        assert!(!status["notes"].to_string().contains("not announced"), "{status:#}");
        daemon.end().await;
        announced(0).await;
    });
}

#[test]
fn routes_and_rules_that_somebody_takes_out_come_back() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let daemon = Running::start(router_config()).await;
        assert_eq!(owned(&handle).await, (6, 4));
        // As a network manager does with what it does not know.
        let rules: Vec<_> =
            handle.rule().get(IpVersion::V4).execute().try_collect().await.expect("rules");
        for rule in rules.into_iter().filter(|rule| rule.header.src_len > 0) {
            handle.rule().del(rule).execute().await.expect("removed");
        }
        assert_eq!(owned(&handle).await, (6, 3));
        let back = async || {
            let start = Instant::now();
            while owned(&handle).await != (6, 4) {
                assert!(start.elapsed() < PATIENCE, "{:?}", owned(&handle).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        back().await;
        // The kernel takes out what leads into the TUN.
        set_link(&handle, "isthmus0", false).await;
        assert!(owned(&handle).await.0 < 6);
        set_link(&handle, "isthmus0", true).await;
        back().await;
        let events = daemon.ask(Query::Events { after: None }).await;
        assert!(events.to_string().contains("routing-restored"), "{events:#}");
        daemon.end().await;
        assert_eq!(owned(&handle).await, (0, 0));
    });
}

#[test]
fn pi_07_an_rloc_on_loopback_refuses_nothing() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let rloc = ip("192.0.2.200");
        handle.address().add(1, rloc, 32).execute().await.expect("address");
        let mut config = proxy_config(&[]);
        config.control.rlocs[0].address = rloc;
        config.data.rlocs = vec![rloc];
        let daemon = Running::start(config).await;
        assert_eq!(owned(&handle).await, (2, 0));
        daemon.end().await;
    });
}

#[test]
fn pb_16_a_path_is_what_the_kernel_says() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let (questions, receiver) = mpsc::channel(1);
        let (sender, mut answers) = mpsc::channel(8);
        let core = set_link(&handle, "core0", true).await;
        handle
            .link()
            .add(LinkVeth::new("down0", "down0-peer").build())
            .execute()
            .await
            .expect("link");
        set_link(&handle, "down0-peer", true).await;
        let down = set_link(&handle, "down0", true).await;
        handle.address().add(down, ip("10.9.0.1"), 16).execute().await.expect("address");
        handle
            .link()
            .set(LinkUnspec::new_with_index(core).mtu(1400).build())
            .execute()
            .await
            .expect("MTU set");
        let lan = set_link(&handle, "lan0", true).await;
        let answering = tokio::spawn(answer_paths(handle.clone(), lan, receiver, sender));
        let on_link = Some(Path { mtu: 1400, interface: core });
        // On a link; without a route, of either family; through what we say is the TUN; from an address that is not ours; over a link
        // without a carrier, which the kernel would still take.
        set_link(&handle, "down0-peer", false).await;
        for (rloc, source, path) in [
            ("192.0.2.77", None, on_link),
            ("192.0.2.77", Some(OWN), on_link),
            ("203.0.113.1", None, None),
            ("2001:db8::1", None, None),
            ("10.1.0.77", None, None),
            ("192.0.2.77", Some("192.0.2.199"), None),
            ("10.9.0.77", None, None),
        ] {
            let rloc = ip(rloc);
            let question = PathQuestion { rloc, source: source.map(ip) };
            questions.send(vec![question]).await.expect("asked");
            assert_eq!(answers.recv().await, Some(PathAnswer { rloc, path }));
        }
        answering.abort();
    });
}

#[test]
fn pb_16_of_all_routes_only_those_that_lead_to_rlocs_are_told_of() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let core = set_link(&handle, "core0", true).await;
        let mut changes = Changes::listen().expect("listening");
        changes.follow_rlocs([ip("203.0.113.77"), ip("2001:db8:c0::77")].into()).expect("filtered");
        changes.follow_links([core].into());
        let route = |text: &str| {
            let prefix: ipnet::IpNet = text.parse().expect("prefix");
            RouteMessageBuilder::<IpAddr>::new()
                .destination_prefix(prefix.addr(), prefix.prefix_len())
                .expect("a prefix")
                .output_interface(core)
                .build()
        };
        // A full table that is somebody else's, in and out again.
        for number in 0..500u32 {
            let prefix = format!("100.{}.{}.0/24", 64 + number / 256, number % 256);
            handle.route().add(route(&prefix)).execute().await.expect("route");
            handle.route().del(route(&prefix)).execute().await.expect("gone");
        }
        // Link-local addresses come when they like.
        while let Ok(change) = tokio::time::timeout(Duration::from_millis(50), changes.next()).await
        {
            assert!(change.rlocs.is_empty() && !change.all_paths, "{change:?}");
        }
        for (prefix, rloc) in
            [("203.0.113.64/26", "203.0.113.77"), ("2001:db8:c0::/64", "2001:db8:c0::77")]
        {
            handle.route().add(route(prefix)).execute().await.expect("route");
            let mut change = Change::default();
            while change.rlocs.is_empty() {
                change = tokio::time::timeout(PATIENCE, changes.next()).await.expect("told");
            }
            assert_eq!(change.rlocs, [ip(rloc)].into());
        }
        set_link(&handle, "core0-peer", false).await;
        let mut change = Change::default();
        while !change.all_paths {
            change = tokio::time::timeout(PATIENCE, changes.next()).await.expect("told");
        }
        assert!(change.host, "{change:?}");
    });
}

#[test]
fn a_configuration_that_does_not_fit_the_host_is_refused() {
    in_namespace(|| async {
        set_up_links().await;
        let mut foreign = router_config();
        foreign.control.rlocs[0].address = ip("198.51.100.11");
        let mut missing = router_config();
        missing.host.site_interfaces = vec!["lan7".to_owned()];
        for (config, words) in [
            (foreign, "RLOC 198.51.100.11 is on no interface of this host"),
            (missing, "interface lan7 does not exist on this host"),
            (proxy_config(&["core7"]), "interface core7 does not exist on this host"),
        ] {
            let (_requests, receiver) = mpsc::channel(1);
            let error = run(config, AdmitAll, receiver, std::future::pending(), || ())
                .await
                .expect_err("refused");
            assert_eq!(error.exit_code(), 78);
            assert!(error.to_string().contains(words), "{error}");
        }
    });
}

async fn reload(
    reloads: &mpsc::Sender<Reload<AdmitAll>>,
    config: &RouterConfig,
) -> Result<(), String> {
    let (reply, taken) = oneshot::channel();
    let reload = Reload { config: config.clone(), policy: AdmitAll, reply };
    assert!(reloads.send(reload).await.is_ok(), "it listens");
    taken.await.expect("an answer")
}

#[test]
fn a_reload_takes_over_all_of_a_configuration_or_nothing() {
    in_namespace(|| async {
        let handle = set_up_links().await;
        let mapping_system = tokio::spawn(serve_mapping_system());
        let mut config = router_config();
        let (daemon, reloads) = Running::start_reloadable(config.clone()).await;
        assert_eq!(owned(&handle).await, (6, 4));
        let registered = |views: &Value| views[0]["state"] == "registered";
        daemon.wait_for(Query::Registrations, registered).await;

        // IPv4 alone, and another weight.
        config.host.announce.truncate(1);
        config.host.site_prefixes.truncate(1);
        config.control.rlocs[0].weight = 9;
        assert_eq!(reload(&reloads, &config).await, Ok(()));
        assert_eq!(owned(&handle).await, (3, 2));

        let mut moved = config.clone();
        moved.control.rlocs[0].address = ip(REMOTE);
        moved.host.announce.clear();
        let error = reload(&reloads, &moved).await.expect_err("an own RLOC cannot change");
        assert!(error.contains("the address of rlocs.core, 192.0.2.2, cannot change"), "{error}");
        assert_eq!(owned(&handle).await, (3, 2));

        // The kernel takes no such name for an interface: everything else of it is put back too.
        let mut impossible = router_config();
        impossible.host.site_interfaces.push("longer-than-fifteen".to_owned());
        assert!(reload(&reloads, &impossible).await.is_err());
        assert_eq!(owned(&handle).await, (3, 2));
        assert_eq!(reload(&reloads, &router_config()).await, Ok(()));
        assert_eq!(owned(&handle).await, (6, 4));
        daemon.wait_for(Query::Registrations, registered).await;
        daemon.end().await;
        assert_eq!(owned(&handle).await, (0, 0));
        mapping_system.abort();
    });
}

#[test]
fn dy_01_what_a_gateway_changed_on_its_interface_is_undone_even_after_a_crash() {
    use xtr::config::GatewayMac;
    use xtr::host::lan::{Gateways, Mac};
    in_namespace(|| async {
        let handle = set_up_links().await;
        let setting = |name: &str| {
            let path = format!("/proc/sys/net/ipv4/conf/lan0/{name}");
            std::fs::read_to_string(path).expect("a setting").trim().to_owned()
        };
        std::fs::write("/proc/sys/net/ipv4/conf/lan0/arp_announce", "1").expect("set");
        let settings = || [setting("arp_ignore"), setting("arp_announce")];
        let gateway = GatewayMac {
            interface: "lan0".to_owned(),
            mac: Mac([0, 0, 0x5e, 0, 1, 1]),
            addresses: vec![ip("172.16.4.1")],
        };
        let before = settings();
        for crashes in 0..3 {
            for _ in 0..crashes {
                let left = Gateways::install(handle.clone(), std::slice::from_ref(&gateway)).await;
                drop(left.expect("installed"));
                assert_eq!(settings(), ["1", "2"]);
            }
            let again = Gateways::install(handle.clone(), std::slice::from_ref(&gateway)).await;
            again.expect("installed").remove().await;
            assert_eq!(settings(), before, "after {crashes} crashes");
        }
        // The next run has no gateway any more.
        drop(Gateways::install(handle.clone(), &[gateway]).await.expect("installed"));
        Gateways::install(handle.clone(), &[]).await.expect("nothing to do");
        assert_eq!(settings(), before);
    });
}

#[test]
fn dy_01_a_reload_takes_over_other_ranges_and_keeps_the_hosts_that_it_can() {
    use xtr::config::{DynamicRange, GatewayMac};
    use xtr::host::lan::Mac;
    in_namespace(|| async {
        let handle = set_up_links().await;
        let directory = tempfile::tempdir().expect("a directory");
        let leases = directory.path().join("leases");
        let range = |text: &str| DynamicRange {
            range: prefix(text),
            locator_set: Vec::new(),
            interfaces: vec!["lan0".to_owned()],
            timeout: Duration::from_secs(3600),
            limit: 10,
            extended_subnet: false,
        };
        let base = router_config();
        let mut config = base.clone();
        config.host.ranges = vec![range("172.16.4.0/24")];
        config.host.leases = vec![leases.clone()];
        let (daemon, reloads) = Running::start_reloadable(config.clone()).await;
        let is_here = |views: &Value, host: &str| {
            let views = views.as_array().expect("hosts").iter();
            views.filter(|view| view["place"] == "here").any(|view| view["eid"] == host)
        };
        tokio::time::sleep(Duration::from_millis(50)).await;
        let lease = "1795424400 52:54:00:12:34:56 172.16.4.7 vm *\n";
        std::fs::write(&leases, lease).expect("granted");
        daemon.wait_for(Query::Mobility, |views| is_here(views, "172.16.4.7")).await;
        let owns = async |routes: usize, rules: usize| {
            let start = Instant::now();
            while owned(&handle).await != (routes, rules) {
                assert!(start.elapsed() < PATIENCE, "{:?}", owned(&handle).await);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        // Beside what there is without ranges: a route to the host, and one that keeps its packets in the site.
        owns(8, 4).await;

        // A gateway, another limit and another range: the host stays, behind the gateway now.
        let gateway = |last: u8| GatewayMac {
            interface: "lan0".to_owned(),
            mac: Mac([0, 0, 0x5e, 0, 1, last]),
            addresses: vec![ip("172.16.4.1")],
        };
        config.host.ranges = vec![range("172.16.8.0/24"), range("172.16.4.0/24")];
        config.host.ranges[1].limit = 9;
        for last in [1, 2] {
            config.host.gateways = vec![gateway(last)];
            assert_eq!(reload(&reloads, &config).await, Ok(()));
            assert_eq!(owned(&handle).await, (8, 6), "at once");
            assert!(is_here(&daemon.ask(Query::Mobility).await, "172.16.4.7"));
            let lan = set_link(&handle, "lan0", true).await;
            let name = format!("isthmus-gw{lan}");
            let next = next_of_native(&handle, "core0", "172.16.4.7").await;
            assert!(next.is_none_or(|next| next == name));
        }
        let lease = "1795424400 52:54:00:12:34:57 172.16.8.7 vm *\n";
        std::fs::write(&leases, lease).expect("granted");
        daemon.wait_for(Query::Mobility, |views| is_here(views, "172.16.8.7")).await;
        owns(10, 6).await;

        // What cannot be changes nothing.
        let mut impossible = config.clone();
        impossible.host.gateways.clear();
        impossible.host.ranges[0].interfaces = vec!["lan7".to_owned()];
        assert!(reload(&reloads, &impossible).await.is_err());
        assert_eq!(owned(&handle).await, (10, 6));
        impossible.host.gateways = vec![gateway(3)];
        assert!(reload(&reloads, &impossible).await.is_err());
        assert_eq!(
            owned(&handle).await,
            (10, 6),
            "the gateway is there again, and so are its hosts"
        );

        // One range goes, then all.
        config.host.ranges.remove(0);
        config.host.gateways.clear();
        assert_eq!(reload(&reloads, &config).await, Ok(()));
        owns(8, 4).await;
        assert!(is_here(&daemon.ask(Query::Mobility).await, "172.16.4.7"));
        assert_eq!(reload(&reloads, &base).await, Ok(()));
        owns(6, 4).await;
        daemon.end().await;
        owns(0, 0).await;
    });
}
