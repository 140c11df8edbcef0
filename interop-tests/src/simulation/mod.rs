//! The whole suite in one thread: thousands of tunnel routers and their Map-Servers as the pure state machines they are, under one
//! virtual clock, over a network that loses, delays, doubles and partitions, with crashes. Everything follows from one seed.
//!
//! ```text
//!   site 0 -- xTR 198.18.0.0 --+-- 192.0.2.1  Map-Server and Map-Resolver
//!   site 1 -- xTR 198.18.0.1 --+-- 192.0.2.2  another, with the same sites
//!     ...                      |
//!   site n -- xTR 198.18.x.y --+
//! ```
//!
//! | file | what |
//! |---|---|
//! | `queue` | what is to happen, in its order |
//! | `network` | nodes, datagrams under way, the clock; knows nothing of sites |
//! | `node` | a state machine, its forwarding table, its disk |
//! | `weather` | what becomes of a datagram |
//! | `plan` | addresses and configurations of sites and Map-Servers |
//! | `observer` | reads along on the wire and judges rates by the RFCs, with nothing but the packets |
//! | `oracle` | knows every registration ever made, and where each site is now |
//! | `world` | sites with traffic; what operators and fate do to them |
//! | `movers` | hosts that move between sites |
//! | `storm` | fate: partitions, crashes and broken links at random |
//! | `report` | the figures |
//!
//! Run [`World`]; the tests are in `tests/simulation.rs`. A run prints its seed, and `ISTHMUS_SIMULATION_SEED` runs it again, event for
//! event ([`World::digest`]).
mod movers;
mod network;
mod node;
mod observer;
mod oracle;
mod plan;
mod queue;
mod report;
mod storm;
mod weather;
mod world;

pub use node::Restart;
pub use plan::Plan;
pub use report::{Distribution, Report, Resolutions};
pub use weather::Weather;
pub use world::World;

/// The seed to run with: that of `ISTHMUS_SIMULATION_SEED`, else `usual`. It is printed, so that a failing test tells it.
///
/// # Panics
/// The variable is no number.
pub fn seed(usual: u64) -> u64 {
    let wanted = std::env::var("ISTHMUS_SIMULATION_SEED").ok();
    let seed =
        wanted.map_or(usual, |seed| seed.parse().expect("ISTHMUS_SIMULATION_SEED is a number"));
    println!("simulation with seed {seed}: ISTHMUS_SIMULATION_SEED={seed} runs it again");
    seed
}
