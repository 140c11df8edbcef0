//! Where a namespace sends what it has for a destination, watched all the time.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gateway::lab::namespace::Namespace;

/// Between two looks.
const LOOK: Duration = Duration::from_millis(1);

/// Watches until it is finished.
pub struct WayWatch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Change>>,
}

/// Another way than before.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    /// When it was seen.
    pub at: Instant,
    /// When the way before was last seen.
    pub before: Instant,
    /// The destination.
    pub to: IpAddr,
    /// The own address that packets leave with, which tells the link; `None` if there is no way.
    pub with: Option<IpAddr>,
}

impl WayWatch {
    /// Watches where `namespace` sends to each of `destinations`.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn start(namespace: &Namespace, destinations: [IpAddr; 2]) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = namespace.spawn(move || {
            let mut changes = Vec::new();
            let mut last = destinations.map(|to| (way(to), Instant::now()));
            while !stopped.load(Ordering::Acquire) {
                for (to, (last, seen)) in destinations.iter().zip(&mut last) {
                    let looked = Instant::now();
                    let now = way(*to);
                    if now != *last {
                        *last = now;
                        let (at, before) = (Instant::now(), *seen);
                        changes.push(Change { at, before, to: *to, with: now });
                    }
                    *seen = looked;
                }
                thread::sleep(LOOK);
            }
            changes
        })?;
        Ok(Self { stop, thread })
    }

    /// Every change since the start.
    ///
    /// # Errors
    /// The watcher panicked.
    pub fn finish(self) -> io::Result<Vec<Change>> {
        self.stop.store(true, Ordering::Release);
        self.thread.join().map_err(|_| io::Error::other("the watch of the way panicked"))
    }
}

/// The own address with which `namespace` sends to `destination`.
///
/// # Errors
/// The namespace is gone.
pub fn way_of(namespace: &Namespace, destination: IpAddr) -> io::Result<Option<IpAddr>> {
    namespace.run(move || way(destination))
}

fn way(destination: IpAddr) -> Option<IpAddr> {
    let any: IpAddr = match destination {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    // Nothing is sent: the kernel looks its route up.
    socket.connect((destination, 9)).ok()?;
    socket.local_addr().ok().map(|local| local.ip())
}
