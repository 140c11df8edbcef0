//! Map-Registers for a site whose own tunnel router cannot sign any.

use std::io;
use std::net::UdpSocket;

use gateway::lab::namespace::Namespace;
use mapping::auth;
use mapping::config::{Algorithm, Secret};
use mapping::eid::{EidPrefix, InstanceId};
use mapping::wire::{
    AuthenticationData, CONTROL_PORT, EidRecord, LocatorRecord, MapRegister, Message,
};

use super::plan::{Family, Plan, Role};
use crate::daemon::SECRET;

/// Longer than any test, so that one Map-Register will do.
const TTL_MINUTES: u32 = 60;

/// Registers what the router of `role` would, from the core.
pub(super) fn register(plan: &Plan, core: &Namespace, role: Role) -> io::Result<()> {
    let record = |family| {
        let locator = LocatorRecord::new(plan.rloc(role), 1, 100);
        EidRecord::new(eid_prefix(plan, role, family), TTL_MINUTES, vec![locator])
    };
    let algorithm = Algorithm::HmacSha256;
    let message = Message::MapRegister(MapRegister {
        use_ttl: true,
        authentication: AuthenticationData::zeroed(0, algorithm.id(), algorithm.mac_len()),
        records: Family::BOTH.map(record).into(),
        ..MapRegister::new(1)
    });
    let mut octets = message.to_vec();
    auth::sign(&mut octets, &Secret::new(SECRET.into()), algorithm).map_err(io::Error::other)?;
    let (from, to) = (plan.core_gateway(Role::Mapping), plan.rloc(Role::Mapping));
    core.run(move || UdpSocket::bind((from, 0))?.send_to(&octets, (to, CONTROL_PORT)).map(drop))?
}

fn eid_prefix(plan: &Plan, role: Role, family: Family) -> EidPrefix {
    EidPrefix::new(InstanceId::DEFAULT, plan.network(role, family))
}
