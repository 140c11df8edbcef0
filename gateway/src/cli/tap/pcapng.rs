//! Capture files for Wireshark: pcapng with an interface per side, a direction and a comment per packet
//! (draft-ietf-opsawg-pcapng §4).

use std::io::{self, Write};

use mapping::admin::{Direction, Side, TapPacket};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// IPv4 or IPv6 by the first half octet, without anything before it.
const LINKTYPE_RAW: u32 = 101;

const COMMENT: u16 = 1;
const SECTION_APPLICATION: u16 = 4;
const INTERFACE_NAME: u16 = 2;
const INTERFACE_RESOLUTION: u16 = 9;
const PACKET_FLAGS: u16 = 2;

/// Nanoseconds: 10^-9 s.
const NANOSECONDS: u8 = 9;

/// A capture file being written.
pub(super) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    /// Begins a file: who wrote it, and both sides of the router.
    pub(super) fn new(out: W) -> io::Result<Self> {
        let mut writer = Self { out };
        let mut section = BYTE_ORDER_MAGIC.to_le_bytes().to_vec();
        section.extend_from_slice(&[1, 0, 0, 0]);
        // The length of the section is not known.
        section.extend_from_slice(&[0xff; 8]);
        let application = concat!("isthmus ", env!("CARGO_PKG_VERSION"));
        option(&mut section, SECTION_APPLICATION, application.as_bytes());
        option(&mut section, 0, &[]);
        writer.block(SECTION_HEADER, &section)?;
        for side in [Side::Native, Side::Core] {
            let mut interface = LINKTYPE_RAW.to_le_bytes().to_vec();
            interface.extend_from_slice(&[0; 4]);
            option(&mut interface, INTERFACE_NAME, side.name().as_bytes());
            option(&mut interface, INTERFACE_RESOLUTION, &[NANOSECONDS]);
            option(&mut interface, 0, &[]);
            writer.block(INTERFACE_DESCRIPTION, &interface)?;
        }
        writer.flush()?;
        Ok(writer)
    }

    /// Adds a packet: `octets` of it, and what became of it.
    pub(super) fn packet(
        &mut self,
        packet: &TapPacket,
        octets: &[u8],
        comment: &str,
    ) -> io::Result<()> {
        let time = packet.nanoseconds;
        let interface = match packet.side {
            Side::Native => 0,
            Side::Core => 1,
        };
        let words = [
            interface,
            (time >> 32) as u32,
            time as u32,
            octets.len() as u32,
            u32::try_from(packet.length).unwrap_or(u32::MAX),
        ];
        let mut body: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        body.extend_from_slice(octets);
        pad(&mut body);
        option(&mut body, COMMENT, comment.as_bytes());
        let direction: u32 = match packet.direction {
            Direction::In => 1,
            Direction::Out => 2,
        };
        option(&mut body, PACKET_FLAGS, &direction.to_le_bytes());
        option(&mut body, 0, &[]);
        self.block(ENHANCED_PACKET, &body)
    }

    /// Hands everything to the operating system: what is in the file up to here can be read.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn block(&mut self, kind: u32, body: &[u8]) -> io::Result<()> {
        let len = body.len() as u32 + 12;
        self.out.write_all(&kind.to_le_bytes())?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(body)?;
        self.out.write_all(&len.to_le_bytes())
    }
}

/// An option; number 0 without a value ends the list.
fn option(body: &mut Vec<u8>, number: u16, value: &[u8]) {
    // Comments and names are short.
    let value = &value[..value.len().min(1 << 10)];
    body.extend_from_slice(&number.to_le_bytes());
    body.extend_from_slice(&(value.len() as u16).to_le_bytes());
    body.extend_from_slice(value);
    pad(body);
}

fn pad(body: &mut Vec<u8>) {
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use mapping::admin::TapVerdict;

    pub(crate) fn dropped() -> TapPacket {
        TapPacket {
            nanoseconds: 0x1122_3344_5566_7788,
            side: Side::Core,
            direction: Direction::In,
            verdict: TapVerdict::Dropped,
            reason: Some("inner_malformed".to_owned()),
            waited: false,
            source: None,
            destination: None,
            protocol: None,
            ports: None,
            inner_length: None,
            rloc: None,
            instance_id: None,
            marks: None,
            pieces: 0,
            length: 1500,
            octets: "4500aabbcc".to_owned(),
        }
    }

    #[test]
    fn a_file_is_as_the_format_says() {
        let mut writer = Writer::new(Vec::new()).expect("memory");
        writer.packet(&dropped(), &[0x45, 0, 0xaa, 0xbb, 0xcc], "why").expect("memory");
        let file = writer.out;
        let application = concat!("isthmus ", env!("CARGO_PKG_VERSION")).as_bytes();
        let mut expected: Vec<u8> = vec![0x0a, 0x0d, 0x0d, 0x0a, 52, 0, 0, 0];
        expected.extend([0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0]);
        expected.extend([0xff; 8]);
        expected.extend([4, 0, application.len() as u8, 0]);
        expected.extend(application);
        expected.extend(vec![0; application.len().next_multiple_of(4) - application.len()]);
        expected.extend([0, 0, 0, 0, 52, 0, 0, 0]);
        // Two interfaces: raw IP, no limit, name, nanoseconds.
        let native = b"\x01\0\0\0\x2c\0\0\0\x65\0\0\0\0\0\0\0\x02\0\x06\0native\0\0\x09\0\x01\0\x09\0\0\0\0\0\0\0\x2c\0\0\0";
        let core = b"\x01\0\0\0\x28\0\0\0\x65\0\0\0\0\0\0\0\x02\0\x04\0core\x09\0\x01\0\x09\0\0\0\0\0\0\0\x28\0\0\0";
        expected.extend(native);
        expected.extend(core);
        // The packet: interface 1, time, 5 of 1500 octets, padding, comment, inbound.
        expected.extend(
            b"\x06\0\0\0\x3c\0\0\0\x01\0\0\0\x44\x33\x22\x11\x88\x77\x66\x55\x05\0\0\0\xdc\x05\0\0",
        );
        expected.extend(
            b"\x45\0\xaa\xbb\xcc\0\0\0\x01\0\x03\0why\0\x02\0\x04\0\x01\0\0\0\0\0\0\0\x3c\0\0\0",
        );
        assert_eq!(file, expected);
    }
}
