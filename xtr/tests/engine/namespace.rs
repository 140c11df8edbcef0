//! A network namespace with a thread that lives in it, and the few netlink requests the tests need.
use futures_util::TryStreamExt;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use std::fs::File;
use std::net::{IpAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Goes, with all its devices, when dropped.
pub(crate) struct Namespace {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    file: File,
}

impl Namespace {
    /// A new one with `lo` up; `None` (and a line that says so) without the privilege.
    pub(crate) fn new() -> Option<Self> {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let (ready, is_ready) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let file = unshare(CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .and_then(|()| File::open("/proc/thread-self/ns/net"));
            ready.send(file).expect("the creator waits");
            receiver.into_iter().for_each(|job| job());
        });
        match is_ready.recv().expect("the thread answers") {
            Ok(file) => {
                let namespace = Self { jobs: Some(jobs), thread: Some(thread), file };
                namespace.run(|| netlink(async |handle| up(&handle, "lo").await));
                Some(namespace)
            }
            Err(error) => {
                println!("SKIP: cannot make a network namespace: {error}");
                None
            }
        }
    }

    /// Runs `job` on the namespace's thread and returns its result.
    pub(crate) fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let job: Job = Box::new(move || drop(sender.send(job())));
        self.jobs.as_ref().expect("alive").send(job).expect("the thread lives");
        receiver.recv().expect("the job did not panic")
    }

    /// Adds addresses to an interface.
    pub(crate) fn add_addresses(&self, interface: &'static str, addresses: Vec<(IpAddr, u8)>) {
        self.run(move || {
            netlink(async |handle| {
                let index = index(&handle, interface).await;
                for &(address, len) in &addresses {
                    let mut request = handle.address().add(index, address, len);
                    request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
                    request.execute().await.expect("an address is added");
                }
            });
            addresses.into_iter().for_each(|(address, _)| wait_until_usable(address));
        });
    }

    /// Routes a prefix into an interface, with a preferred source.
    pub(crate) fn add_route(&self, prefix: (IpAddr, u8), interface: &'static str, source: IpAddr) {
        self.run(move || {
            netlink(async |handle| {
                let index = index(&handle, interface).await;
                let route = RouteMessageBuilder::<IpAddr>::new()
                    .destination_prefix(prefix.0, prefix.1)
                    .expect("a prefix")
                    .output_interface(index)
                    .pref_source(source)
                    .expect("of the same family")
                    .build();
                handle.route().add(route).execute().await.expect("a route is added");
            });
        });
    }

    /// Routes a prefix through a neighbour.
    pub(crate) fn add_gateway(&self, prefix: (IpAddr, u8), gateway: IpAddr) {
        self.run(move || {
            netlink(async |handle| {
                let route = RouteMessageBuilder::<IpAddr>::new()
                    .destination_prefix(prefix.0, prefix.1)
                    .expect("a prefix")
                    .gateway(gateway)
                    .expect("of the same family")
                    .build();
                handle.route().add(route).execute().await.expect("a route is added");
            });
        });
    }

    /// Makes it forward.
    pub(crate) fn forward(&self) {
        self.run(|| {
            for switch in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
                std::fs::write(format!("/proc/sys/net/{switch}"), "1").expect("a switch");
            }
        });
    }

    /// Changes an interface's MTU.
    pub(crate) fn set_mtu(&self, interface: &'static str, mtu: u32) {
        self.run(move || {
            netlink(async |handle| {
                let index = index(&handle, interface).await;
                let link = LinkUnspec::new_with_index(index).mtu(mtu).build();
                handle.link().set(link).execute().await.expect("an MTU");
            });
        });
    }

    /// Sets an interface up or down.
    pub(crate) fn set_up(&self, interface: &'static str, up: bool) {
        self.run(move || {
            netlink(async |handle| {
                let link = LinkUnspec::new_with_index(index(&handle, interface).await);
                let link = if up { link.up() } else { link.down() };
                handle.link().set(link.build()).execute().await.expect("an interface changes");
            });
        });
    }

    /// Removes an interface.
    pub(crate) fn delete_link(&self, interface: &'static str) {
        self.run(move || {
            netlink(async |handle| {
                let index = index(&handle, interface).await;
                handle.link().del(index).execute().await.expect("an interface goes");
            });
        });
    }

    /// Joins two namespaces by a veth pair, `name` on both sides, up.
    pub(crate) fn join(&self, other: &Self, name: &'static str) {
        let fd = other.file.as_raw_fd();
        self.run(move || {
            netlink(async |handle| {
                let pair = LinkVeth::new(name, "other").build();
                handle.link().add(pair).execute().await.expect("a veth pair");
                let index = index(&handle, "other").await;
                let moved =
                    LinkUnspec::new_with_index(index).name(name.to_owned()).setns_by_fd(fd).build();
                handle.link().set(moved).execute().await.expect("one end moves");
                up(&handle, name).await;
            });
        });
        other.run(move || netlink(async |handle| up(&handle, name).await));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The kernel installs the local route of an IPv6 address a moment after it answered.
fn wait_until_usable(address: IpAddr) {
    let reaches_itself = || -> std::io::Result<usize> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        socket.send_to(b"x", socket.local_addr()?)?;
        socket.recv(&mut [0; 1])
    };
    let usable = (0..500).any(|_| {
        reaches_itself().inspect_err(|_| std::thread::sleep(Duration::from_millis(2))).is_ok()
    });
    assert!(usable, "{address} does not become usable");
}

fn netlink<T>(work: impl AsyncFnOnce(Handle) -> T) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (connection, handle, _) = new_connection().expect("a netlink socket");
        let task = tokio::spawn(connection);
        let result = work(handle).await;
        task.abort();
        result
    })
}

async fn index(handle: &Handle, name: &str) -> u32 {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    links.try_next().await.expect("an answer").expect("the interface exists").header.index
}

async fn up(handle: &Handle, name: &str) {
    let link = LinkUnspec::new_with_index(index(handle, name).await).up().build();
    handle.link().set(link).execute().await.expect("an interface comes up");
}
