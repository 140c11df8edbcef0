//! Kernel switches: those of our TUN we set, those of the host we only check.
use std::fs;
use std::path::PathBuf;

/// Sets up the TUN: packets of remote EIDs come out of it, which strict reverse-path filtering would drop. Returns what failed.
pub fn configure_tun(tun: &str) -> Vec<String> {
    let name = format!("net.ipv4.conf.{tun}.rp_filter");
    match fs::write(path(&["ipv4", "conf", tun, "rp_filter"]), "0") {
        Ok(()) => Vec::new(),
        Err(error) => {
            vec![format!("Cannot set {name} = 0 ({error}): decapsulated packets may be dropped.")]
        }
    }
}

/// What in the host's switches keeps traffic of these families from flowing, naming the sysctl to change.
pub fn check_host(ipv4: bool, ipv6: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let mut forwarding = |wanted: bool, path: PathBuf, name: &str| {
        if wanted && read(path).as_deref() == Some("0") {
            notes.push(format!(
                "{name} is 0: nothing is forwarded; set it with `sysctl -w {name}=1`."
            ));
        }
    };
    forwarding(ipv4, path(&["ipv4", "ip_forward"]), "net.ipv4.ip_forward");
    forwarding(ipv6, path(&["ipv6", "conf", "all", "forwarding"]), "net.ipv6.conf.all.forwarding");
    if ipv4 && read(path(&["ipv4", "conf", "all", "rp_filter"])).as_deref() == Some("1") {
        notes.push(
            "net.ipv4.conf.all.rp_filter is 1 and overrules the TUN: decapsulated packets may be dropped; \
             set it with `sysctl -w net.ipv4.conf.all.rp_filter=0`."
                .to_owned(),
        );
    }
    notes
}

fn path(parts: &[&str]) -> PathBuf {
    parts.iter().fold(PathBuf::from("/proc/sys/net"), |path, part| path.join(part))
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
}
