//! PURE. From facts to findings.
use super::Severity::{Error, Note, Warning};
use super::{Facts, Finding, LinkFact, RingFact, Severity, TunFact, Wanted};

const CAP_NET_ADMIN: u64 = 1 << 12;
const CAP_NET_RAW: u64 = 1 << 13;
const CAP_IPC_LOCK: u64 = 1 << 14;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_BPF: u64 = 1 << 39;
/// What the sockets ask for, octets.
const SOCKET_BUFFER: u64 = 16 << 20;
/// Less locked memory than this may not do, octets.
const MEMLOCK: u64 = 8 << 20;
/// The outer headers, octets, by family of the RLOCs.
const OVERHEAD: [u32; 2] = [36, 56];
/// What hosts send, octets.
const USUAL_MTU: u32 = 1500;
/// What IPv6 has to carry, octets.
const LEAST_MTU: u32 = 1280;
/// The first second of 2025: no clock that was set is before it.
const LATELY: u64 = 1_735_689_600;

/// What is not as it should be, what matters most first.
pub fn findings(wanted: &Wanted, facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    if wanted.router {
        capabilities(wanted, facts, &mut found);
        io_uring(facts, &mut found);
        tun(wanted, facts, &mut found);
        forwarding(wanted, facts, &mut found);
        rp_filter(wanted, facts, &mut found);
        memlock(facts, &mut found);
        descriptors(wanted, facts, &mut found);
    }
    links(wanted, facts, &mut found);
    routes(wanted, facts, &mut found);
    ports(facts, &mut found);
    buffers(facts, &mut found);
    clock(wanted, facts, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

fn finding(
    (check, severity): (&'static str, Severity),
    what: impl Into<String>,
    means: impl Into<String>,
    mend: impl Into<String>,
) -> Finding {
    Finding { check, severity, what: what.into(), means: means.into(), mend: mend.into() }
}

fn capabilities(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    let has = |capability| facts.capabilities & capability != 0;
    let needed = [(CAP_NET_ADMIN, "CAP_NET_ADMIN"), (CAP_NET_RAW, "CAP_NET_RAW")];
    let missing: Vec<&str> =
        needed.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name).collect();
    if !missing.is_empty() {
        found.push(finding(
            ("capabilities", Error),
            format!("{} is missing", missing.join(" and ")),
            "tunnel device, routes and raw sockets cannot be made.",
            "run as root, or: systemctl start isthmus@ROLE",
        ));
    }
    if wanted.ring && !has(CAP_BPF) && !has(CAP_SYS_ADMIN) {
        found.push(finding(
            ("capabilities", Error),
            "CAP_BPF is missing",
            "intake = \"ring\" needs it for its program.",
            "run as root, or take intake = \"ring\" out of [data]",
        ));
    }
}

fn io_uring(facts: &Facts, found: &mut Vec<Finding>) {
    const STOPS: &str = "the data plane cannot start.";
    const ALLOW: &str = "sysctl -w kernel.io_uring_disabled=0";
    let stops = ("io-uring", Error);
    match (&facts.ring, facts.io_uring_disabled) {
        (RingFact::Works, Some(1)) => found.push(finding(
            ("io-uring", Warning),
            "io_uring is disabled by this host's policy for unprivileged users (kernel.io_uring_disabled is 1)",
            "it works for who ran this; the service's own user is refused it unless it is in the group kernel.io_uring_group.",
            format!("{ALLOW}, or: sysctl -w kernel.io_uring_group=$(id -g isthmus)"),
        )),
        (RingFact::Works, _) => {}
        (RingFact::Forbidden, Some(2)) => found.push(finding(
            stops,
            "io_uring is disabled by this host's policy for everybody (kernel.io_uring_disabled is 2)",
            STOPS,
            ALLOW,
        )),
        (RingFact::Forbidden, Some(1)) => found.push(finding(
            stops,
            "io_uring is disabled by this host's policy for unprivileged users (kernel.io_uring_disabled is 1)",
            STOPS,
            format!("{ALLOW}, or: sysctl -w kernel.io_uring_group=$(id -g isthmus)"),
        )),
        (RingFact::Forbidden, _) => found.push(finding(
            stops,
            "io_uring is forbidden by a seccomp filter, as container engines have it",
            STOPS,
            "run the container with a seccomp profile that allows io_uring_setup, io_uring_enter and io_uring_register",
        )),
        (RingFact::Missing, _) => found.push(finding(
            stops,
            "this kernel has no io_uring, or a seccomp filter hides it",
            STOPS,
            "run Linux 6.7 or later with CONFIG_IO_URING; in a container allow the io_uring system calls",
        )),
        (RingFact::TooOld, _) => found.push(finding(
            stops,
            "this kernel's io_uring is too old",
            STOPS,
            "run Linux 6.7 or later",
        )),
        (RingFact::NoMemory, _) => found.push(finding(
            stops,
            "no memory for io_uring",
            STOPS,
            "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
        )),
        (RingFact::Failed(error), _) => found.push(finding(
            stops,
            format!("io_uring fails: {error}"),
            STOPS,
            "run Linux 6.7 or later",
        )),
    }
}

fn tun(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    const STOPS: &str = "no tunnel device can be made.";
    let stops = ("tun-device", Error);
    match &facts.tun {
        TunFact::Usable => {}
        TunFact::Missing => found.push(finding(
            stops,
            "/dev/net/tun is not there",
            STOPS,
            "modprobe tun; of a container: --device /dev/net/tun",
        )),
        TunFact::Denied => found.push(finding(
            stops,
            "/dev/net/tun may not be opened",
            STOPS,
            "chmod 0666 /dev/net/tun; of a container: --device /dev/net/tun",
        )),
        TunFact::Failed(error) => {
            found.push(finding(stops, format!("/dev/net/tun: {error}"), STOPS, "modprobe tun"));
        }
    }
    let is_running = facts.taken.iter().any(|(.., holder)| is_isthmus(holder.as_deref()));
    if facts.tun_name_taken && !is_running {
        found.push(finding(
            stops,
            format!("there is an interface {} already", wanted.tun),
            "the tunnel device cannot be made under that name.",
            format!("ip link delete {}, or another name: tun = {{ name = \"..\" }}", wanted.tun),
        ));
    }
}

fn forwarding(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    let mut one = |wanted: bool, fact: Option<bool>, name: &str, family: &str| {
        if wanted && fact == Some(false) {
            found.push(finding(
                ("forwarding", Error),
                format!("{name} is 0"),
                format!("the kernel forwards no {family}: no packet gets between the tunnel device and other interfaces."),
                format!("sysctl -w {name}=1"),
            ));
        }
    };
    one(wanted.ipv4, facts.forwarding_v4, "net.ipv4.ip_forward", "IPv4");
    one(wanted.ipv6, facts.forwarding_v6, "net.ipv6.conf.all.forwarding", "IPv6");
}

/// The larger of `all` and an interface's own counts. The tunnel device's own is the daemon's to set.
fn rp_filter(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    let of =
        |name: &str| facts.rp_filter.iter().find(|(one, _)| one == name).map(|(_, value)| *value);
    if !wanted.ipv4 && facts.links.iter().all(|link| link.underlay_ipv6) {
        return;
    }
    if of("all") == Some(1) {
        found.push(finding(
            ("rp-filter", Warning),
            "net.ipv4.conf.all.rp_filter is 1 and overrules the tunnel device's",
            "decapsulated IPv4 packets whose sources are routed elsewhere are dropped.",
            "sysctl -w net.ipv4.conf.all.rp_filter=0",
        ));
        return;
    }
    let underlay: Vec<&LinkFact> = facts.links.iter().filter(|link| link.underlay).collect();
    for link in underlay.iter().filter(|_| underlay.len() > 1) {
        if of(&link.name) == Some(1) {
            let name = format!("net.ipv4.conf.{}.rp_filter", link.name);
            found.push(finding(
                ("rp-filter", Warning),
                format!("{name} is 1 on one of several interfaces with RLOCs"),
                "LISP packets that come by another interface than the way back are dropped.",
                format!("sysctl -w {name}=2"),
            ));
        }
    }
}

fn links(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    for address in &facts.missing_addresses {
        found.push(finding(
            ("interfaces", Error),
            format!("{address} is on no interface of this host"),
            "the daemon does not start without its addresses.",
            format!("ip address add {address}/LENGTH dev INTERFACE"),
        ));
    }
    for link in &facts.links {
        let name = &link.name;
        if link.missing {
            found.push(finding(
                ("interfaces", Error),
                format!("there is no interface {name}"),
                "the daemon does not start without it.",
                "mend its name in the configuration",
            ));
        } else if !link.running {
            found.push(finding(
                ("interfaces", Warning),
                format!("{name} is down, or has no carrier"),
                "nothing comes or goes there.",
                format!("ip link set {name} up"),
            ));
        }
        if wanted.router && !link.missing {
            mtu(wanted, link, found);
            offloads(link, found);
        }
    }
}

fn mtu(wanted: &Wanted, link: &LinkFact, found: &mut Vec<Finding>) {
    let overhead = OVERHEAD[usize::from(link.underlay_ipv6)];
    let (name, mtu) = (&link.name, link.mtu);
    if !link.underlay || mtu >= USUAL_MTU + overhead {
        return;
    }
    let carried = mtu.saturating_sub(overhead);
    let too_small = wanted.ipv6 && carried < LEAST_MTU;
    let means = match too_small {
        true => format!(
            "inner packets of {carried} octets fit: less than IPv6 has to carry, hosts cannot go below {LEAST_MTU}."
        ),
        false => format!(
            "inner packets of {carried} octets fit; hosts are told so where they send larger ones."
        ),
    };
    found.push(finding(
        ("mtu", if too_small { Warning } else { Note }),
        format!("{name} carries outer packets of {mtu} octets"),
        means,
        format!(
            "if everything up to the other RLOCs carries them: ip link set {name} mtu {}",
            USUAL_MTU + overhead
        ),
    ));
}

fn offloads(link: &LinkFact, found: &mut Vec<Finding>) {
    let Some([gro, gso, lro]) = link.offloads else { return };
    let name = &link.name;
    if lro {
        found.push(finding(
            ("offloads", Warning),
            format!("{name} has large-receive-offload on"),
            "packets that the hardware merged cannot be forwarded as they came.",
            format!("ethtool -K {name} lro off"),
        ));
    }
    for (is_on, what, short) in
        [(gro, "generic-receive-offload", "gro"), (gso, "generic-segmentation-offload", "gso")]
    {
        if !is_on {
            found.push(finding(
                ("offloads", Note),
                format!("{name} has {what} off"),
                "every packet costs as much as a burst would.",
                format!("ethtool -K {name} {short} on"),
            ));
        }
    }
}

fn routes(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    let peers: Vec<_> = wanted.peers.iter().zip(&facts.paths).collect();
    let resolvers = || peers.iter().filter(|((what, _), _)| *what == "Map-Resolver");
    let all_lost = resolvers().count() > 0 && resolvers().all(|(_, path)| path.is_none());
    for ((what, address), path) in &peers {
        if path.is_some() {
            continue;
        }
        let is_lost = all_lost && *what == "Map-Resolver";
        found.push(finding(
            ("routes", if is_lost { Error } else { Warning }),
            format!("there is no route to the {what} {address}"),
            if is_lost {
                "no Map-Resolver can be asked: no EID is found."
            } else {
                "nothing can be sent there."
            },
            format!("ip route add {address} via GATEWAY"),
        ));
    }
}

fn ports(facts: &Facts, found: &mut Vec<Finding>) {
    for (address, port, holder) in &facts.taken {
        let what = format!("UDP port {port} of {address} is taken");
        match holder.as_deref() {
            holder if is_isthmus(holder) => found.push(finding(
                ("ports", Note),
                format!("{what} by {}", holder.unwrap_or_default()),
                "a daemon of ours runs already.",
                "isthmus show status",
            )),
            holder => found.push(finding(
                ("ports", Error),
                format!("{what}{}", holder.map(|one| format!(" by {one}")).unwrap_or_default()),
                "the daemon cannot receive LISP messages there.",
                format!("ss -lunp sport = {port} names who has it: stop that"),
            )),
        }
    }
}

fn is_isthmus(holder: Option<&str>) -> bool {
    holder.is_some_and(|holder| holder.starts_with("isthmus"))
}

fn buffers(facts: &Facts, found: &mut Vec<Finding>) {
    let can_force = facts.capabilities & CAP_NET_ADMIN != 0;
    let Some(most) = facts.rmem_max.filter(|&most| most < SOCKET_BUFFER && !can_force) else {
        return;
    };
    found.push(finding(
        ("socket-buffers", Warning),
        format!("net.core.rmem_max is {most}"),
        "the sockets hold fewer packets than a burst brings: the rest is dropped (kernel_udp_buffer in show drops).",
        format!("sysctl -w net.core.rmem_max={SOCKET_BUFFER}"),
    ));
}

fn memlock(facts: &Facts, found: &mut Vec<Finding>) {
    let is_exempt = facts.capabilities & CAP_IPC_LOCK != 0;
    let Some(limit) = facts.memlock.filter(|&limit| limit < MEMLOCK && !is_exempt) else { return };
    found.push(finding(
        ("memlock", Warning),
        format!("no more than {limit} octets of memory may be locked"),
        "io_uring may be refused its memory.",
        "ulimit -l unlimited, or LimitMEMLOCK=infinity in the unit",
    ));
}

fn descriptors(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    if facts.descriptors < wanted.descriptors {
        found.push(finding(
            ("descriptors", Error),
            format!("no more than {} files may be open", facts.descriptors),
            format!(
                "the data plane opens {}: a socket per source port, RLOC and worker.",
                wanted.descriptors
            ),
            "ulimit -Hn 65536, or LimitNOFILE=65536 in the unit; or fewer [data] source-ports",
        ));
    }
}

fn clock(wanted: &Wanted, facts: &Facts, found: &mut Vec<Finding>) {
    let set = "timedatectl set-ntp true, or run another NTP client";
    if facts.unix_seconds < LATELY {
        found.push(finding(
            ("clock", Error),
            format!("the clock says {} s since 1970", facts.unix_seconds),
            "nonces count from the time of day: Map-Servers take messages with older ones for repeated, and refuse them.",
            set,
        ));
    } else if facts.clock_synchronized == Some(false) {
        found.push(finding(
            ("clock", Note),
            "nothing keeps the clock right",
            match wanted.trusts_clock {
                true => "nonces count from the time of day, and if it goes back over a restart, Map-Servers refuse them as repeated.",
                false => "times in logs and events are not to be compared with others.",
            },
            match wanted.trusts_clock {
                true => format!("{set}; or set state-dir, which keeps the nonces"),
                false => set.to_owned(),
            },
        ));
    }
}
