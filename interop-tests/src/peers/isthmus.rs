//! This product in the roles of the matrix.

use std::fmt::Write;
use std::io;

use gateway::lab::namespace::Namespace;

use super::Program;
use crate::daemon::Daemon;
use crate::matrix::network::LAN_LINK;
use crate::matrix::plan::{EID_AGGREGATES, Family, Lispers, Plan, RLOC_RANGES, Role};

pub(super) fn start(namespace: &Namespace, role: Role, plan: &Plan) -> io::Result<Daemon> {
    match role {
        Role::Mapping => Daemon::start(namespace, "mapping", &mapping(plan)),
        Role::Site(_) => Daemon::start(namespace, "xtr", &xtr(plan, role, false)),
        Role::Proxy => Daemon::start(namespace, "gateway", &gateway(plan)),
    }
}

/// Every site with the profile of who serves it, every asker of another make with its profile.
fn mapping(plan: &Plan) -> String {
    let mut text = format!(
        "[mapping]\nname = \"ms\"\nlisten = [\"{}\"]\nclients = [\"{}\"{}]\n",
        plan.rloc(Role::Mapping),
        plan.core.pick(RLOC_RANGES[0], RLOC_RANGES[1]),
        clients(plan)
    );
    for (role, program) in plan.played_sites() {
        let (profile, key) = program.profile();
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "[[site]]\nname = \"{role}\"\nprofile = \"{profile}\"\nkeys = [{{ id = {key}, file = \"KEY\" }}]\n\
             eid-prefixes = [\"{}\", \"{}\"]\n",
            plan.network(role, Family::V4),
            plan.network(role, Family::V6)
        );
        // It neither answers Map-Requests nor asks others to answer for it.
        if program == Program::Vpp {
            text.push_str("force-proxy-reply = true\n");
        }
    }
    text
}

/// Locators that never answer would be taken for down.
fn probing(plan: &Plan) -> &'static str {
    if plan.probes_are_answered() { "" } else { "probe = \"off\"\n" }
}

fn clients(plan: &Plan) -> String {
    lispers_net(plan).iter().map(|entry| format!(", {entry}")).collect()
}

/// The tunnel routers whose telemetry our tunnel routers have to read.
fn peers(plan: &Plan) -> String {
    match plan.lispers {
        Lispers::Telemetry => format!("peers = [{}]\n", lispers_net(plan).join(", ")),
        Lispers::Plain | Lispers::Named | Lispers::Encrypted => String::new(),
    }
}

/// An entry for everybody of lispers.net, by address.
fn lispers_net(plan: &Plan) -> Vec<String> {
    let length = plan.core.pick(32, 128);
    let entry = |role| {
        format!("{{ prefix = \"{}/{length}\", profile = \"lispers.net\" }}", plan.rloc(role))
    };
    let roles = plan.roles().into_iter();
    roles
        .filter(|&(_, program)| program == Program::LispersNet)
        .map(|(role, _)| entry(role))
        .collect()
}

/// A site's tunnel router. One that can move has both RLOCs, and prefers the other one once it has `moved`.
pub fn xtr(plan: &Plan, role: Role, moved: bool) -> String {
    let (profile, key) = plan.mapping.profile();
    let mut rlocs = format!(
        "core = {{ address = \"{}\", priority = {} }}",
        plan.rloc(role),
        1 + u8::from(moved)
    );
    if plan.mover == Some(role) {
        // Writing to a String cannot fail.
        let _ = write!(
            rlocs,
            ", other = {{ address = \"{}\", priority = {} }}",
            plan.moved_rloc(role),
            2 - u8::from(moved)
        );
    }
    let mut text = format!(
        "[xtr]\nname = \"xtr\"\nrlocs = {{ {rlocs} }}\n\
         map-servers = [{{ address = \"{ms}\", key-id = {key}, key-file = \"KEY\", profile = \"{profile}\" }}]\n\
         map-resolvers = [\"{ms}\"]\nproxy-reply = false\nregistration-interval = \"10s\"\ntun = {{ queues = 1 }}\n{probing}{peers}",
        probing = probing(plan),
        peers = peers(plan),
        ms = plan.rloc(Role::Mapping),
    );
    if plan.proxy.is_some() {
        let proxy = plan.rloc(Role::Proxy);
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "use-petr = [{{ address = \"{proxy}\", priority = 1, weight = 100 }}]\nproxy-itrs = [\"{proxy}\"]\n"
        );
    }
    for family in Family::BOTH {
        let prefix = plan.network(role, family);
        // Writing to a String cannot fail.
        let _ = write!(text, "[[eid]]\nprefix = \"{prefix}\"\ninterfaces = [\"{LAN_LINK}\"]\n");
    }
    text
}

fn gateway(plan: &Plan) -> String {
    let [v4, v6] = EID_AGGREGATES;
    format!(
        "[gateway]\nname = \"pxtr\"\nrlocs = [\"{}\"]\nmap-resolvers = [\"{}\"]\ntun = {{ queues = 1 }}\n{probing}{peers}\
         [pitr]\neid-aggregates = [\"{v4}\", \"{v6}\"]\n\
         [petr]\naccept-from = {{ rlocs = [\"{}\"], eids = [\"{v4}\", \"{v6}\"] }}\n",
        plan.rloc(Role::Proxy),
        plan.rloc(Role::Mapping),
        plan.core.pick(RLOC_RANGES[0], RLOC_RANGES[1]),
        probing = probing(plan),
        peers = peers(plan),
    )
}
