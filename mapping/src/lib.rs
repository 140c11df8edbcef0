//! The LISP mapping system: the control-plane words and messages that every role speaks, and a Map-Server/Map-Resolver.
//!
//! # Layers
//!
//! ```text
//!   daemon  store     sockets, clock, admin requests, log;       the only async code
//!     |               where state survives: a journal, or etcd
//!   server            Map-Server: sites, registry, Map-Notify,   pure state machine
//!     |               what becomes of a Map-Request
//!   resolver          Map-Resolver: what is a lookup, where its
//!     |               answer goes, the negative prefix
//!   ddt               DDT node and DDT client: the tree of many  pure state machines
//!     |               organisations' Map-Servers
//!   auth  sec  limits MACs; LISP-SEC; rate limits                pure functions and tables
//!     |
//!   wire              one file per message, octets <-> types
//!     |
//!   eid               Instance ID, EID, EID-prefix, RLOC, and a table with longest match
//! ```
//!
//! Beside them: [`config`] (what a Map-Server is given), [`timers`] (every interval, retry and bound with its source),
//! [`discard`] (every reason to drop a control message; [`mod@named`] makes such lists), [`view`] and [`admin`] (what `show` asks and gets),
//! [`transmit`], [`recorder`] (what the counters were and what happened) and [`telemetry`] (what is measured) of every daemon.
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
//!    What is in no site here but elsewhere in the Delegated Database Tree is followed there ([`ddt`]); with the D-bit, a Map-Referral
//!    says who knows.
//! 5. Anything else is discarded under its own [`discard::Discard`].
//!
//! What is to be sent comes out of `poll_transmit`, what happened out of `poll_event`, when to call `handle_timeout` out of
//! `poll_timeout`. No clock, no I/O and no randomness but the seed is inside, so a whole network of Map-Servers and routers runs in
//! one test under simulated time.
//!
//! # The wire and its MACs as a library
//!
//! [`wire`], [`auth`] and [`sec`] need nothing else of this crate. A Map-Register is read, verified and acknowledged; a Map-Request is
//! answered under LISP-SEC:
//!
//! ```
//! use mapping::auth::{Covered, PreparedKey};
//! use mapping::config::Algorithm;
//! use mapping::sec::{self, Otk, Requested};
//! use mapping::wire::*;
//!
//! // What an ETR sends: one record, signed by Algorithm ID 3.
//! let key = PreparedKey::new(b"lisp-shared-secret");
//! let algorithm = Algorithm::HmacSha256Hkdf;
//! let eid = EidField::new(Address::Ipv4([203, 0, 113, 0].into()), 24)?;
//! let rloc = std::net::IpAddr::from([192, 0, 2, 129]);
//! let register = MapRegister {
//!     want_map_notify: true,
//!     authentication: AuthenticationData::zeroed(1, algorithm.id(), algorithm.mac_len()),
//!     records: vec![EidRecord::new(eid, 1440, vec![LocatorRecord::new(rloc, 1, 100)])],
//!     ..MapRegister::new(0x1122_3344_5566_7788)
//! };
//! let mut octets = Message::MapRegister(register).to_vec();
//! key.sign(&mut octets, algorithm, Covered::Records)?;
//!
//! // What a Map-Server makes of it.
//! let Message::MapRegister(register) = Message::parse(&octets)? else { panic!("another type") };
//! assert_eq!(key.verify(&octets, &[algorithm]), Ok(Covered::Message));
//! let notify = MapNotify {
//!     nonce: register.nonce,
//!     authentication: register.authentication,
//!     records: register.records,
//!     identity: None,
//! };
//! let mut acknowledgement = Message::MapNotify(notify.clone()).to_vec();
//! key.sign(&mut acknowledgement, algorithm, Covered::Records)?;
//! assert!(key.verify(&acknowledgement, &[algorithm]).is_ok());
//!
//! // A Map-Reply that its ITR can believe: the Map-Server vouches for the EID-prefix, the MAC covers the rest.
//! let itr_otk = Otk::new([7; 16]);
//! let body = EidAdBody {
//!     etr_cant_sign: false,
//!     hmac_id: sec::hmac_id::SHA_256_128,
//!     prefixes: vec![notify.records[0].eid.clone()],
//!     hmac: MacField::zeroed(0),
//! };
//! let mut eid_ad = EidAd { kdf_id: sec::kdf_id::HKDF_SHA256, body: Some(body) };
//! sec::sign_eid_ad(&mut eid_ad, &itr_otk)?;
//! let ms_otk = sec::ms_otk(&itr_otk, eid_ad.kdf_id)?;
//! let reply = MapReply::new(0x0102_0304_0506_0708, notify.records);
//! let reply = sec::protect_reply(reply, &eid_ad.to_vec(), &ms_otk, sec::hmac_id::SHA_256_128)?;
//! let authorized = sec::open_reply(&reply, &itr_otk, Requested::default())?;
//! assert_eq!(authorized.prefixes.len(), 1);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
pub mod ddt;
pub mod discard;
pub mod eid;
pub mod limits;
pub mod migration;
pub mod named;
pub mod recorder;
mod resolver;
pub mod sec;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod timers;
pub mod transmit;
pub mod view;
pub mod wire;
