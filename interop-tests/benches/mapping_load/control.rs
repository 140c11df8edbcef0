//! The control: a server that knows nothing. It sends every message back after as much work as it is told to do, so that what its answers
//! take longer than that is what this machine, its kernel and the generator take.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mapping::wire::CONTROL_PORT;
use nix::cmsg_space;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};

/// The first argument of the process that serves.
pub(crate) const SERVE: &str = "--serve-control";
/// Octets the socket may hold, as much as a Map-Server's.
const RECEIVE_BUFFER: usize = 8 << 20;

/// What starts [`serve`] in another process.
pub(crate) fn command(address: IpAddr, work: Duration) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args([SERVE, &address.to_string(), &work.as_nanos().to_string()]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

/// Sends back what comes to port 4342, until the process is killed.
pub(crate) fn serve(address: &str, nanoseconds: &str) -> io::Result<()> {
    let address: IpAddr = address.parse().map_err(io::Error::other)?;
    let work = Duration::from_nanos(nanoseconds.parse().map_err(io::Error::other)?);
    let socket = UdpSocket::bind(SocketAddr::new(address, CONTROL_PORT))?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    setsockopt(&socket, sockopt::UdpGroSegment, &true)?;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let mut control = cmsg_space!(i32);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let message = recvmsg::<SockaddrStorage>(
            socket.as_raw_fd(),
            &mut slices,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let began = Instant::now();
        let size = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => u16::try_from(size).ok(),
            _ => None,
        });
        let (length, from) = (message.bytes, message.address);
        let messages = size.map_or(1, |size| length.div_ceil(usize::from(size).max(1)));
        while began.elapsed() < work * messages as u32 {
            std::hint::spin_loop();
        }
        let segments = size.map(|size| [size]);
        let control: Vec<_> =
            segments.iter().map(|[size]| ControlMessage::UdpGsoSegments(size)).collect();
        let octets = [IoSlice::new(&buffer[..length])];
        sendmsg(socket.as_raw_fd(), &octets, &control, MsgFlags::empty(), from.as_ref())?;
    }
}
