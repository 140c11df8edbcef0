//! What a pure state machine wants sent.

use std::net::{IpAddr, SocketAddr};

/// One UDP datagram to send from a control-plane state machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// The local address to send from; one of the daemon's own.
    pub source: IpAddr,
    /// Which local port to send from.
    pub source_port: SourcePort,
    /// Where to.
    pub destination: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// The local UDP port of a datagram (RFC 9301 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourcePort {
    /// 4342.
    Control,
    /// A random port chosen once per process: Map-Registers (§5.6) and ECMs (§5.8).
    Ephemeral,
    /// 4341, as the NAT binding of a tunnel router's data port needs (draft-ermagan-lisp-nat-traversal §4.3); only a tunnel router has it.
    Data,
}
