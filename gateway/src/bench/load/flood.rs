//! A flood of ready-made frames from one pinned thread.

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};
use nix::unistd::Pid;

use crate::bench::bed::station;
use crate::lab::namespace::Namespace;

/// Frames per system call.
const BATCH: usize = 64;

/// A flood; ends when dropped.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// Starts to send `frames` in turn on `link` from processor `cpu`.
    pub(crate) fn start(
        namespace: &Namespace,
        link: &'static str,
        frames: Vec<Vec<u8>>,
        cpu: usize,
    ) -> io::Result<Self> {
        let address = station(namespace, link)?;
        let socket = namespace.run(move || packet_socket(&address))??;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = namespace.spawn(move || {
            // Unpinned the flood is only less steady.
            let _ = pin(Pid::from_raw(0), [cpu]);
            send_until(&socket, &frames, &stopped);
        })?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // The thread has no result; a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

/// Lets a thread run on these processors only.
pub(crate) fn pin(thread: Pid, cpus: impl IntoIterator<Item = usize>) -> io::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(thread, &set)?)
}

/// A socket that sends on one link and receives nothing: its protocol is 0.
fn packet_socket(address: &LinkAddr) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None)?;
    bind(socket.as_raw_fd(), address)?;
    Ok(socket)
}

fn send_until(socket: &OwnedFd, frames: &[Vec<u8>], stop: &AtomicBool) {
    let slices: Vec<_> = frames.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(BATCH, None);
    let nowhere = [None; BATCH];
    while !stop.load(Ordering::Relaxed) {
        for batch in slices.chunks(BATCH) {
            let flags = MsgFlags::MSG_DONTWAIT;
            match sendmmsg(socket.as_raw_fd(), &mut headers, batch, nowhere, [], flags) {
                // What the link's queue has no room for is lost, as on a wire.
                Ok(_) | Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
