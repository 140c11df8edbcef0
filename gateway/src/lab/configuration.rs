//! The configuration files of the lab's daemons.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use super::addresses::{
    EID_AGGREGATES, M_POLICIES, MS4, MS6, ORG_A, ORG_B, ORG_ROOT, Organisation, PXTR4, PXTR6,
    RLOC_RANGES, SITE_A, SITE_B, SITE_C, SITES, Site, m_prefix, m_rlocs,
};
use super::topology::SITE_LINK;

/// Between two registrations of a site: shorter than the usual minute, so that scenario F1 need not wait for one.
pub(crate) const REGISTRATION_INTERVAL: Duration = Duration::from_secs(4);

/// The Map-Server and Map-Resolver: every site may register its EID-prefixes from its core.
pub(crate) fn mapping(key_directory: &str) -> String {
    let mut text = format!("[mapping]\nlisten = [\"{MS4}\", \"{MS6}\"]\n");
    for site in &SITES {
        let locators = RLOC_RANGES[usize::from(site.rloc.is_ipv6())];
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key_directory}/site-{name}.key\" }}]\n\
             eid-prefixes = [\"{}\", \"{}\"]\nallowed-locators = [\"{locators}\"]\n",
            site.prefix6(),
            site.prefix4(),
            name = site.name,
        );
    }
    let prefixes: Vec<_> =
        (0..M_POLICIES.len()).map(|policy| m_prefix(policy).to_string()).collect();
    let prefixes: Vec<_> = prefixes.iter().map(String::as_str).collect();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n[[site]]\nname = \"m\"\nkeys = [{{ id = 1, file = \"{key_directory}/site-m.key\" }}]\n\
         eid-prefixes = {}\n",
        quoted(&prefixes)
    );
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "\n[[subscriber]]\nname = \"pxtr\"\nsite-id = 100\nkey-id = 1\nkey-file = \"{key_directory}/site-pxtr.key\"\n\
         allowed-locators = {}\n",
        quoted(&RLOC_RANGES)
    );
    text
}

/// Site M's xTR: a locator-set of its own for each EID-prefix.
pub(crate) fn xtr_m(key_directory: &str) -> String {
    let (mut rlocs, mut eids) = (Vec::new(), String::new());
    for (policy, shares) in M_POLICIES.iter().enumerate() {
        let mut names = Vec::new();
        for (address, (priority, weight)) in m_rlocs(policy).iter().zip(*shares) {
            let name = format!("m{}", rlocs.len());
            rlocs.push(format!(
                "{name} = {{ address = \"{address}\", priority = {priority}, weight = {weight} }}"
            ));
            names.push(name);
        }
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        // Writing to a String cannot fail.
        let _ = write!(
            eids,
            "\n[[eid]]\nprefix = \"{}\"\nlocator-set = {}\ninterfaces = [\"{SITE_LINK}\"]\n",
            m_prefix(policy),
            quoted(&names)
        );
    }
    format!(
        "[xtr]\nname = \"xtr-m\"\nrlocs = {{ {} }}\n\
         map-servers = [{{ address = \"{MS4}\", key-id = 1, key-file = \"{key_directory}/site-m.key\" }}]\n\
         map-resolvers = [\"{MS4}\"]\nregistration-interval = \"{}s\"\ntun = {{ queues = 1 }}\n{eids}",
        rlocs.join(", "),
        REGISTRATION_INTERVAL.as_secs()
    )
}

/// A site's xTR. Site B has no PETR, which is what X1's negative case needs.
pub(crate) fn xtr(site: &Site, key_directory: &str) -> String {
    let Site { name, rloc, .. } = site;
    let (core, map_server, petr) = core_of(*rloc);
    let use_petr = if name == &SITE_B.name {
        String::new()
    } else {
        format!("use-petr = [{{ address = \"{petr}\", priority = 1, weight = 100 }}]\n")
    };
    // Sites A and C are those that have to notice what happens to a path.
    let fast = [SITE_A.name, SITE_C.name].contains(name);
    let probing =
        if fast { "probe = { interval = \"500ms\", idle-interval = \"500ms\" }\n" } else { "" };
    let mut text = format!(
        "[xtr]\nname = \"xtr-{name}\"\n\
         rlocs = {{ {core} = {{ address = \"{rloc}\", priority = 1, weight = 100 }} }}\n\
         map-servers = [{{ address = \"{map_server}\", key-id = 1, key-file = \"{key_directory}/site-{name}.key\", \
         algorithm = \"hmac-sha-256-128-hkdf\" }}]\n\
         map-resolvers = [\"{map_server}\"]\nproxy-reply = true\nregistration-interval = \"{}s\"\n{probing}{use_petr}",
        REGISTRATION_INTERVAL.as_secs()
    );
    for prefix in [site.prefix6(), site.prefix4()] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[eid]]\nprefix = \"{prefix}\"\nlocator-set = \"{core}\"\ninterfaces = [\"{SITE_LINK}\"]\n"
        );
    }
    text
}

/// The proxy gateway: PITR, PETR and RTR for all EIDs, subscribed to every mapping that it looks up.
pub(crate) fn gateway(key_directory: &str) -> String {
    let aggregates = quoted(&EID_AGGREGATES);
    let rlocs = quoted(&RLOC_RANGES);
    format!(
        "[gateway]\nname = \"pxtr\"\nrlocs = [\"{PXTR4}\", \"{PXTR6}\"]\nmap-resolvers = [\"{MS4}\"]\n\
         xtr-id = \"b0de\"\nsite-id = 100\nsubscribe = {{ key-id = 1, key-file = \"{key_directory}/site-pxtr.key\" }}\n\
         \n[pitr]\neid-aggregates = {aggregates}\nannounce = {{ drain = \"0s\" }}\n\
         \n[petr]\naccept-from = {{ registered = true, rlocs = {rlocs}, eids = {aggregates} }}\n\
         \n[rtr]\neid-prefixes = {aggregates}\n"
    )
}

/// The root of scenario D1's tree: every EID is its to delegate, and both organisations have a block.
pub(crate) fn ddt_root() -> String {
    let mut text = format!(
        "[mapping]\nname = \"ddt-root\"\nlisten = [\"{ORG_ROOT}\"]\n\n\
         [[ddt.authoritative]]\nprefix = \"::/0\"\ninstance-id = \"all\"\ncomplete = true\n"
    );
    for organisation in [ORG_A, ORG_B] {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[ddt.delegation]]\nprefix = \"{}\"\nrlocs = [\"{}\"]\nmap-server = true\n",
            organisation.block(),
            organisation.map_server
        );
    }
    text
}

/// The Map-Server of an organisation, which with `resolver` follows lookups through the tree.
pub(crate) fn ddt_map_server(
    organisation: &Organisation,
    key_directory: &str,
    resolver: bool,
) -> String {
    let Organisation { name, map_server, .. } = organisation;
    let roots = if resolver { format!("roots = [\"{ORG_ROOT}\"]\n") } else { String::new() };
    format!(
        "[mapping]\nname = \"ms-{name}\"\nlisten = [\"{map_server}\"]\n\n\
         [ddt]\n{roots}\n\
         [[ddt.authoritative]]\nprefix = \"{}\"\ncomplete = true\n\n\
         [[site]]\nname = \"{name}\"\nkeys = [{{ id = 1, file = \"{key_directory}/site-{name}.key\" }}]\n\
         eid-prefixes = [\"{}\"]\n",
        organisation.block(),
        organisation.prefix()
    )
}

/// The xTR of an organisation's site, whose ETR answers for itself.
pub(crate) fn ddt_xtr(
    organisation: &Organisation,
    resolver: IpAddr,
    key_directory: &str,
) -> String {
    let Organisation { name, map_server, rloc, .. } = organisation;
    format!(
        "[xtr]\nname = \"xtr-{name}\"\nrlocs = {{ core4 = {{ address = \"{rloc}\" }} }}\n\
         map-servers = [{{ address = \"{map_server}\", key-id = 1, key-file = \"{key_directory}/site-{name}.key\" }}]\n\
         map-resolvers = [\"{resolver}\"]\nproxy-reply = false\nregistration-interval = \"{}s\"\n\
         tun = {{ queues = 1 }}\n\n[[eid]]\nprefix = \"{}\"\ninterfaces = [\"{SITE_LINK}\"]\n",
        REGISTRATION_INTERVAL.as_secs(),
        organisation.prefix()
    )
}

/// The Map-Server and Map-Resolver of `sites`, which answers nobody without LISP-SEC.
pub(crate) fn secure_map_server(sites: [&Organisation; 2], key_directory: &str) -> String {
    let mut text = format!(
        "[mapping]\nname = \"ms-sec\"\nlisten = [\"{}\"]\n\n\
         [lisp-sec]\nitr-keys = [{{ id = 7, file = \"{key_directory}/site-itr.key\" }}]\nrequired = true\n",
        sites[0].map_server
    );
    for site in sites {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[site]]\nname = \"{name}\"\n\
             keys = [{{ id = 1, file = \"{key_directory}/site-{name}.key\" }}]\neid-prefixes = [\"{}\"]\n",
            site.prefix(),
            name = site.name,
        );
    }
    text
}

/// The xTR of a site that requires LISP-SEC; its ETR answers for itself.
pub(crate) fn secure_xtr(site: &Organisation, resolvers: &[IpAddr], key_directory: &str) -> String {
    let resolvers: Vec<_> = resolvers.iter().map(ToString::to_string).collect();
    let resolvers: Vec<_> = resolvers.iter().map(String::as_str).collect();
    let lisp_sec = format!(
        "lisp-sec = {{ key-id = 7, key-file = \"{key_directory}/site-itr.key\", required = true }}\n"
    );
    let text = ddt_xtr(site, site.map_server, key_directory);
    let usual = format!("map-resolvers = [\"{}\"]\n", site.map_server);
    text.replace(&usual, &format!("map-resolvers = {}\n{lisp_sec}", quoted(&resolvers)))
}

/// The name of a locator's core, the Map-Server and the PETR there.
fn core_of(rloc: IpAddr) -> (&'static str, IpAddr, IpAddr) {
    if rloc.is_ipv4() { ("core4", MS4, PXTR4) } else { ("core6", MS6, PXTR6) }
}

fn quoted(list: &[&str]) -> String {
    let quoted: Vec<_> = list.iter().map(|text| format!("\"{text}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config;
    use crate::lab::addresses::{MALLORY, SEC_A, SEC_B, SITE_C};

    #[test]
    fn every_file_passes_the_products_own_check() {
        let directory = tempfile::tempdir().unwrap();
        let keys = directory.path().display().to_string();
        for name in SITES
            .iter()
            .map(|site| site.name)
            .chain(["m", "pxtr", "itr", ORG_A.name, ORG_B.name, SEC_A.name, SEC_B.name])
        {
            let key = directory.path().join(format!("site-{name}.key"));
            fs::write(&key, format!("0123456789abcdef of {name}")).unwrap();
            fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let mut files = vec![mapping(&keys), gateway(&keys), xtr_m(&keys), ddt_root()];
        files.push(secure_map_server([&SEC_A, &SEC_B], &keys));
        files.push(secure_xtr(&SEC_A, &[MALLORY, SEC_A.map_server], &keys));
        for organisation in [&ORG_A, &ORG_B] {
            files.push(ddt_map_server(organisation, &keys, organisation.name == ORG_B.name));
            files.push(ddt_xtr(organisation, ORG_B.map_server, &keys));
        }
        files.extend(SITES.iter().map(|site| xtr(site, &keys)));
        for text in files {
            let path = directory.path().join("file.toml");
            fs::write(&path, &text).unwrap();
            if let Err(refused) = config::load(&path, None) {
                panic!("{:?}\n{text}", refused.errors);
            }
        }
    }

    #[test]
    fn only_site_b_has_no_petr() {
        assert!(xtr(SITE_A, "/k").contains("use-petr"));
        assert!(!xtr(SITE_B, "/k").contains("use-petr"));
        assert!(xtr(SITE_C, "/k").contains("\"2001:db8:c0::1\""));
    }
}
