//! The daemon's end of the admin socket.

use std::ffi::CString;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mapping::admin::{Part, Query, Request};
use mapping::eid::EidPrefix;
use nix::unistd::{Gid, Uid, User, getgrouplist};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedWriteHalf, UCred};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use super::{Answer, LONGEST_ORDER, LONGEST_QUERY, NOT_ADMINISTRATOR};

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
    // Who that is takes a look-up: only who has much to say is asked.
    let longest = || if is_administrator(&peer) { LONGEST_ORDER } else { LONGEST_QUERY };
    loop {
        let answer = match timeout(IDLE, read_line(&mut reader, longest)).await {
            Err(_) | Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Ok(Ok(Some(Line::Whole(line)))) => match understood(&line, &peer) {
                Ok(query) => {
                    answer(query, requests, &mut writer).await?;
                    continue;
                }
                Err(text) => Answer::Error(text),
            },
            Ok(Ok(Some(Line::TooLong(longest)))) => {
                let refusal =
                    Answer::Error(format!("the question is longer than {longest} octets"));
                write_answer(&mut writer, &refusal).await?;
                return Ok(());
            }
        };
        write_answer(&mut writer, &answer).await?;
    }
}

async fn write_answer(writer: &mut OwnedWriteHalf, answer: &Answer) -> io::Result<()> {
    let mut line = serde_json::to_vec(answer)?;
    line.push(b'\n');
    write(writer, &line).await
}

async fn write(writer: &mut OwnedWriteHalf, octets: &[u8]) -> io::Result<()> {
    match timeout(IDLE, writer.write_all(octets)).await {
        Ok(written) => written,
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
    }
}

enum Line {
    Whole(Vec<u8>),
    /// Longer than so many octets.
    TooLong(usize),
}

/// One line without its end, holding at most [`LONGEST_QUERY`] octets, or what `longest` allows then; `None` at the end of the stream.
async fn read_line(
    reader: &mut (impl AsyncBufRead + Unpin),
    longest: impl Fn() -> usize,
) -> io::Result<Option<Line>> {
    let (mut line, mut limit) = (Vec::new(), LONGEST_QUERY);
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(Line::Whole(line)));
        }
        let end = available.iter().position(|&octet| octet == b'\n');
        let part = &available[..end.unwrap_or(available.len())];
        if line.len() + part.len() > limit {
            limit = longest();
            if line.len() + part.len() > limit {
                return Ok(Some(Line::TooLong(limit)));
            }
        }
        line.extend_from_slice(part);
        let used = part.len() + usize::from(end.is_some());
        reader.consume(used);
        if end.is_some() {
            return Ok(Some(Line::Whole(line)));
        }
    }
}

/// The question in a line, if whoever wrote it may ask that.
fn understood(line: &[u8], peer: &UCred) -> Result<Query, String> {
    let query: Query = serde_json::from_slice(line)
        .map_err(|error| format!("not a question this daemon knows: {error}"))?;
    if query.is_privileged() && !is_administrator(peer) {
        return Err(NOT_ADMINISTRATOR.to_owned());
    }
    Ok(query)
}

/// Passes a question to the daemon and writes its answer. A list that comes in parts is one list in the answer, and is never held whole.
async fn answer(
    query: Query,
    requests: &mpsc::Sender<Request>,
    writer: &mut OwnedWriteHalf,
) -> io::Result<()> {
    let first = match ask_part(query.clone(), None, requests).await {
        Ok(part) => part,
        Err(text) => return write_answer(writer, &Answer::Error(text)).await,
    };
    let (Value::Array(entries), Some(next)) = (&first.view, first.next) else {
        return write_answer(writer, &Answer::Ok(first.view)).await;
    };
    write(writer, b"{\"ok\":[").await?;
    write(writer, &listed(entries)?).await?;
    let mut after = Some(next);
    while after.is_some() {
        // An answer that was begun can only break off.
        let Part { view, next } =
            ask_part(query.clone(), after, requests).await.map_err(io::Error::other)?;
        let more = listed(view.as_array().map(Vec::as_slice).unwrap_or_default())?;
        if !more.is_empty() {
            write(writer, b",").await?;
            write(writer, &more).await?;
        }
        after = next;
    }
    write(writer, b"]}\n").await
}

/// The entries as they stand in a JSON list.
fn listed(entries: &[Value]) -> io::Result<Vec<u8>> {
    let mut octets = serde_json::to_vec(entries)?;
    octets.pop();
    Ok(octets.split_off(octets.len().min(1)))
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

/// Asks the daemon behind `requests` for an answer, or for the part of it that comes after `after`.
pub(crate) async fn ask_part(
    query: Query,
    after: Option<EidPrefix>,
    requests: &mpsc::Sender<Request>,
) -> Result<Part, String> {
    let stopping = || "the daemon is stopping".to_owned();
    let (reply, answer) = oneshot::channel();
    if requests.send(Request { query, after, reply }).await.is_err() {
        return Err(stopping());
    }
    let asked = async { answer.await.unwrap_or_else(|_| Err(stopping())) };
    match timeout(PATIENCE, asked).await {
        Ok(part) => part,
        Err(_) => Err(format!("the daemon did not answer within {} s", PATIENCE.as_secs())),
    }
}

/// Asks the daemon behind `requests` what has a short answer.
pub(crate) async fn ask(query: Query, requests: &mpsc::Sender<Request>) -> Result<Value, String> {
    ask_part(query, None, requests).await.map(|part| part.view)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client;
    use mapping::eid::InstanceId;
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
                        Query::Status => Ok(json!({"role": "test"}).into()),
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
    fn a_list_that_comes_in_parts_is_one_answer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("test.sock");
        let [first, second] = ["10.0.0.0/8", "10.2.0.0/16"]
            .map(|text| EidPrefix::new(InstanceId::DEFAULT, text.parse().unwrap()));
        let served = path.clone();
        let (bound, ready) = std::sync::mpsc::channel();
        let daemon = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (sender, mut requests) = mpsc::channel(4);
                let server = tokio::spawn(Server::bind(&served).unwrap().serve(sender));
                bound.send(()).unwrap();
                let parts = [
                    (None, json!([{"n": 1}, {"n": 2}]), Some(first)),
                    (Some(first), json!([]), Some(second)),
                    (Some(second), json!([{"n": 3}]), None),
                    // The second question's answer breaks off.
                    (None, json!([1]), Some(first)),
                ];
                for (expected, view, next) in parts {
                    let Request { after, reply, .. } = requests.recv().await.unwrap();
                    assert_eq!(after, expected);
                    reply.send(Ok(Part { view, next })).unwrap();
                }
                let _ = requests.recv().await.unwrap().reply.send(Err("stopping".to_owned()));
                tokio::time::sleep(Duration::from_millis(50)).await;
                drop(requests);
                server.await.unwrap();
            });
        });
        ready.recv().unwrap();
        let all = client::ask(&path, &Query::MapCache).unwrap();
        assert_eq!(all, json!([{"n": 1}, {"n": 2}, {"n": 3}]));
        let broken = client::ask(&path, &Query::MapCache).unwrap_err();
        assert!(broken.to_string().contains("not understood"), "{broken}");
        daemon.join().unwrap();
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
        let _ = stream.write_all(&vec![b'x'; LONGEST_ORDER + 1]);
        let mut text = String::new();
        let _ = stream.read_to_string(&mut text);
        assert!(text.is_empty() || text.contains("longer than 8388608 octets"), "{text}");
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
