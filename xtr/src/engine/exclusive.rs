//! Making sure that a port is this process's alone before its workers share it.
//!
//! The workers' sockets share their ports by SO_REUSEPORT. A predecessor that just died may still hold such a socket
//! (the kernel takes an io_uring apart in the background), and would go on getting its part of the packets; so would a
//! second daemon on the same RLOC. Binding once without sharing finds both.
use super::udp::PortPool;
use crate::config::DataConfig;
use crate::packet::lisp;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// How long a predecessor's sockets may linger; usually some ten milliseconds, seconds where the kernel is lazy about RCU.
const PATIENCE: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(5);
/// Pools tried until one has no port in use.
const POOLS: u16 = 32;

/// Waits until nobody else has port 4341 of an own RLOC.
///
/// # Errors
/// `AddrInUse` if somebody still has it after fifteen seconds; else what the kernel said.
pub(super) fn await_data_ports(rlocs: &[IpAddr]) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    for &rloc in rlocs {
        while let Err(error) = bind_alone(rloc, lisp::DATA_PORT) {
            if error.kind() != io::ErrorKind::AddrInUse || Instant::now() > deadline {
                let text = format!("cannot bind UDP {rloc} port {}: {error}", lisp::DATA_PORT);
                return Err(io::Error::new(error.kind(), text));
            }
            std::thread::sleep(RETRY);
        }
    }
    Ok(())
}

/// A pool of source ports that are all free on every own RLOC; the last one tried if none is.
pub(super) fn free_pool(config: &DataConfig, seed: u16) -> PortPool {
    let pools = (0..POOLS).map(|n| PortPool::new(config.source_ports, seed.wrapping_add(n * 37)));
    let is_free = |pool: &PortPool| {
        let mut ports = (0..pool.len()).map(|index| pool.port(index));
        ports.all(|port| config.rlocs.iter().all(|&rloc| bind_alone(rloc, port).is_ok()))
    };
    let first = PortPool::new(config.source_ports, seed);
    pools.into_iter().find(is_free).unwrap_or(first)
}

/// Binds without SO_REUSEPORT and lets go at once.
fn bind_alone(rloc: IpAddr, port: u16) -> io::Result<()> {
    let address = SocketAddr::new(rloc, port);
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if rloc.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, UdpSocket};

    const RLOC: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn config() -> DataConfig {
        DataConfig {
            rlocs: vec![RLOC],
            tun_name: "unused0".to_owned(),
            queues: Some(1),
            ..DataConfig::default()
        }
    }

    #[test]
    fn a_pool_with_a_port_in_use_is_not_taken() {
        let config = config();
        let seed = 4711;
        let Ok(_holder) = UdpSocket::bind((RLOC, PortPool::new(64, seed).port(17))) else {
            println!("SKIP: the port of the test is in use");
            return;
        };
        let pool = free_pool(&config, seed);
        assert_ne!(pool, PortPool::new(64, seed));
        assert_eq!(pool.len(), 64);
    }

    #[test]
    fn a_shared_port_counts_as_in_use() {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&SocketAddr::new(RLOC, 0).into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(bind_alone(RLOC, port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(socket);
        bind_alone(RLOC, port).unwrap();
    }
}
