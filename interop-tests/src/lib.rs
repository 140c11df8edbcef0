//! What the tests of this crate share: the captures of real peers and a source of damaged packets.
//!
//! The tests themselves are in `tests/`, one file per question: do the messages of real peers parse (`captures`), does damaged
//! input stay harmless to the parsers (`mutations`) and to running daemons (`flood`), does an independent dissector agree with what
//! the lab sends (`dissection`), do FRR and BIRD take the EID aggregates over (`routing`), do other implementations work with this one
//! (`matrix`), do our routers answer what real peers sent (`peers`, `replay`, `replay_lispers`, `replay_vpp`), does the web page hold in a real
//! browser (`web`).

pub mod browser;
pub mod captures;
pub mod corpus;
pub mod daemon;
pub mod dissector;
pub mod emitted;
pub mod etcd;
pub mod load;
pub mod manager;
pub mod matrix;
pub mod mutate;
pub mod oracle;
pub mod peers;
pub mod replay;
pub mod routing;
pub mod simulation;
pub mod site;
