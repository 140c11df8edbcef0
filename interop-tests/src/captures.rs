//! The captures in `captures/`, datagram by datagram.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use mapping::wire::CONTROL_PORT;

/// Why reading a capture cannot fail: the files are part of the repository.
const WELL_FORMED: &str = "the captures of the repository are well-formed pcap files";

/// One datagram of a capture.
pub struct Datagram {
    /// The file's name.
    pub capture: String,
    /// Counted from 1, as every viewer does.
    pub frame: usize,
    /// Where it came from.
    pub source: SocketAddr,
    /// Where it went.
    pub destination: SocketAddr,
    /// The UDP payload.
    pub payload: Vec<u8>,
}

/// The UDP datagrams from or to port 4342, in the order of the captures' names.
pub fn control_datagrams() -> Vec<Datagram> {
    datagrams(CONTROL_PORT)
}

/// The UDP datagrams from or to `port`, in the order of the captures' names.
pub fn datagrams(port: u16) -> Vec<Datagram> {
    let mut datagrams = Vec::new();
    for (capture, file) in captures() {
        for (frame, octets) in frames(&file).into_iter().enumerate() {
            if let Some(([source, destination], payload)) = udp(octets)
                && (source.port() == port || destination.port() == port)
            {
                let (capture, payload) = (capture.clone(), payload.to_vec());
                datagrams.push(Datagram {
                    capture,
                    frame: frame + 1,
                    source,
                    destination,
                    payload,
                });
            }
        }
    }
    datagrams
}

/// Name and content of each capture, sorted by name.
fn captures() -> BTreeMap<String, Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("captures");
    fs::read_dir(folder)
        .expect(WELL_FORMED)
        .map(|entry| entry.expect(WELL_FORMED))
        .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pcap"))
        .map(|entry| {
            (
                entry.file_name().into_string().expect(WELL_FORMED),
                fs::read(entry.path()).expect(WELL_FORMED),
            )
        })
        .collect()
}

/// The frames of a little-endian pcap file with microseconds and Ethernet link type.
fn frames(file: &[u8]) -> Vec<&[u8]> {
    const FILE_HEADER: usize = 24;
    const FRAME_HEADER: usize = 16;
    assert_eq!(file[..4], 0xa1b2_c3d4_u32.to_le_bytes());
    assert_eq!(file[20..24], 1_u32.to_le_bytes());
    let mut frames = Vec::new();
    let mut rest = &file[FILE_HEADER..];
    while let Some((header, after)) = rest.split_at_checked(FRAME_HEADER) {
        let length = u32::from_le_bytes(header[8..12].try_into().expect(WELL_FORMED));
        let (frame, after) = after.split_at(length.try_into().expect(WELL_FORMED));
        frames.push(frame);
        rest = after;
    }
    assert!(rest.is_empty());
    frames
}

/// Source, destination and payload of an unfragmented UDP datagram in an Ethernet frame.
fn udp(frame: &[u8]) -> Option<([SocketAddr; 2], &[u8])> {
    const ETHERNET: usize = 14;
    const IPV6: usize = 40;
    let packet = &frame[ETHERNET..];
    let (protocol, addresses, datagram) = match u16_at(frame, 12) {
        0x0800 if u16_at(packet, 6) & 0x3fff == 0 => {
            let header = usize::from(packet[0] & 0x0f) * 4;
            let addresses = [12, 16].map(|at| IpAddr::from(array_at::<4>(packet, at)));
            (packet[9], addresses, &packet[header..usize::from(u16_at(packet, 2))])
        }
        0x86dd => {
            let addresses = [8, 24].map(|at| IpAddr::from(array_at::<16>(packet, at)));
            (packet[6], addresses, &packet[IPV6..IPV6 + usize::from(u16_at(packet, 4))])
        }
        _ => return None,
    };
    let is_udp = protocol == 17;
    is_udp.then(|| {
        let [source, destination] = addresses;
        let ends = [
            SocketAddr::new(source, u16_at(datagram, 0)),
            SocketAddr::new(destination, u16_at(datagram, 2)),
        ];
        (ends, &datagram[8..usize::from(u16_at(datagram, 4))])
    })
}

fn array_at<const N: usize>(octets: &[u8], at: usize) -> [u8; N] {
    octets[at..at + N].try_into().expect(WELL_FORMED)
}

fn u16_at(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(array_at(octets, at))
}
