//! The start: a Map-Server that knows what it knew, and the store that keeps what it learns.

use std::io;
use std::path::Path;
use std::time::Instant;

use tokio::sync::mpsc;

use crate::admin::Request;
use crate::clock::Epoch;
use crate::config::{ClusterConfig, MappingConfig};
use crate::server::{MapServer, StateError};
use crate::store::journal::Journal;
use crate::store::{Forgetful, Store};

/// The Map-Server of `config`, with the state of its `state-dir` if it has one.
///
/// # Errors
/// No member of the cluster answers in time. The directory cannot be used, or what it holds cannot be read or understood; damaged state only without `start_empty`.
pub(super) async fn restore(config: MappingConfig) -> io::Result<(MapServer, Box<dyn Store>)> {
    if let Some(cluster) = config.cluster.clone() {
        return join(config, cluster).await;
    }
    let Some(directory) = config.state_dir.clone() else {
        return Ok((MapServer::new(config, rand::random()), Box::new(Forgetful::default())));
    };
    let mut journal = Journal::open(&directory, config.start_empty)?;
    let error = match read(&config, &mut journal) {
        Ok(server) => return Ok((server, Box::new(journal))),
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::InvalidData || !config.start_empty {
        return Err(error);
    }
    tracing::warn!(%error, "the state cannot be used");
    let mut journal = journal.start_over()?;
    let server = read(&config, &mut journal)?;
    Ok((server, Box::new(journal)))
}

/// Tells operators that the state is not there yet; never ends.
pub(super) async fn put_off(requests: &mut mpsc::Receiver<Request>) {
    while let Some(request) = requests.recv().await {
        let answer = Err("not ready: the state is being read, the log says from where".to_owned());
        // The operator may have gone already.
        drop(request.reply.send(answer));
    }
    std::future::pending::<()>().await;
}

fn read(config: &MappingConfig, journal: &mut Journal) -> io::Result<MapServer> {
    let started = Instant::now();
    let mut server = MapServer::durable(config.clone(), rand::random(), Epoch::of_host());
    let mut entries = 0_u64;
    let mut unknown = None;
    journal.load(&mut |key, value| {
        entries += 1;
        if let Err(error) = server.restore(started, key, value) {
            unknown.get_or_insert(error);
        }
    })?;
    if let Some(error) = unknown {
        return Err(not_understood(config.state_dir.as_deref(), &error));
    }
    tracing::info!(entries, milliseconds = started.elapsed().as_millis(), "state restored");
    Ok(server)
}

/// The Map-Server of `config` with the state that it shares with others.
#[cfg(feature = "cluster")]
async fn join(
    config: MappingConfig,
    cluster: ClusterConfig,
) -> io::Result<(MapServer, Box<dyn Store>)> {
    let mut etcd = crate::store::etcd::Etcd::connect(cluster).await?;
    let started = Instant::now();
    let mut server = MapServer::durable(config, rand::random(), Epoch::of_host());
    let mut entries = 0_u64;
    let mut unknown = None;
    etcd.load(&mut |key, value| {
        entries += 1;
        if let Err(error) = server.restore(started, key, value) {
            unknown.get_or_insert(error);
        }
    })?;
    if let Some(error) = unknown {
        let text = format!(
            "the cluster's state: {error}; another of its Map-Servers may be a newer version of isthmus"
        );
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    tracing::info!(
        entries,
        milliseconds = started.elapsed().as_millis(),
        "the cluster's state is known"
    );
    Ok((server, Box::new(etcd)))
}

#[cfg(not(feature = "cluster"))]
async fn join(_: MappingConfig, _: ClusterConfig) -> io::Result<(MapServer, Box<dyn Store>)> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this program was built without its cluster feature",
    ))
}

fn not_understood(directory: Option<&Path>, error: &StateError) -> io::Error {
    let path = directory.unwrap_or(Path::new("state")).display();
    let advice = "it may be of a newer version of isthmus: run that one, or start once with --start-empty, which sets the state aside";
    io::Error::new(io::ErrorKind::InvalidData, format!("{path}: {error}; {advice}"))
}
