//! PURE. Control messages that an RTR sends through a NAT behind a LISP header (draft-ermagan-lisp-nat-traversal §4.5).
use super::{Forwarder, Output, Step};
use crate::drops::DropReason;
use crate::packet::Inner;
use crate::packet::headers::protocol;
use crate::policy::Policy;
use crate::punt::Punt;
use mapping::eid::InstanceId;
use mapping::wire::CONTROL_PORT;
use std::net::IpAddr;

/// The Instance ID that says so.
pub(super) const CONTROL: u32 = InstanceId::MAX;
/// Longer ones are none: a Map-Notify fits any path.
const LONGEST: usize = 1500;

impl<P: Policy> Forwarder<P> {
    /// Hands a control message to the control plane, which proves it.
    #[cold]
    pub(super) fn punt_control(
        &self,
        rloc: IpAddr,
        packet: &[u8],
        out: &mut impl Output,
    ) -> Result<(), DropReason> {
        let inner = Inner::parse(packet)?;
        let is_control = inner.protocol == protocol::UDP
            && inner.ports.is_some_and(|(_, to)| to == CONTROL_PORT)
            && inner.total_len <= LONGEST;
        let local = self.settings.rlocs.get(self.arrived_at).copied();
        let Some(local) = local.filter(|_| is_control) else {
            return Err(DropReason::InstanceUnknown);
        };
        let packet = packet[..inner.total_len].into();
        self.punts
            .send_for_others(Punt::ControlInData { local, rloc, packet })
            .map_err(|_| DropReason::PuntQueueFull)?;
        out.step(Step::Punted);
        self.counters.control_in_data();
        Ok(())
    }
}
