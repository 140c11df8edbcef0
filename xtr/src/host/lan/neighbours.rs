//! What the kernel finds out about neighbours: which of them have just answered it. And asking it to find out.
use super::super::netlink_error;
use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use rtnetlink::{Handle, MulticastGroup};
use std::io;
use std::net::IpAddr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Events waiting; what comes beyond is lost, and told again when the kernel next makes sure.
const QUEUE: usize = 256;

/// A neighbour has answered the kernel just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reachable {
    /// Index of its interface.
    pub interface: u32,
    /// Its address.
    pub address: IpAddr,
}

/// Listens to the kernel's neighbour tables; dropping it ends that.
#[derive(Debug)]
pub struct Neighbours {
    receiver: mpsc::Receiver<Reachable>,
    task: JoinHandle<()>,
}

impl Neighbours {
    /// Starts to listen for neighbours on these interfaces (indexes).
    ///
    /// # Errors
    /// What the kernel said.
    pub fn listen(interfaces: Vec<u32>) -> io::Result<Self> {
        let (connection, handle, mut messages) =
            rtnetlink::new_multicast_connection(&[MulticastGroup::Neigh])?;
        let (sender, receiver) = mpsc::channel(QUEUE);
        let task = tokio::spawn(async move {
            let _keeps_the_connection = handle;
            let forward = async {
                while let Some((message, _)) = messages.next().await {
                    let NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewNeighbour(entry)) =
                        message.payload
                    else {
                        continue;
                    };
                    let seen = reachable(&entry).filter(|r| interfaces.contains(&r.interface));
                    if let Some(seen) = seen {
                        let _ = sender.try_send(seen);
                    }
                }
            };
            tokio::join!(connection, forward);
        });
        Ok(Self { receiver, task })
    }

    /// The next one; pending for ever once the kernel closed the connection. Cancel-safe.
    pub async fn next(&mut self) -> Reachable {
        match self.receiver.recv().await {
            Some(seen) => seen,
            None => std::future::pending().await,
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Only an entry in state REACHABLE says that somebody has answered: one becomes STALE by mere age.
fn reachable(entry: &NeighbourMessage) -> Option<Reachable> {
    let is_answered = entry.header.state == NeighbourState::Reachable;
    let address = address_of(entry).filter(|_| is_answered)?;
    Some(Reachable { interface: entry.header.ifindex, address })
}

fn address_of(entry: &NeighbourMessage) -> Option<IpAddr> {
    entry.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(address)) => Some((*address).into()),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(address)) => {
            Some((*address).into())
        }
        _ => None,
    })
}

/// The neighbours that the kernel remembers on these interfaces, in whatever state.
///
/// # Errors
/// What the kernel said.
pub async fn remembered(handle: &Handle, interfaces: &[u32]) -> io::Result<Vec<Reachable>> {
    let mut found = Vec::new();
    let mut entries = handle.neighbours().get().execute();
    while let Some(entry) =
        entries.try_next().await.map_err(|error| netlink_error("list neighbours", &error))?
    {
        let interface = entry.header.ifindex;
        if let Some(address) = address_of(&entry).filter(|_| interfaces.contains(&interface)) {
            found.push(Reachable { interface, address });
        }
    }
    Ok(found)
}

/// Has the kernel make sure that a neighbour is there; it says so by an event. One that it has heard of lately is asked some seconds
/// later, and to itself; one that it has not is asked for at once.
///
/// # Errors
/// What the kernel said.
pub async fn make_sure(handle: &Handle, neighbour: Reachable) -> io::Result<()> {
    let Reachable { interface, address } = neighbour;
    let request = handle.neighbours().add(interface, address).replace();
    let request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
    let asked = request.execute().await;
    asked.map_err(|error| netlink_error(&format!("make sure of neighbour {address}"), &error))
}
