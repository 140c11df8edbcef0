//! A gateway's host and a site's host at the two ends of one wire.
//!
//! ```text
//!   native addresses [native] 198.51.100.1 core0 --- core1 RLOCs [site] 203.0.113.1
//! ```

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use gateway::lab::link;
use gateway::lab::namespace::Namespace;
use mapping::admin::Query;

use crate::daemon::Daemon;

/// How long registrations may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The two hosts.
pub struct Hosts {
    /// Where the gateway runs: 198.51.100.1.
    pub native: Namespace,
    /// Where the site's tunnel router and the mapping system run; the EID 203.0.113.1.
    pub site: Namespace,
}

impl Hosts {
    /// Both, with these addresses of hosts on the native side and these RLOCs (`ADDRESS/LENGTH`) on the site's.
    ///
    /// # Errors
    /// What the kernel said; `PermissionDenied` without the privilege to make namespaces.
    pub fn build(hosts: &[&str], rlocs: &[&str]) -> io::Result<Self> {
        let native = Namespace::create("native")?;
        let site = Namespace::create("site")?;
        link::up(&native, "lo")?;
        link::up(&site, "lo")?;
        link::connect(1500, (&native, "core0"), (&site, "core1"))?;
        link::up(&native, "core0")?;
        link::up(&site, "core1")?;
        let net = |text: &str| text.parse().map_err(io::Error::other);
        link::address(&native, "core0", net("198.51.100.1/24")?)?;
        for address in hosts {
            link::address(&native, "lo", net(address)?)?;
        }
        for address in rlocs {
            link::address(&site, "core1", net(address)?)?;
        }
        link::address(&site, "lo", net("203.0.113.1/32")?)?;
        Ok(Self { native, site })
    }
}

/// Waits until a Map-Server has this many registrations.
///
/// # Errors
/// It cannot be asked, or has fewer after half a minute.
pub fn wait_for_registrations(mapping: &Daemon, count: usize) -> io::Result<()> {
    let start = Instant::now();
    while mapping.ask(&Query::Registrations)?.as_array().map_or(0, Vec::len) < count {
        if start.elapsed() > PATIENCE {
            return Err(io::Error::other(mapping.log()));
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// What was built; without the privilege for it, `None` and a word.
///
/// # Panics
/// With any other error.
pub fn or_skip<T>(built: io::Result<T>) -> Option<T> {
    match built {
        Ok(built) => Some(built),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("SKIP: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
