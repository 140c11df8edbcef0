//! The operator's end of the admin socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mapping::admin::Query;
use serde_json::Value;

use super::Answer;

/// How long an answer may take; the server gives up before.
const PATIENCE: Duration = Duration::from_secs(15);
/// The largest answer taken, octets: a map-cache of a million entries fits.
const LARGEST_ANSWER: u64 = 1 << 30;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The socket, and what the kernel said.
    #[error("{}: {error}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: io::Error,
    },
    /// What came back is no answer.
    #[error("{}: the answer is not understood: {error}", path.display())]
    Format {
        /// The socket.
        path: PathBuf,
        /// What went wrong.
        error: serde_json::Error,
    },
    /// What the daemon said.
    #[error("{0}")]
    Refused(String),
}

/// Asks the daemon at `path` one question.
pub fn ask(path: &Path, query: &Query) -> Result<Value, AskError> {
    let line = exchange(path, query)
        .map_err(|error| AskError::Socket { path: path.to_path_buf(), error })?;
    match serde_json::from_slice(&line) {
        Ok(Answer::Ok(view)) => Ok(view),
        Ok(Answer::Error(text)) => Err(AskError::Refused(text)),
        Err(error) => Err(AskError::Format { path: path.to_path_buf(), error }),
    }
}

fn exchange(path: &Path, query: &Query) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut question = serde_json::to_vec(query)?;
    question.push(b'\n');
    stream.write_all(&question)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(LARGEST_ANSWER)).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer"));
    }
    Ok(line)
}

/// The sockets in `directory`, sorted; none when it is not there.
pub fn sockets_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut sockets = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_socket() && path.extension().is_some_and(|e| e == "sock") {
            sockets.push(path);
        }
    }
    sockets.sort();
    Ok(sockets)
}
