//! The state directory: who may use it, one daemon at a time, and where damaged state goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::fcntl::{Flock, FlockArg};

use crate::clock::Epoch;

/// The directory in the state directory that holds everything but the lock.
const STATE: &str = "mapping";
const LOCK: &str = "mapping.lock";
/// Others may not write: whoever can, decides where the traffic of every site goes.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// A state directory that no other daemon uses.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    state: PathBuf,
    /// Held as long as this lives; the kernel lets go of it when the process ends, however it ends.
    _lock: Option<Flock<File>>,
}

impl Directory {
    /// Locks `root` and makes what has to be in it.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        check(root)?;
        let lock = lock(&root.join(LOCK))?;
        let directory = Self { root: root.to_owned(), state: root.join(STATE), _lock: Some(lock) };
        directory.make()?;
        Ok(directory)
    }

    /// The directory that the operator named.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// For a process that is no more.
    #[cfg(test)]
    pub(super) fn unlocked(root: &Path) -> Self {
        Self { root: root.to_owned(), state: root.join(STATE), _lock: None }
    }

    /// Where the state is.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Renames the state, so that nothing is lost, and begins with none; says what it is called now.
    pub(super) fn set_aside(&self) -> io::Result<PathBuf> {
        let seconds = Epoch::of_host().unix_millis(Instant::now()) / 1_000;
        let name = |number: u32| match number {
            0 => format!("{STATE}.corrupt-{seconds}"),
            _ => format!("{STATE}.corrupt-{seconds}-{number}"),
        };
        let mut paths = (0..).map(|number| self.root.join(name(number)));
        let aside = paths.find(|path| !path.exists()).ok_or(io::ErrorKind::AlreadyExists)?;
        fs::rename(&self.state, &aside)?;
        self.make()?;
        Ok(aside)
    }

    fn make(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.state) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(unusable(&self.root, &error)),
            Ok(()) => File::open(&self.root)?.sync_all()?,
        }
        check(&self.state)
    }
}

/// Whether a state directory can be at `path`.
fn check(path: &Path) -> io::Result<()> {
    let metadata = fs::metadata(path).map_err(|error| unusable(path, &error))?;
    if !metadata.is_dir() {
        return Err(unusable(path, &"it is not a directory"));
    }
    let mode = metadata.mode();
    if mode & WRITABLE_BY_OTHERS != 0 {
        let what = format!("others than its owner may write to it (mode {:03o})", mode & 0o777);
        return Err(unusable(path, &format!("{what}; run `chmod go-w` on it")));
    }
    Ok(())
}

fn lock(path: &Path) -> io::Result<Flock<File>> {
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).mode(0o600).open(path);
    let file = file.map_err(|error| unusable(path.parent().unwrap_or(path), &error))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
        let text = match error {
            nix::Error::EWOULDBLOCK => "another daemon uses this state directory".to_owned(),
            error => error.to_string(),
        };
        io::Error::new(io::ErrorKind::ResourceBusy, format!("{}: {text}", path.display()))
    })
}

/// The operator has to change the directory or the configuration.
fn unusable(path: &Path, why: &dyn std::fmt::Display) -> io::Error {
    let text = format!("state directory {}: {why}", path.display());
    io::Error::new(io::ErrorKind::InvalidInput, text)
}
