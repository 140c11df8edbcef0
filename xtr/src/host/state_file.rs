//! Small files in `state-dir`: read whole, written whole.
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// What was kept, if anything. A file that says nothing is said loudly, with what comes of it.
///
/// # Errors
/// The file is there and cannot be read.
pub(super) fn read<T: DeserializeOwned>(file: &Path, consequence: &str) -> io::Result<Option<T>> {
    let octets = match fs::read(file) {
        Ok(octets) => octets,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(named(file, &error)),
    };
    let kept = serde_json::from_slice(&octets);
    if let Err(error) = &kept {
        tracing::error!("{} is damaged ({error}): {consequence}", file.display());
    }
    Ok(kept.ok())
}

/// The file has the old contents or the new ones, whenever the power fails.
///
/// # Errors
/// What the kernel said.
pub(super) fn write(file: &Path, contents: &impl Serialize) -> io::Result<()> {
    let fresh = file.with_extension("new");
    let mut options = OpenOptions::new();
    let mut out = options.create(true).write(true).truncate(true).mode(0o600).open(&fresh)?;
    out.write_all(&serde_json::to_vec(contents)?)?;
    out.sync_all()?;
    fs::rename(&fresh, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

fn named(file: &Path, error: &io::Error) -> io::Error {
    io::Error::other(format!("{}: {error}", file.display()))
}
