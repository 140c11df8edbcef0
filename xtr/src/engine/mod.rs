//! The io_uring data plane: one thread, ring, TUN queue and set of UDP sockets per worker. The only unsafe code.
//!
//! | module | what |
//! |---|---|
//! | `worker` | the loop: wait, forward a batch, hand over, again |
//! | `ring` | the ring's operations, typed |
//! | `buffers` | receive buffers the kernel fills; `parked`: frames that were held |
//! | `outbound` | bursts of encapsulated packets; `writes`: frames for the TUN; `outlet`: both, for one buffer |
//! | `reading` | how the TUN and the sockets are read: a few packets at a time, or as many as there are |
//! | `datagram` | what a receive completion holds |
//! | `packet_ring` | frames from native interfaces without the TUN |
//! | `udp`, `tun` | sockets and device; `sys`: raw system calls |
//! | `link_socket` | ARP and Neighbor Discovery for the control plane |
//! | `inquire` | what the self-diagnosis asks the kernel |
//! | `prefetch` | the processor's hint, for the forwarding table |
//! | `arrivals` | what arrived by own EID-prefix and RLOC |
//! | `steer` | which worker receives a packet; `affinity`: which core a worker runs on |
//!
//! Packets of one flow stay in order: bursts and writes are handed over in the order they were begun, and none of them waits in the
//! kernel (`MSG_DONTWAIT`, a non-blocking TUN), so they complete in that order; what was held goes before anything that came later.
//! A flow stays with one worker: the kernel gives a received packet to the worker that `steer` says, by the inner flow, and the TUN gives
//! a flow to the queue that its reverse direction was last written to.
//!
//! A worker that fails takes nothing with it but the packets it had in hand, which are counted: its queue and its sockets close, and the
//! kernel gives their flows to the workers that are left. `show status` names it. When none is left, the daemon ends.
//!
//! A worker takes at most its buffers' worth of packets per turn, so that a flood cannot keep it from sending. Under a flood of small
//! packets a worker that shares its core with the network card's interrupts starves: keep them on different cores.
use crate::config::{DataConfig, Intake, NatPlane};
use crate::counters::{CounterSnapshot, Traffic, WorkerCounters};
use crate::explain::Explainer;
use crate::fib::FibReaderFactory;
use crate::forward::{Forwarder, HoldLimits, PathMtus, Settings};
use crate::marks::{SharedMarks, TrustedMarks};
use crate::packet::Marking;
use crate::packet::icmp::Rate;
use crate::policy::{Policy, PolicySwitch, Rules};
use crate::punt::PuntSender;
use crate::tap::{Switch, Tapper};
use arrivals::ArrivalBooks;
use mapping::eid::EidPrefix;
use mapping::view::WorkerView;
use nix::sys::eventfd::{EfdFlags, EventFd};
use outbound::Bursts;
use packet_ring::PacketRings;
use packet_ring_gate::Gate;
use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::os::fd::{OwnedFd, RawFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::JoinHandle;
use std::time::Instant;
use tun::Tun;
use udp::{DataPorts, PortPool, Sockets};
use worker::{Control, Descriptors, Worker};

mod affinity;
mod arrivals;
mod buffers;
mod datagram;
mod exclusive;
pub(crate) mod inquire;
pub(crate) mod link_socket;
mod outbound;
mod outlet;
mod packet_ring;
mod packet_ring_filter;
mod packet_ring_gate;
mod packet_ring_socket;
mod parked;
mod prefetch;
mod reading;
mod ring;
mod steer;
mod sys;
mod tun;
pub(crate) mod udp;
mod worker;
mod writes;

pub(crate) use prefetch::prefetch;

/// More workers than this help nobody.
const MAX_WORKERS: usize = 256;

/// Takes a descriptor that the process was started with, as its environment says; once.
///
/// # Errors
/// There is none of that number.
pub fn take_inherited(number: RawFd) -> io::Result<OwnedFd> {
    sys::take_inherited(number)
}

/// A running data plane. Dropping it stops the workers and removes the TUN device.
#[derive(Debug)]
pub struct Engine {
    tun_name: String,
    tun_index: u32,
    tun_mtu: u16,
    path_mtus: Arc<PathMtus>,
    marks: Arc<SharedMarks>,
    started: Instant,
    workers: Vec<Handle>,
    /// Goes last: after the workers, nobody takes what it keeps from the kernel.
    gate: Option<Gate>,
    explainer: Explainer,
    tap_switch: Arc<Switch>,
    /// The [`PolicySwitch`] of the policy's type.
    policy: Box<dyn Any + Send>,
    arrivals: ArrivalBooks,
}

#[derive(Debug)]
struct Handle {
    control: Arc<Control>,
    counters: Arc<WorkerCounters>,
    failure: Arc<OnceLock<String>>,
    /// Its sockets on port 4341, to send from; none once it ended, since they would take packets that nobody reads.
    data_ports: DataPorts,
    /// The core it is pinned to.
    cpu: Option<usize>,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Creates the TUN device and the sockets in the caller's network namespace and starts the workers.
    /// The TUN is up when this returns; it has no addresses and no routes.
    ///
    /// # Errors
    /// What the kernel said, with what was being done; `PermissionDenied` without CAP_NET_ADMIN and where io_uring is forbidden, `Unsupported` where it is missing.
    pub fn start<P: Policy>(
        config: &DataConfig,
        policy: Arc<P>,
        fib: &FibReaderFactory,
        punts: PuntSender,
    ) -> io::Result<Self> {
        Self::start_checking(config, policy, fib, None, punts)
    }

    /// As [`Self::start`]; with `sources`, packets from the core are taken only from locators of their inner source's mapping there.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_checking<P: Policy>(
        config: &DataConfig,
        policy: Arc<P>,
        fib: &FibReaderFactory,
        sources: Option<&FibReaderFactory>,
        punts: PuntSender,
    ) -> io::Result<Self> {
        Self::take_over(config, policy, fib, sources, punts, None)
    }

    /// As [`Self::start_checking`]; a TUN of which `queue` is one, see [`Self::spare_queue`], goes on with what waits in it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn take_over<P: Policy>(
        config: &DataConfig,
        policy: Arc<P>,
        fib: &FibReaderFactory,
        sources: Option<&FibReaderFactory>,
        punts: PuntSender,
        queue: Option<OwnedFd>,
    ) -> io::Result<Self> {
        let count = worker_count(config);
        let tun = Tun::create(&config.tun_name, count, queue)?;
        let started = Instant::now();
        let seed: [u8; 32] = rand::random();
        exclusive::await_data_ports(&config.rlocs)?;
        let ports = exclusive::free_pool(config, u16::from_be_bytes([seed[0], seed[1]]))
            .translating(config.nat == NatPlane::Rtr);
        let settings = settings(config, &ports, seed, started, count);
        raise_descriptor_limit();
        let path_mtus = Arc::new(PathMtus::listening(config.path_mtu_icmp));
        let marks = Arc::<SharedMarks>::default();
        let explainer = Explainer::new(
            settings.clone(),
            (0..ports.len()).map(|index| ports.port(index)),
            Arc::clone(&policy) as Arc<dyn Policy>,
            Arc::clone(&path_mtus),
            fib.clone(),
        )
        .check_sources(sources)
        .trust_core(config.trusted_core.as_ref(), &marks);
        let mut arrivals = ArrivalBooks::new(&config.rlocs);
        let pages = arrivals.open(policy.own_prefixes(), count);
        let switch = PolicySwitch::new(Rules { policy: Arc::clone(&policy), arrivals: pages });
        let mut engine = Self {
            explainer,
            policy: Box::new(Arc::clone(&switch)),
            arrivals,
            tap_switch: Arc::default(),
            tun_name: tun.name,
            tun_index: tun.index,
            tun_mtu: tun.mtu,
            path_mtus: Arc::clone(&path_mtus),
            marks: Arc::clone(&marks),
            started,
            workers: Vec::with_capacity(count),
            gate: match &config.intake {
                Intake::Tun => None,
                Intake::Ring(ring) => Some(Gate::new(ring, count)?),
            },
        };
        let icmp: Arc<[_]> = udp::icmp_sockets(&config.rlocs).into();
        for queue in tun.queues {
            let sockets = Sockets::open(config, &ports, Arc::clone(&icmp))?;
            if engine.workers.is_empty() {
                steer::attach(&sockets.receive, count, seed);
            }
            let worker = engine.workers.len();
            let rings =
                engine.gate.as_mut().map(|gate| gate.take_sockets(worker)).unwrap_or_default();
            let native = PacketRings::new(rings)?;
            let data_ports = DataPorts::of(&sockets, config)?;
            let descriptors = Descriptors { tun: queue, sockets, ports, native };
            let counters = Arc::<WorkerCounters>::default();
            let mut forwarder = Forwarder::new(
                settings.clone(),
                Arc::clone(&policy),
                Arc::clone(&counters),
                Arc::clone(&path_mtus),
                punts.clone(),
            )
            .with_tap(Arc::clone(&engine.tap_switch), engine.workers.len())
            .with_policy_of(switch.follower(engine.workers.len()))
            .limit_rates(config.rate_limits.share(count as u32));
            if let Some(sources) = sources {
                forwarder = forwarder.check_sources(sources.reader());
            }
            if let Some(core) = &config.trusted_core {
                forwarder = forwarder.trust_core(core, Arc::clone(&marks));
            }
            let reader = fib.reader();
            let shared = (Arc::clone(&counters), Arc::clone(&path_mtus));
            let (send_sockets, zero_checksum) = (ports.sockets(), config.zero_udp_checksum);
            let cpu = affinity::cpu_of(&config.cpus, engine.workers.len());
            engine.spawn(counters, cpu, data_ports, move |control| {
                cpu.map_or(Ok(()), affinity::pin)?;
                let (counters, path_mtus) = shared;
                let bursts = Bursts::new(send_sockets, zero_checksum);
                Worker::new(descriptors, forwarder, reader, control, counters, path_mtus, bursts)
            })?;
        }
        Ok(engine)
    }

    /// With intake by ring, has the rings take the configured packets from now on, but for those to `local`, the addresses of this host:
    /// to be called once everything is ready, and when they change. Without it, only the TUN is read.
    ///
    /// # Errors
    /// What the kernel said; then what was taken before still is.
    pub fn take_native(&mut self, local: &[IpAddr]) -> io::Result<()> {
        self.gate.as_mut().map_or(Ok(()), |gate| gate.open(local))
    }

    /// Puts `policy` in the place of the one before, without losing a packet. False, and nothing changed, if it is of another type.
    pub fn replace_policy<P: Policy>(&mut self, policy: Arc<P>) -> bool {
        let Some(switch) = self.policy.downcast_ref::<Arc<PolicySwitch<P>>>() else { return false };
        let arrivals = self.arrivals.open(policy.own_prefixes(), self.workers.len());
        self.explainer.set_policy(Arc::clone(&policy) as Arc<dyn Policy>);
        switch.replace(Rules { policy, arrivals });
        true
    }

    /// What arrived for each own EID-prefix on each own RLOC.
    pub fn arrivals(&self) -> Vec<(EidPrefix, IpAddr, Traffic)> {
        self.arrivals.sums()
    }

    /// Tells the workers that the forwarding table changed: packets held for a mapping are looked up again.
    pub fn wake(&self) {
        for worker in &self.workers {
            // Fails only when the counter is full, and then the worker will wake anyway.
            let _ = worker.control.event.write(1);
        }
    }

    /// The sum over the workers.
    pub fn counters(&self) -> CounterSnapshot {
        let mut sum = CounterSnapshot::default();
        self.workers.iter().for_each(|worker| sum += &worker.counters.snapshot());
        sum
    }

    /// The coarse clock of `LocatorSet::last_used`: whole seconds since the engine started, plus 1.
    pub fn clock(&self) -> u32 {
        u32::try_from(self.started.elapsed().as_secs() + 1).unwrap_or(u32::MAX)
    }

    /// In a trusted core, what headers say from now on, and what is believed.
    pub fn set_marks(&self, marks: TrustedMarks) {
        self.marks.store(marks);
    }

    /// The zero of [`Self::clock`].
    pub const fn started(&self) -> Instant {
        self.started
    }

    /// What routers, and our own interfaces, said of path MTUs.
    pub fn path_mtus(&self) -> &PathMtus {
        &self.path_mtus
    }

    /// Sends a control message from port 4341 of the own RLOC `source`, without waiting (NT-04); only if [`DataConfig::nat`] asks for it.
    ///
    /// # Errors
    /// What the kernel said; `AddrNotAvailable` if there is no such socket.
    pub fn send_from_data_port(
        &self,
        source: IpAddr,
        destination: SocketAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let sent = self
            .workers
            .iter()
            .find_map(|worker| worker.data_ports.send(source, destination, payload));
        sent.unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
    }

    /// Says what the workers would do with a packet.
    pub fn explainer(&self) -> &Explainer {
        &self.explainer
    }

    /// Taps what the workers forward.
    pub fn tapper(&self) -> Tapper {
        Tapper::new(Arc::clone(&self.tap_switch), &self.explainer, self.workers.len())
    }

    /// The name of the TUN device.
    pub fn tun_name(&self) -> &str {
        &self.tun_name
    }

    /// One more queue of the TUN, which keeps the device, and the routes into it, while nobody forwards. What the kernel puts into it waits.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn spare_queue(&self) -> io::Result<OwnedFd> {
        sys::open_tun_queue(&self.tun_name).map(|(queue, _)| queue)
    }

    /// The interface index of the TUN device.
    pub fn tun_index(&self) -> u32 {
        self.tun_index
    }

    /// The MTU of the TUN device: larger than any packet, the engine looks after sizes itself.
    pub fn tun_mtu(&self) -> u16 {
        self.tun_mtu
    }

    /// How many workers run.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Why the data plane ended though nobody stopped it: no worker is left. `None` while one forwards.
    pub fn failure(&self) -> Option<&str> {
        let mut failures = self.workers.iter().map(|worker| worker.failure.get());
        failures
            .clone()
            .all(|failure| failure.is_some())
            .then(|| failures.next().flatten())?
            .map(String::as_str)
    }

    /// The workers as `show status` lists them, those that failed included.
    pub fn worker_views(&self) -> Vec<WorkerView> {
        let view = |(number, worker): (usize, &Handle)| {
            let counters = worker.counters.snapshot();
            WorkerView {
                number,
                cpu: worker.cpu,
                packets: counters.native_in.packets + counters.core_in.packets,
                turns: worker.control.turns.load(Ordering::Relaxed),
                failure: worker.failure.get().cloned(),
            }
        };
        self.workers.iter().enumerate().map(view).collect()
    }

    /// Stops the workers, waits for them and removes the TUN device; returns the last of the counters: nothing is held any more.
    pub fn stop(mut self) -> CounterSnapshot {
        self.end();
        self.counters()
    }

    fn end(&mut self) {
        for worker in &self.workers {
            worker.control.stop.store(true, Ordering::Release);
        }
        self.wake();
        for worker in &mut self.workers {
            if let Some(thread) = worker.thread.take() {
                let _ = thread.join();
            }
        }
    }

    /// Starts a worker's thread and waits until it runs.
    fn spawn<P: Policy>(
        &mut self,
        counters: Arc<WorkerCounters>,
        cpu: Option<usize>,
        data_ports: DataPorts,
        build: impl FnOnce(Arc<Control>) -> io::Result<Worker<P>> + Send + 'static,
    ) -> io::Result<()> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC)?;
        let control =
            Arc::new(Control { event, stop: AtomicBool::new(false), turns: AtomicU64::new(0) });
        let (ready, is_ready) = mpsc::sync_channel(1);
        let (thread_control, thread_counters) = (Arc::clone(&control), Arc::clone(&counters));
        let failure = Arc::<OnceLock<String>>::default();
        let thread_failure = Arc::clone(&failure);
        let (number, ports) = (self.workers.len(), data_ports.clone());
        let body = move || {
            let mut worker = match build(thread_control) {
                Ok(worker) => worker,
                Err(error) => return drop(ready.send(Err(error))),
            };
            let _ = ready.send(Ok(()));
            let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
            // Its queue and its sockets close: from here on the kernel gives their packets to the others.
            drop(worker);
            ports.close();
            let reason = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("it panicked: {}", panic_text(panic.as_ref())),
            };
            thread_counters.write_off();
            tracing::error!(worker = number, reason, "a data-plane worker ended");
            let _ = thread_failure.set(reason);
        };
        let thread = std::thread::Builder::new().name(format!("isthmus-w{number}")).spawn(body)?;
        let thread = Some(thread);
        self.workers.push(Handle { control, counters, failure, data_ports, cpu, thread });
        is_ready.recv().unwrap_or_else(|_| Err(io::Error::other("a data-plane worker died")))
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn worker_count(config: &DataConfig) -> usize {
    let automatic = || match config.cpus.len() {
        0 => std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
        cpus => cpus,
    };
    config.queues.unwrap_or_else(automatic).clamp(1, MAX_WORKERS)
}

fn settings(
    config: &DataConfig,
    ports: &PortPool,
    seed: [u8; 32],
    started: Instant,
    workers: usize,
) -> Settings {
    let rate = config.icmp_rate;
    // Each worker has its share: together they stay within the rate of the node.
    let workers = workers as u32;
    let icmp_rate =
        Rate { per_second: rate.per_second.div_ceil(workers), burst: rate.burst.div_ceil(workers) };
    Settings {
        rlocs: config.rlocs.clone(),
        source_ports: ports.len(),
        marking: Marking { dscp: config.dscp, copy_ecn: config.copy_ecn },
        hold: HoldLimits::default(),
        seed,
        icmp_rate,
        started,
        control_in_data: config.nat == NatPlane::Xtr,
    }
}

/// Every source port is a socket per own RLOC and worker: the usual soft limit of 1024 descriptors is soon reached.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it fails, opening the sockets says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
