//! `show mobility`.

use ::xtr::view::HostView;

use super::super::columns::Align::{Left, Right};
use super::super::columns::{clock, clock_or, table};
use super::in_instance;

/// The hosts of dynamic-EID ranges.
pub(super) fn hosts(hosts: &[HostView]) -> String {
    if hosts.is_empty() {
        return "No host of a dynamic-EID range is here or known to be away.\n".to_owned();
    }
    let header = [
        ("EID", Left),
        ("Place", Left),
        ("Since", Right),
        ("Heard", Right),
        ("Detected", Left),
        ("Interface", Left),
        ("Registration", Left),
        ("Held", Right),
        ("RLOCs", Left),
    ];
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let row = |host: &HostView| {
        let rlocs: Vec<String> = host.rlocs.iter().map(ToString::to_string).collect();
        vec![
            in_instance(host.instance_id, host.eid.into()),
            host.place.clone(),
            clock(host.since_seconds),
            clock_or(host.heard_seconds, "-"),
            or_dash(&host.detected_by),
            or_dash(&host.interface),
            host.registration.map_or("-", |state| state.name()).to_owned(),
            clock_or(host.held_seconds, "-"),
            rlocs.join(", "),
        ]
    };
    table(0, &header, &hosts.iter().map(row).collect::<Vec<_>>())
}
