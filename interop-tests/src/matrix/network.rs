//! The namespaces, wires and programs of a [`Plan`].

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use gateway::lab::offload;
use ipnet::IpNet;
use mapping::admin::Query;
use serde_json::Value;

use super::on_behalf;
use super::plan::{Family, Plan, Role};
use super::traffic::Host;
use super::watch::Watch;
use crate::daemon::Daemon;
use crate::peers::{Program, Running, xtr_configuration};

/// The link of every role towards the core.
pub const CORE_LINK: &str = "core0";
/// The link of a tunnel router towards its host.
pub const LAN_LINK: &str = "lan0";
const HOST_LINK: &str = "eth0";
const CORE_MTU: u32 = 1500;
/// How long registrations may take.
const REGISTRATIONS: Duration = Duration::from_secs(75);
/// Peers that cannot be asked are given this long to register with each other.
const BLIND: Duration = Duration::from_secs(10);

const SETTINGS: &[(&str, &str)] = &[
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/default/promote_secondaries", "1"),
    ("ipv6/conf/all/accept_dad", "0"),
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    ("ipv6/conf/default/router_solicitations", "0"),
];
const FORWARDING: &[(&str, &str)] = &[
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
];

/// A network that is up.
pub struct Network {
    plan: Plan,
    moved: Option<Role>,
    members: Vec<Member>,
    watch: Watch,
    // After everything that lives in it.
    core: Namespace,
}

/// A machine with a role, and the host behind it.
struct Member {
    role: Role,
    program: Running,
    namespace: Namespace,
    host: Option<Namespace>,
}

/// What a daemon of ours counted.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Its role.
    pub role: Role,
    /// Packets encapsulated.
    pub encapsulated: u64,
    /// Packets decapsulated.
    pub decapsulated: u64,
    /// Packets dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
}

impl Network {
    /// Everything started, every site registered.
    ///
    /// # Errors
    /// What the kernel said, a program that does not start, sites that do not register; `PermissionDenied` without
    /// the privilege to make namespaces.
    pub fn bring_up(plan: Plan) -> io::Result<Self> {
        let core = machine("core")?;
        link::settings(&core, FORWARDING)?;
        let mut places = Vec::new();
        for (role, _) in plan.roles() {
            places.push(place(&plan, &core, role)?);
        }
        let watch =
            Watch::start(&core, &format!("{}-{}", plan.cast().replace(' ', "_"), plan.core))?;
        let mut network = Self { plan, moved: None, members: Vec::new(), watch, core };
        for ((role, program), (namespace, host)) in plan.roles().into_iter().zip(places) {
            let program = program.start(&namespace, role, &plan)?;
            network.members.push(Member { role, program, namespace, host });
        }
        for (role, program) in plan.played_sites() {
            if !program.signs() {
                on_behalf::register(&plan, &network.core, role)?;
            }
        }
        network.wait_for_registrations()?;
        Ok(network)
    }

    /// What it was made of.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Where a role is now.
    pub fn rloc(&self, role: Role) -> IpAddr {
        if self.moved == Some(role) { self.plan.moved_rloc(role) } else { self.plan.rloc(role) }
    }

    /// Whether a role was there, and moved away.
    pub fn has_left(&self, address: IpAddr) -> bool {
        self.moved.is_some_and(|role| self.plan.rloc(role) == address)
    }

    /// A site moves to its other RLOC: one of ours by the priorities in its configuration, another one by the address of
    /// its link.
    ///
    /// # Errors
    /// It cannot be reconfigured.
    pub fn relocate(&mut self, role: Role) -> io::Result<()> {
        let plan = self.plan;
        let (old, new, length) = (plan.rloc(role), plan.moved_rloc(role), plan.core_length());
        match &self.member(role)?.program {
            Running::Isthmus(daemon) => {
                daemon.reload(&xtr_configuration(&plan, role, true))?;
            }
            Running::Foreign(_) => {
                let namespace = self.namespace(role)?;
                link::address(namespace, CORE_LINK, net(new, length)?)?;
                let mut command = Command::new("ip");
                command.args(["address", "del", &format!("{old}/{length}"), "dev", CORE_LINK]);
                let status = namespace.start(command)?.wait()?;
                if !status.success() {
                    return Err(io::Error::other(format!("ip address del: {status}")));
                }
            }
        }
        self.moved = Some(role);
        Ok(())
    }

    /// What crosses the core.
    pub fn core(&self) -> &Watch {
        &self.watch
    }

    /// The host behind a role.
    ///
    /// # Errors
    /// There is none.
    pub fn host(&self, role: Role, family: Family) -> io::Result<Host<'_>> {
        let host = self.member(role)?.host.as_ref();
        let namespace = host.ok_or_else(|| io::Error::other(format!("{role} has no host")))?;
        Ok(Host { namespace, address: self.plan.host(role, family) })
    }

    /// Where a role is played.
    ///
    /// # Errors
    /// It is not played here.
    pub fn namespace(&self, role: Role) -> io::Result<&Namespace> {
        Ok(&self.member(role)?.namespace)
    }

    /// The daemon of ours that plays a role.
    ///
    /// # Errors
    /// Somebody else plays it, or nobody.
    pub fn daemon(&self, role: Role) -> io::Result<&Daemon> {
        match &self.member(role)?.program {
            Running::Isthmus(daemon) => Ok(daemon),
            Running::Foreign(_) => Err(io::Error::other(format!("{role} is not ours"))),
        }
    }

    /// What our tunnel routers and gateways counted so far.
    ///
    /// # Errors
    /// One cannot be asked.
    pub fn tally(&self) -> io::Result<Vec<Tally>> {
        let mut tallies = Vec::new();
        for Member { role, program, .. } in &self.members {
            let Running::Isthmus(daemon) = program else { continue };
            if *role == Role::Mapping {
                continue;
            }
            let counters = daemon.ask(&Query::Counters)?;
            let count = |names: [&str; 2]| names.iter().filter_map(|n| counters[n].as_u64()).sum();
            tallies.push(Tally {
                role: *role,
                encapsulated: count(["itr_encap", "pitr_encap"]),
                decapsulated: count(["etr_decap", "petr_decap"]),
                dropped: data_drops(&daemon.ask(&Query::Drops)?),
            });
        }
        Ok(tallies)
    }

    /// The logs of everybody.
    pub fn logs(&self) -> String {
        let log = |member: &Member| {
            format!("--- {} ({})\n{}\n", member.role, member.namespace.name(), member.program.log())
        };
        self.members.iter().map(log).collect()
    }

    fn member(&self, role: Role) -> io::Result<&Member> {
        let found = self.members.iter().find(|member| member.role == role);
        found.ok_or_else(|| io::Error::other(format!("nobody plays {role}")))
    }

    fn wait_for_registrations(&self) -> io::Result<()> {
        let deadline = Instant::now() + REGISTRATIONS;
        while !self.is_registered()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("not all sites registered\n{}", self.logs())));
            }
            thread::sleep(Duration::from_millis(50));
        }
        let blind = self.plan.mapping != Program::Isthmus
            && self.plan.played_sites().iter().any(|&(_, program)| program != Program::Isthmus);
        if blind {
            thread::sleep(BLIND);
        }
        Ok(())
    }

    /// As our Map-Server says, or for another one our tunnel routers.
    fn is_registered(&self) -> io::Result<bool> {
        if self.plan.mapping == Program::Isthmus {
            let registrations = self.daemon(Role::Mapping)?.ask(&Query::Registrations)?;
            let count = registrations.as_array().map_or(0, Vec::len);
            return Ok(count >= 2 * self.plan.registered_sites().len());
        }
        for (role, program) in self.plan.played_sites() {
            if program != Program::Isthmus {
                continue;
            }
            let registrations = self.daemon(role)?.ask(&Query::Registrations)?;
            let all = registrations.as_array().map(Vec::as_slice).unwrap_or_default();
            if all.iter().any(|one| one["state"] != "registered") {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A namespace that works at once.
fn machine(name: &'static str) -> io::Result<Namespace> {
    let namespace = Namespace::create(name)?;
    link::settings(&namespace, SETTINGS)?;
    link::up(&namespace, "lo")?;
    Ok(namespace)
}

/// The machine of a role with its link to the core, and its host.
fn place(plan: &Plan, core: &Namespace, role: Role) -> io::Result<(Namespace, Option<Namespace>)> {
    let (name, host) = match role {
        Role::Mapping => ("ms", None),
        Role::Site(1) => ("xtr-1", Some("host-1")),
        Role::Site(_) => ("xtr-2", Some("host-2")),
        Role::Proxy => ("pxtr", Some("host-n")),
    };
    let namespace = machine(name)?;
    link::settings(&namespace, FORWARDING)?;
    link::connect(CORE_MTU, (core, name), (&namespace, CORE_LINK))?;
    for (namespace, name) in [(core, name), (&namespace, CORE_LINK)] {
        link::wire_sized(namespace, name)?;
        // VPP takes a checksum that is still to be computed along to the packet inside.
        if plan.roles().iter().any(|&(_, program)| program == Program::Vpp) {
            offload::compute_checksums(namespace, name)?;
        }
        link::up(namespace, name)?;
    }
    let length = plan.core_length();
    link::address(core, name, net(plan.core_gateway(role), length)?)?;
    link::address(&namespace, CORE_LINK, net(plan.rloc(role), length)?)?;
    if plan.mover == Some(role) {
        link::address(&namespace, CORE_LINK, net(plan.moved_rloc(role), length)?)?;
    }
    let gateway = plan.core_gateway(role);
    link::route(&namespace, everywhere(plan.core)?, Some(gateway), CORE_LINK)?;
    let host = host.map(|host| attach(plan, &namespace, role, host)).transpose()?;
    Ok((namespace, host))
}

fn attach(
    plan: &Plan,
    router: &Namespace,
    role: Role,
    name: &'static str,
) -> io::Result<Namespace> {
    let host = machine(name)?;
    link::connect(CORE_MTU, (router, LAN_LINK), (&host, HOST_LINK))?;
    for (namespace, name) in [(router, LAN_LINK), (&host, HOST_LINK)] {
        // Whoever takes packets from the wire finds them as on a physical one.
        offload::compute_checksums(namespace, name)?;
        link::up(namespace, name)?;
    }
    for family in Family::BOTH {
        let (gateway, length) =
            (plan.gateway(role, family), plan.network(role, family).prefix_len());
        link::address(router, LAN_LINK, net(gateway, length)?)?;
        link::address(&host, HOST_LINK, net(plan.host(role, family), length)?)?;
        link::route(&host, everywhere(family)?, Some(gateway), HOST_LINK)?;
    }
    Ok(host)
}

fn net(address: IpAddr, length: u8) -> io::Result<IpNet> {
    IpNet::new(address, length).map_err(io::Error::other)
}

fn everywhere(family: Family) -> io::Result<IpNet> {
    family.pick("0.0.0.0/0", "::/0").parse().map_err(io::Error::other)
}

/// Drops of the data plane by reason, but for what is not traffic: messages (`control_`), which peers repeat as they like, and
/// the link-local multicast of hosts.
fn data_drops(drops: &Value) -> BTreeMap<String, u64> {
    let drops = drops.as_array().map(Vec::as_slice).unwrap_or_default();
    let named = drops.iter().filter_map(|drop| {
        Some((drop["reason"].as_str()?.to_owned(), drop["count"].as_u64().unwrap_or_default()))
    });
    let is_traffic =
        |reason: &str| !reason.starts_with("control_") && reason != "inner_destination_martian";
    named.filter(|(reason, _)| is_traffic(reason)).collect()
}
