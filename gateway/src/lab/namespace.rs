//! A network namespace held by one thread; whatever that thread runs, opens or spawns belongs to it.

use std::fs::File;
use std::future::Future;
use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use rtnetlink::Handle;
use tokio::runtime::{Builder, Runtime};

type Job = Box<dyn FnOnce(&Executor) + Send>;

/// A network namespace. Dropping it ends its thread, and with the thread the namespace and its links.
pub struct Namespace {
    name: &'static str,
    thread_id: Pid,
    file: File,
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

/// What lives in the namespace's thread.
struct Executor {
    runtime: Runtime,
    netlink: Handle,
}

impl Namespace {
    /// Makes a new network namespace with its loopback link still down.
    pub fn create(name: &'static str) -> io::Result<Self> {
        let (jobs, inbox) = mpsc::channel::<Job>();
        let (report, born) = mpsc::channel();
        let thread = thread::Builder::new().name(format!("ns-{name}")).spawn(move || {
            match Executor::enter() {
                Ok((executor, file)) => {
                    // Nobody listens any more only if the creator died: then there is nothing to run either.
                    let _ = report.send(Ok((gettid(), file)));
                    inbox.into_iter().for_each(|job| job(&executor));
                }
                Err(error) => drop(report.send(Err(error))),
            }
        })?;
        let (thread_id, file) = born.recv().map_err(|_| died(name))??;
        Ok(Self { name, thread_id, file, jobs: Some(jobs), thread: Some(thread) })
    }

    /// The name shown to people.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The kernel's id of the thread that holds the namespace.
    pub fn thread_id(&self) -> Pid {
        self.thread_id
    }

    /// The namespace as a file, to move links into it.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Runs `work` inside the namespace and waits for its result. Sockets it returns stay in the namespace.
    pub fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<R> {
        self.execute(move |_| work())
    }

    /// Runs netlink requests inside the namespace.
    pub fn netlink<R, F>(&self, work: impl FnOnce(Handle) -> F + Send + 'static) -> io::Result<R>
    where
        R: Send + 'static,
        F: Future<Output = Result<R, rtnetlink::Error>>,
    {
        self.execute(move |executor| executor.runtime.block_on(work(executor.netlink.clone())))?
            .map_err(|error| io::Error::other(format!("{}: netlink: {error}", self.name)))
    }

    /// Starts a thread inside the namespace.
    pub fn spawn<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
    ) -> io::Result<JoinHandle<R>> {
        self.run(move || thread::spawn(work))
    }

    /// Starts a process inside the namespace.
    pub fn start(&self, mut command: Command) -> io::Result<Child> {
        self.run(move || command.spawn())?
    }

    fn execute<R: Send + 'static>(
        &self,
        work: impl FnOnce(&Executor) -> R + Send + 'static,
    ) -> io::Result<R> {
        let (report, result) = mpsc::channel();
        let job: Job = Box::new(move |executor| drop(report.send(work(executor))));
        let jobs = self.jobs.as_ref().ok_or_else(|| died(self.name))?;
        jobs.send(job).map_err(|_| died(self.name))?;
        result.recv().map_err(|_| died(self.name))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was already reported to whoever waited for its result.
            let _ = thread.join();
        }
    }
}

impl Executor {
    fn enter() -> io::Result<(Self, File)> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let file = File::open("/proc/thread-self/ns/net")?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let netlink = {
            let _guard = runtime.enter();
            let (connection, handle, _) = rtnetlink::new_connection()?;
            runtime.spawn(connection);
            handle
        };
        Ok((Self { runtime, netlink }, file))
    }
}

fn died(name: &str) -> io::Error {
    io::Error::other(format!("the thread of namespace {name} is gone"))
}
