//! The daemon's side of the service manager: systemd's notify protocol, its watchdog and its file-descriptor store (`sd_notify(3)`).
//!
//! A restart (SIGUSR2, which the unit has systemd send for `systemctl restart`) leaves a queue of the tunnel device with the manager, which passes
//! it to the next process: device and routes stay. The next process has the manager let go of it at once, so that a process that dies
//! takes its routes along, and `systemctl stop` as well.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};

use mapping::admin::{Query, Request};
use mapping::view::WorkerView;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use sd_notify::NotifyState;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::admin::server;
use ::xtr::daemon::Predecessor;

/// The name of the queue in the store.
const TUN: &str = "isthmus-tun";
/// The same, as the manager is told it.
const FDNAME: &str = "FDNAME=isthmus-tun";
/// How long a manager may take to take the queue.
const PATIENCE: Duration = Duration::from_secs(1);
/// A worker goes round once a second, whatever comes.
const LONGEST_TURN: Duration = Duration::from_secs(3);

/// Without systemd this does nothing; a systemd that does not listen is not the daemon's trouble.
pub(super) fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service manager not told");
    }
}

/// It works, and this is what to show of it.
pub(super) fn ready(status: &str) {
    notify(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Another configuration is being read; [`ready`] ends it.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::debug!(%error, "service manager not told"),
    }
}

/// What the process before left with the manager; to be called once, before anything else opens files.
pub(super) fn predecessor() -> Predecessor {
    let mut found = Predecessor::None;
    let inherited = match sd_notify::listen_fds_with_names() {
        Ok(inherited) => inherited,
        Err(error) => {
            tracing::warn!(%error, "what the service manager keeps is not understood");
            return found;
        }
    };
    for (number, name) in inherited {
        // Others are of no use: they are closed.
        match ::xtr::engine::take_inherited(number) {
            Ok(queue) if name == TUN => found = Predecessor::GaveWay(queue),
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, name, "the service manager passed no such file"),
        }
    }
    if matches!(found, Predecessor::GaveWay(_)) {
        tracing::info!("the tunnel device of the process before is taken over");
        // From now on it lives as long as this process: one that does not get ready is no reason to attract packets.
        notify(&[NotifyState::Custom("FDSTOREREMOVE=1"), NotifyState::Custom(FDNAME)]);
    }
    found
}

/// Leaves a queue of the tunnel device with the manager; whether there is one that took it.
pub(super) fn keep(queue: OwnedFd) -> bool {
    let Some(manager) = std::env::var_os("NOTIFY_SOCKET") else { return false };
    let told = |text: &str, file: BorrowedFd<'_>| tell_with(&manager, text, file);
    // Not polled: a device whose queue nobody reads is no error.
    let text = format!("FDSTORE=1\n{FDNAME}\nFDPOLL=0");
    let kept = told(&text, queue.as_fd()).and_then(|()| {
        // The manager closes this when it has handled what came before.
        let (ours, theirs) = io::pipe()?;
        told("BARRIER=1", theirs.as_fd())?;
        drop(theirs);
        wait_until_closed(ours)
    });
    if let Err(error) = &kept {
        tracing::warn!(%error, "the service manager does not keep the tunnel device");
    }
    kept.is_ok()
}

/// `sd_notify::notify` with a file.
fn tell_with(manager: &OsStr, text: &str, file: BorrowedFd<'_>) -> io::Result<()> {
    let address = match manager.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(Path::new(manager))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let files = [file];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    control.push(SendAncillaryMessage::ScmRights(&files));
    sendmsg(&socket, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn wait_until_closed(mut pipe: io::PipeReader) -> io::Result<()> {
    let (closed, is_closed) = blocking::channel();
    std::thread::spawn(move || closed.send(pipe.read(&mut [0])));
    match is_closed.recv_timeout(PATIENCE) {
        Ok(read) => read.map(drop),
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Tells systemd that the daemon lives, as long as it answers questions and every worker of its data plane goes round.
pub(super) async fn feed_watchdog(period: Duration, requests: mpsc::Sender<Request>) {
    let mut ticks = interval(period / 3);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut progress = Progress::default();
    while !requests.is_closed() {
        ticks.tick().await;
        let answer = timeout(period / 3, server::ask(Query::Status, &requests)).await;
        let Ok(Ok(status)) = answer else { continue };
        match progress.stuck(Instant::now(), LONGEST_TURN.max(period / 3), &workers(&status)) {
            None => notify(&[NotifyState::Watchdog]),
            Some(worker) => tracing::error!(worker, "a data-plane worker is stuck"),
        }
    }
}

fn workers(status: &Value) -> Vec<WorkerView> {
    serde_json::from_value(status["workers"].clone()).unwrap_or_default()
}

/// When each worker was seen to go on.
#[derive(Debug, Default)]
struct Progress(HashMap<usize, (u64, Instant)>);

impl Progress {
    /// A worker that has not gone on for `longest`; one that ended is no concern of the watchdog's: the others have its flows.
    fn stuck(&mut self, now: Instant, longest: Duration, workers: &[WorkerView]) -> Option<usize> {
        let mut stuck = None;
        for worker in workers.iter().filter(|worker| worker.failure.is_none()) {
            let seen = self.0.entry(worker.number).or_insert((worker.turns, now));
            if seen.0 != worker.turns {
                *seen = (worker.turns, now);
            } else if now.saturating_duration_since(seen.1) > longest {
                stuck = Some(worker.number);
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_go_round_starves_the_watchdog() {
        let worker = |number, turns, failure: Option<&str>| WorkerView {
            number,
            cpu: None,
            packets: 7,
            turns,
            failure: failure.map(str::to_owned),
        };
        let (start, longest) = (Instant::now(), Duration::from_secs(3));
        let mut progress = Progress::default();
        let mut at = |seconds, workers: &[WorkerView]| {
            progress.stuck(start + Duration::from_secs(seconds), longest, workers)
        };
        assert_eq!(at(0, &[worker(0, 5, None), worker(1, 5, None)]), None);
        assert_eq!(at(3, &[worker(0, 6, None), worker(1, 5, None)]), None);
        assert_eq!(at(4, &[worker(0, 7, None), worker(1, 5, None)]), Some(1));
        assert_eq!(at(5, &[worker(0, 8, None), worker(1, 5, Some("it panicked"))]), None);
        assert_eq!(at(6, &[worker(0, 9, None), worker(1, 6, None)]), None, "it goes on");
        assert_eq!(at(7, &[]), None, "a Map-Server has none");
    }
}
