//! The daemon's end of the admin socket.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mapping::admin::{Query, Request};
use nix::unistd::{Gid, Uid, User, getgrouplist};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Answer, LONGEST_QUERY, NOT_ADMINISTRATOR};

/// Clients served at a time; more wait in the listen queue.
const CLIENTS: usize = 16;
/// A client that asks nothing for so long is disconnected.
const IDLE: Duration = Duration::from_secs(60);
/// The daemon answers within this, or the client is told that it did not.
const PATIENCE: Duration = Duration::from_secs(10);

/// A bound admin socket; its file goes when it is dropped.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
}

impl Server {
    /// Binds `path` for the daemon's user and group, making the directory above it. The socket of a dead daemon is
    /// replaced; that of a living one is an error of kind `AddrInUse`.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            std::fs::create_dir_all(directory)?;
        }
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_path_buf() })
    }

    /// Serves clients until `requests` is closed by the daemon.
    pub async fn serve(self, requests: mpsc::Sender<Request>) {
        let seats = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok(seat) = seats.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = requests.closed() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let requests = requests.clone();
                    tokio::spawn(async move {
                        // A client that goes away in the middle is its own business.
                        let _ = converse(stream, &requests).await;
                        drop(seat);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "admin socket cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Removes a socket that nobody listens on; anything else at `path` is left alone and is an error.
fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the path is there and no socket",
        ));
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "a daemon is serving it already")),
        Err(_) => std::fs::remove_file(path),
    }
}

async fn converse(stream: UnixStream, requests: &mpsc::Sender<Request>) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::with_capacity(LONGEST_QUERY, reader);
    loop {
        let answer = match timeout(IDLE, read_line(&mut reader)).await {
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Some(Line::Whole(line)))) => answer(&line, &peer, requests).await,
            Ok(Ok(Some(Line::TooLong))) => {
                let refusal =
                    Answer::Error(format!("the question is longer than {LONGEST_QUERY} octets"));
                write_answer(&mut writer, &refusal).await?;
                return Ok(());
            }
        };
        write_answer(&mut writer, &answer).await?;
    }
}

async fn write_answer(
    writer: &mut tokio::net::unix::OwnedWriteHalf,
    answer: &Answer,
) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    match timeout(IDLE, writer.write_all(&line)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
}

/// One line without its end, holding at most [`LONGEST_QUERY`] octets; `None` at the end of the stream.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Line>> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(Line::Whole(line)));
        }
        let end = available.iter().position(|&octet| octet == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > LONGEST_QUERY {
            return Ok(Some(Line::TooLong));
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(Line::Whole(line)));
        }
    }
}

/// Passes a question to the daemon and waits for its answer, but not for ever.
async fn answer(line: &[u8], peer: &UCred, requests: &mpsc::Sender<Request>) -> Answer {
    let query: Query = match serde_json::from_slice(line) {
        Ok(query) => query,
        Err(error) => return Answer::Error(format!("not a question this daemon knows: {error}")),
    };
    if query.is_privileged() && !is_administrator(peer) {
        return Answer::Error(NOT_ADMINISTRATOR.to_owned());
    }
    match timeout(PATIENCE, ask(query, requests)).await {
        Ok(answer) => answer,
        Err(_) => {
            Answer::Error(format!("the daemon did not answer within {} s", PATIENCE.as_secs()))
        }
    }
}

/// Root, the daemon's own user, or a member of the daemon's group.
fn is_administrator(peer: &UCred) -> bool {
    let (user, group) = (Uid::from_raw(peer.uid()), Gid::from_raw(peer.gid()));
    user.is_root() || user == Uid::effective() || group == Gid::effective() || is_member(user)
}

/// Whether the daemon's group is among the user's.
fn is_member(user: Uid) -> bool {
    let Ok(Some(known)) = User::from_uid(user) else { return false };
    let Ok(name) = CString::new(known.name) else { return false };
    getgrouplist(&name, known.gid).is_ok_and(|groups| groups.contains(&Gid::effective()))
}

/// Asks the daemon behind `requests`.
pub(crate) async fn ask(query: Query, requests: &mpsc::Sender<Request>) -> Answer {
    let (reply, answer) = oneshot::channel();
    if requests.send(Request { query, reply }).await.is_err() {
        return Answer::Error("the daemon is stopping".to_owned());
    }
    match answer.await {
        Ok(Ok(view)) => Answer::Ok(view),
        Ok(Err(text)) => Answer::Error(text),
        Err(_) => Answer::Error("the daemon is stopping".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client;
    use serde_json::json;
    use std::io::{Read, Write};

    /// A daemon that answers `Status` and refuses the rest, until `questions` were asked.
    fn daemon(path: &Path, questions: usize) -> std::thread::JoinHandle<()> {
        let path = path.to_path_buf();
        let (bound, ready) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut requests) = mpsc::channel(4);
                let server = tokio::spawn(Server::bind(&path).unwrap().serve(sender));
                bound.send(()).unwrap();
                for _ in 0..questions {
                    let request = requests.recv().await.unwrap();
                    let answer = match request.query {
                        Query::Status => Ok(json!({"role": "test"})),
                        _ => Err("not here".to_owned()),
                    };
                    request.reply.send(answer).unwrap();
                }
                // The answer is written by a task of the server: let it run before the runtime goes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(requests);
                server.await.unwrap();
            });
        });
        ready.recv().unwrap();
        thread
    }

    #[test]
    fn a_question_gets_its_answer_and_the_socket_goes_with_the_daemon() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/isthmus/test.sock");
        let daemon = daemon(&path, 2);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert_eq!(client::ask(&path, &Query::Status).unwrap(), json!({"role": "test"}));
        let refused = client::ask(&path, &Query::Sites).unwrap_err();
        assert_eq!(refused.to_string(), "not here");
        daemon.join().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn only_the_administrator_sees_packets() {
        assert!(Query::TapNext { session: 1, stop: false }.is_privileged());
        assert!(!Query::Status.is_privileged() && !Query::Drops.is_privileged());
        let (one, _other) = StdUnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let own = runtime.block_on(async { UnixStream::from_std(one).unwrap().peer_cred() });
        assert!(is_administrator(&own.unwrap()), "the daemon's own user");
        // A user that no host has is in no group.
        assert!(!is_member(Uid::from_raw(u32::MAX - 1)));
    }

    #[test]
    fn a_bad_question_is_answered_and_the_next_one_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.sock");
        let daemon = daemon(&path, 1);
        let mut stream = StdUnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"query\":\"weather\"}\n{\"query\":\"status\"}\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].starts_with("{\"error\":\"not a question this daemon knows"), "{text}");
        assert_eq!(lines[1], "{\"ok\":{\"role\":\"test\"}}");
        daemon.join().unwrap();
    }

    #[test]
    fn a_question_without_end_is_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.sock");
        let daemon = daemon(&path, 1);
        let mut stream = StdUnixStream::connect(&path).unwrap();
        // The server may close before everything is written.
        let _ = stream.write_all(&vec![b'x'; LONGEST_QUERY * 4]);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.is_empty() || text.contains("longer than 4096 octets"), "{text}");
        assert_eq!(client::ask(&path, &Query::Status).unwrap(), json!({"role": "test"}));
        daemon.join().unwrap();
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let daemon = daemon(&path, 1);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let second = runtime.block_on(async { Server::bind(&path) }).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(client::ask(&path, &Query::Status).unwrap(), json!({"role": "test"}));
        daemon.join().unwrap();
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let error = runtime.block_on(async { Server::bind(&path) }).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
    }
}
