//! Hosts of dynamic-EID ranges on the site's links: who is there, and what the host's routing does about it (DY-01).
//!
//! | file | what |
//! |---|---|
//! | `frames` | ARP and Neighbor Discovery, read and written |
//! | `sightings` | which signs of hosts are passed on |
//! | `responder` | for whom the gateway answers |
//! | `leases` | the files of DHCP servers |
//! | `neighbours` | what the kernel finds out |
//! | `host_routes` | routes to hosts that are here, and to those that left |
//! | `gateway_mac` | the gateway that is the same at every site |
//! | `backlog` | changes that a slow kernel has yet to make |
//! | `watch` | the task that owns all of it |
//!
//! A host that arrives is seen by its first frame: neighbour tables alone would miss it, for the kernel learns nothing from an announcement
//! of somebody it does not know.
mod backlog;
pub mod frames;
pub mod gateway_mac;
pub mod host_routes;
pub mod leases;
pub mod neighbours;
pub mod responder;
pub mod sightings;
mod watch;

pub use frames::Mac;
pub use gateway_mac::Gateways;

use crate::config::GatewayMac;
use backlog::Backlog;
use ipnet::IpNet;
use rtnetlink::Handle;
use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Hosts seen that wait for the control plane; what comes beyond is counted, and seen again.
const SEEN: usize = 1024;
/// Changes under way to the kernel.
const CHANGES: usize = 256;

/// How a host was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// A frame of ARP or Neighbor Discovery, or the kernel's neighbour table.
    Neighbour,
    /// A lease of a DHCP server.
    Lease,
}

/// A host was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The site interface, if it is known.
    pub interface: Option<String>,
    /// Its address.
    pub address: IpAddr,
    /// How.
    pub sign: Sign,
}

/// What is known of a host now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is at this site, on the first of these interfaces that exists.
    Here(IpAddr, Vec<String>),
    /// It is at another site.
    Away(IpAddr),
    /// Nothing.
    Forget(IpAddr),
    /// It is asked for a sign of life, on these interfaces.
    Probe(IpAddr, Vec<String>),
}

impl Change {
    /// Which host it is about.
    pub const fn address(&self) -> IpAddr {
        match self {
            Self::Here(address, _)
            | Self::Away(address)
            | Self::Forget(address)
            | Self::Probe(address, _) => *address,
        }
    }
}

/// A dynamic-EID range on the site's links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Its addresses.
    pub prefix: IpNet,
    /// The site interfaces on which its hosts may be.
    pub interfaces: Vec<String>,
    /// The links reach other sites.
    pub extended: bool,
    /// It is the site's own: a host that is not known to be elsewhere is here.
    pub at_home: bool,
}

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LanConfig {
    /// The ranges.
    pub ranges: Vec<Range>,
    /// Files of DHCP leases.
    pub leases: Vec<PathBuf>,
    /// The gateways that hosts are reached by; others may still be there.
    pub gateways: Vec<GatewayMac>,
}

/// What happened on the links.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    heard: AtomicU64,
    not_sane: AtomicU64,
    too_many: AtomicU64,
    answers: AtomicU64,
    failures: AtomicU64,
    lost: AtomicU64,
}

impl Counters {
    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// What another configuration needs, open.
pub struct Prepared(Box<watch::Setup>);

/// The links, watched.
#[derive(Debug)]
pub struct Lan {
    handle: Handle,
    seen: mpsc::Receiver<Seen>,
    changes: mpsc::Sender<Change>,
    renewals: mpsc::Sender<watch::Renewal>,
    /// Changes that wait until the kernel has made those before.
    backlog: Backlog,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Lan {
    /// Starts to watch; what an earlier run left behind is removed. `tun` is the index of the TUN.
    ///
    /// # Errors
    /// What the kernel said.
    pub async fn start(
        handle: Handle,
        config: &LanConfig,
        gateways: &Gateways,
        tun: u32,
    ) -> io::Result<Self> {
        let (seen_sender, seen) = mpsc::channel(SEEN);
        let (changes, change_receiver) = mpsc::channel(CHANGES);
        let (renewals, renewal_receiver) = mpsc::channel(1);
        let counters = Arc::new(Counters::default());
        let ends = watch::Ends {
            seen: seen_sender,
            changes: change_receiver,
            renewals: renewal_receiver,
            counters: Arc::clone(&counters),
        };
        let watch = watch::Watch::begin(handle.clone(), config, gateways, (tun, ends)).await?;
        let task = tokio::spawn(watch.run());
        Ok(Self { handle, seen, changes, renewals, backlog: Backlog::default(), counters, task })
    }

    /// Opens what another configuration needs; [`Self::renew`] puts it in force.
    ///
    /// # Errors
    /// What the kernel said; nothing has changed then.
    pub async fn prepare(&self, config: &LanConfig, gateways: &Gateways) -> io::Result<Prepared> {
        let setup = watch::Setup::open(&self.handle, config, gateways, &self.counters).await?;
        Ok(Prepared(Box::new(setup)))
    }

    /// Watches the links of another configuration; routes to hosts that are here stay, as do answers for those that are away. Changes applied
    /// afterwards are made under the new one.
    pub async fn renew(&mut self, Prepared(setup): Prepared) {
        let (done, is_done) = oneshot::channel();
        if self.renewals.send(watch::Renewal { setup, done }).await.is_ok() {
            // A panic of the task has been printed.
            let _ = is_done.await;
        }
    }

    /// The next host seen. Cancel-safe.
    pub async fn next(&mut self) -> Seen {
        loop {
            tokio::select! {
                seen = self.seen.recv() => match seen {
                    Some(seen) => return seen,
                    None => std::future::pending().await,
                },
                permit = self.changes.reserve(), if !self.backlog.is_empty() => {
                    let (Ok(permit), Some(change)) = (permit, self.backlog.pop()) else {
                        self.backlog.clear();
                        continue;
                    };
                    permit.send(change);
                }
            }
        }
    }

    /// Has the host's routing follow, soon; changes are made in order.
    pub fn apply(&mut self, change: Change) {
        let waiting = if self.backlog.is_empty() {
            match self.changes.try_send(change) {
                Err(mpsc::error::TrySendError::Full(change)) => change,
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => return,
            }
        } else {
            change
        };
        if !self.backlog.push(waiting) {
            Counters::count(&self.counters.lost);
        }
    }

    /// By name, for `show counters`.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let Counters { heard, not_sane, too_many, answers, failures, lost } = &*self.counters;
        [
            ("hosts_heard", heard),
            ("host_frames_not_sane", not_sane),
            ("host_frames_rate_limited", too_many),
            ("proxy_answers_sent", answers),
            ("host_changes_failed", failures),
            ("host_changes_lost", lost),
        ]
        .into_iter()
        .map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)))
        .collect()
    }

    /// What an operator has to know.
    pub fn note(&self) -> Option<String> {
        self.task.is_finished().then(|| {
            "Hosts of dynamic-EID ranges are followed no longer: what watched the links has failed. Restart the daemon.".to_owned()
        })
    }

    /// Stops watching and removes every route to a host.
    pub async fn finish(self) {
        drop((self.changes, self.seen, self.renewals));
        // A panic of the task has been printed.
        let _ = self.task.await;
    }
}
