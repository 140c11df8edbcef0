//! A profile makes a daemon accept what RFC 9301 would have it refuse: whoever runs it reads so in the log of its start, and with `isthmus show`
//! for as long as it runs.

use std::io;
use std::process::{Command, Stdio};

use gateway::lab::namespace::Namespace;
use interop_tests::daemon::{Daemon, program};
use interop_tests::site::{Hosts, or_skip};
use mapping::config::Profile;

/// What one daemon was told to put up with: in its configuration, in its log, in what a verb shows.
struct Told {
    logged: String,
    verb: [&'static str; 2],
    shown: String,
}

fn told(logged: &str, verb: &'static str, shown: &str) -> Told {
    Told { logged: logged.to_owned(), verb: ["show", verb], shown: shown.to_owned() }
}

/// A Map-Server with a site, and a client, of this profile.
fn mapping(profile: Profile) -> (String, Vec<Told>) {
    let name = profile.name();
    let config = format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"198.51.100.2\"]\n\
         clients = [\"198.51.100.0/24\", {{ prefix = \"192.0.2.0/24\", profile = \"lispers.net\" }}]\n\
         [[site]]\nname = \"a\"\nprofile = \"{name}\"\nkeys = [{{ id = 0, file = \"KEY\" }}]\neid-prefixes = [\"203.0.113.0/26\"]\n"
    );
    let client = "client 192.0.2.0/24 has the profile lispers.net";
    let told = vec![
        told(name, "sites", &format!("profile: {name}")),
        told(client, "status", "192.0.2.0/24 has the profile lispers.net"),
    ];
    (config, told)
}

/// A tunnel router with a Map-Server of this profile, and tunnel routers of lispers.net around it.
fn xtr(profile: Profile) -> (String, Vec<Told>) {
    let name = profile.name();
    let config = format!(
        "[xtr]\nname = \"a\"\nrlocs = {{ core = {{ address = \"198.51.100.11\" }} }}\n\
         map-servers = [{{ address = \"198.51.100.2\", key-id = 0, key-file = \"KEY\", profile = \"{name}\" }}]\n\
         map-resolvers = [\"198.51.100.2\"]\ntun = {{ queues = 1 }}\n\
         peers = [{{ prefix = \"192.0.2.0/24\", profile = \"lispers.net\" }}]\n[[eid]]\nprefix = \"203.0.113.0/26\"\n"
    );
    let told = vec![
        told(
            &format!("Map-Server 198.51.100.2 has the profile {name}"),
            "registrations",
            &format!("198.51.100.2, {name}"),
        ),
        peer(),
    ];
    (config, told)
}

fn gateway() -> (String, Vec<Told>) {
    let config = "[gateway]\nname = \"pxtr\"\nrlocs = [\"198.51.100.1\"]\nmap-resolvers = [\"198.51.100.2\"]\ntun = { queues = 1 }\n\
                  peers = [{ prefix = \"192.0.2.0/24\", profile = \"lispers.net\" }]\n[pitr]\neid-aggregates = [\"203.0.113.0/24\"]\n";
    (config.to_owned(), vec![peer()])
}

fn peer() -> Told {
    let text = "192.0.2.0/24 has the profile lispers.net";
    told(&format!("peer {text}"), "status", &format!("peer {text}"))
}

#[test]
fn au_19_profiles_are_warned_of_at_the_start_and_shown() {
    let rlocs = ["198.51.100.2/24", "198.51.100.11/24"];
    let Some(hosts) = or_skip(Hosts::build(&["192.0.2.80/32"], &rlocs)) else { return };
    for profile in [Profile::Oor, Profile::LispersNet, Profile::Vpp] {
        says(&hosts.site, "mapping", &mapping(profile)).expect("a Map-Server");
        says(&hosts.site, "xtr", &xtr(profile)).expect("a tunnel router");
    }
    says(&hosts.native, "gateway", &gateway()).expect("a gateway");
}

/// Without a profile nobody is warned, and nothing is shown of one.
#[test]
fn au_19_the_rules_as_they_are_go_without_saying() {
    let rlocs = ["198.51.100.2/24", "198.51.100.11/24"];
    let Some(hosts) = or_skip(Hosts::build(&["192.0.2.80/32"], &rlocs)) else { return };
    let strict = |(config, _): (String, Vec<Told>)| {
        let lines = config.lines().filter(|line| !line.starts_with("peers = "));
        let lines = lines.filter(|line| !line.starts_with("clients = "));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    for (role, config, verb) in [
        ("mapping", strict(mapping(Profile::Rfc9301)), "sites"),
        ("xtr", strict(xtr(Profile::Rfc9301)), "registrations"),
    ] {
        let daemon = Daemon::start(&hosts.site, role, &config).expect("a daemon");
        let shown = show(&hosts.site, &daemon, &["show", verb]).expect("an answer");
        for text in [daemon.log(), shown] {
            assert!(!text.contains("profile") && !text.contains("rfc9301"), "{role}: {text}");
        }
    }
}

fn says(namespace: &Namespace, role: &str, (config, all): &(String, Vec<Told>)) -> io::Result<()> {
    let daemon = Daemon::start(namespace, role, config)?;
    for Told { logged, verb, shown } in all {
        let log = daemon.log();
        let warned = log.lines().any(|line| line.contains("WARN") && line.contains(logged));
        assert!(warned, "{role}: no warning of {logged:?} in\n{log}");
        let text = show(namespace, &daemon, verb)?;
        assert!(text.contains(shown), "{role} {verb:?}: no {shown:?} in\n{text}");
    }
    Ok(())
}

fn show(namespace: &Namespace, daemon: &Daemon, arguments: &[&str]) -> io::Result<String> {
    let mut command = Command::new(program()?);
    command.args(arguments).arg("--socket").arg(daemon.socket()).stdout(Stdio::piped());
    let output = namespace.start(command)?.wait_with_output()?;
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
