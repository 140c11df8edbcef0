//! NAT traversal: what it sends from port 4341, says in the log, and shows.
use super::Daemon;
use crate::control::{ControlPlane, Event};
use crate::view::NatView;
use mapping::transmit::{SourcePort, Transmit};
use std::io;
use std::time::Instant;

impl Daemon {
    /// Sends a control message without waiting.
    pub(super) fn send(&self, transmit: &Transmit) -> io::Result<()> {
        match transmit.source_port {
            // The data plane has that port.
            SourcePort::Data => self.engine.send_from_data_port(
                transmit.source,
                transmit.destination,
                &transmit.payload,
            ),
            SourcePort::Control | SourcePort::Ephemeral => self.sockets.send(transmit),
        }
    }
}

/// `show nat`, or why there is nothing to show.
pub(super) fn view(control: &ControlPlane, now: Instant) -> Result<NatView, String> {
    control.nat_view(now).ok_or_else(|| {
        "NAT traversal is off: set nat-traversal in [xtr], or nat in [rtr] of a gateway".to_owned()
    })
}

/// What became of a NAT.
pub(super) fn log(event: &Event) {
    match event {
        Event::NatFound { rloc, global, rtr: Some(rtr) } => {
            tracing::info!(%rloc, seen_as = %global, %rtr, "there is a NAT: registered through an RTR");
        }
        Event::NatFound { rloc, global, rtr: None } => tracing::warn!(
            %rloc, seen_as = %global,
            "there is a NAT, and the Map-Server names no RTR of this address family: the RLOC cannot be reached"
        ),
        Event::NatGone(rloc) => tracing::info!(%rloc, "there is no NAT any more"),
        Event::NatUnknown(rloc) => tracing::warn!(
            %rloc,
            "no Map-Server answers Info-Requests, so nobody knows whether there is a NAT, and the RLOC is not registered: \
             has the Map-Server [nat] rtrs, and the same key?"
        ),
        Event::RtrAnswered { rloc, rtr } => {
            tracing::info!(%rloc, %rtr, "the RTR carries what comes and goes");
        }
        Event::RtrUnanswered { rloc, rtr } => {
            tracing::warn!(%rloc, %rtr, "nothing comes back through the RTR");
        }
        Event::NotifyOfOther { rtr, identity } => {
            tracing::error!(%rtr, %identity, "a Data-Map-Notify is for another xTR: discarded");
        }
        Event::NatSiteMoved { prefix, from, to } => {
            tracing::info!(%prefix, %from, %to, "a NAT gave an xTR another address or port");
        }
        Event::NatSiteGone(prefix) => {
            tracing::info!(%prefix, "not registered through this RTR any more");
        }
        _ => {}
    }
}
