//! The LISP mapping system: the control-plane words and messages that every role speaks, and a Map-Server/Map-Resolver.
//!
//! # Layers
//!
//! ```text
//!   daemon            sockets, clock, admin requests, log        the only async code
//!     |
//!   server            Map-Server: sites, registry, Map-Notify,   pure state machine
//!     |               what becomes of a Map-Request
//!   resolver          Map-Resolver: what is a lookup, where its
//!     |               answer goes, the negative prefix
//!     |
//!   auth  limits      MACs of control messages; rate limits      pure functions and tables
//!     |
//!   wire              one file per message, octets <-> types
//!     |
//!   eid               Instance ID, EID, EID-prefix, RLOC, and a table with longest match
//! ```
//!
//! Beside them: [`config`] (what a Map-Server is given), [`timers`] (every interval, retry and bound with its source),
//! [`discard`] (every reason to drop a control message; [`mod@named`] makes such lists), [`view`] and [`admin`] (what `show` asks and gets),
//! [`transmit`].
//! The tunnel router uses `eid`, `wire`, `auth`, `limits`, `timers`, `discard`, `admin` and `transmit` for its own control plane.
//!
//! # Data flow
//!
//! A datagram goes to [`server::MapServer::handle_input`] with the time, the own address it came to and its source:
//!
//! 1. Ports, source and the source's rate are checked, before anything is parsed or any MAC computed.
//! 2. [`wire::Message::parse`] makes a message of it, whole or not at all.
//! 3. A Map-Register: the records name the candidate sites, the key of one of them has to verify, the nonce has to be fresh; then
//!    record by record the site's policy decides and the registry changes. Out go the acknowledging Map-Notify and, to ETRs whose
//!    mapping another one changed, unsolicited ones that are repeated until acknowledged.
//! 4. A Map-Request in an ECM: each record is answered from the registry (proxy service), answered negatively, or passed on to an
//!    ETR with its octets unchanged. Answers go to an ITR-RLOC, never to the packet's source.
//! 5. Anything else is discarded under its own [`discard::Discard`].
//!
//! What is to be sent comes out of `poll_transmit`, what happened out of `poll_event`, when to call `handle_timeout` out of
//! `poll_timeout`. No clock, no I/O and no randomness but the seed is inside, so a whole network of Map-Servers and routers runs in
//! one test under simulated time.
//!
//! # Where to start reading
//!
//! [`server::MapServer`], then `server/register.rs` and `server/request.rs`. For a message format: its file in [`wire`].
#![forbid(unsafe_code)]

pub mod admin;
pub mod auth;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod discard;
pub mod eid;
pub mod limits;
pub mod named;
mod resolver;
pub mod sec;
pub mod server;
pub mod store;
pub mod timers;
pub mod transmit;
pub mod view;
pub mod wire;
