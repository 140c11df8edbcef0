//! The io_uring data plane: one thread, ring, TUN queue and set of UDP sockets per worker. The only unsafe code.
use crate::config::DataConfig;
use crate::counters::CounterSnapshot;
use crate::fib::FibReaderFactory;
use crate::policy::Policy;
use crate::punt::PuntSender;
use std::io;
use std::sync::Arc;

/// A running data plane. Dropping it stops the workers and removes the TUN device.
#[derive(Debug)]
pub struct Engine {
    tun_name: String,
    tun_index: u32,
}

impl Engine {
    /// Creates the TUN device and the sockets in the caller's network namespace and starts the workers.
    /// The TUN is up when this returns; it has no addresses and no routes.
    ///
    /// # Errors
    /// What the kernel said, with what was being done; `PermissionDenied` without CAP_NET_ADMIN, `Unsupported` without io_uring.
    pub fn start<P: Policy>(
        config: &DataConfig,
        policy: Arc<P>,
        fib: &FibReaderFactory,
        punts: PuntSender,
    ) -> io::Result<Self> {
        let _ = (config, policy, fib, punts);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Tells the workers that the forwarding table changed: packets held for a mapping are looked up again.
    pub fn wake(&self) {}

    /// The sum over the workers.
    pub fn counters(&self) -> CounterSnapshot {
        CounterSnapshot::default()
    }

    /// The coarse clock of `LocatorSet::last_used`: whole seconds since the engine started, plus 1; off by one second at most.
    pub fn clock(&self) -> u32 {
        1
    }

    /// The name of the TUN device.
    pub fn tun_name(&self) -> &str {
        &self.tun_name
    }

    /// The interface index of the TUN device.
    pub fn tun_index(&self) -> u32 {
        self.tun_index
    }

    /// Stops the workers and waits for them.
    pub fn stop(self) {}
}
