//! Packets to start from, whole and with every checksum right, and what is done to them.
use crate::check::{Seen, fold, pseudo, sum};
use crate::random::Random;
use std::net::IpAddr;

/// The site's end of a flow; the last octet names the mapping on the other end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flow {
    pub(crate) v6: bool,
    pub(crate) protocol: u8,
    pub(crate) source: u8,
    pub(crate) destination: u8,
    pub(crate) ports: (u16, u16),
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) sequence: u32,
    pub(crate) id: u16,
    extensions: u8,
    options: u8,
}

impl Flow {
    pub(crate) fn any(random: &mut Random) -> Self {
        Self {
            v6: random.one_in(2),
            protocol: random.pick(&[6, 6, 6, 6, 17, 17, 17, 17, 1, 58, 132, 47]),
            source: random.octet() % 8,
            destination: random.octet(),
            ports: (
                random.pick(&[40_000, 40_001, 4341]),
                random.pick(&[443, 443, 443, 443, 53, 4341, 4342]),
            ),
            tos: random.pick(&[0, 0, 1, 2, 2, 3, 0xb8, 0xba]),
            ttl: random.pick(&[64, 64, 64, 64, 255, 2, 1, 0]),
            dont_fragment: !random.one_in(3),
            sequence: random.next() as u32,
            id: random.next() as u16,
            extensions: if random.one_in(6) { 1 + random.octet() % 5 } else { 0 },
            options: if random.one_in(8) { 1 + random.octet() % 3 } else { 0 },
        }
    }

    /// One packet with `len` octets of payload, appended to `out`.
    pub(crate) fn packet(&self, len: usize, out: &mut Vec<u8>) {
        let start = out.len();
        if self.v6 {
            self.header_v6(out);
        } else {
            self.header_v4(out);
        }
        let transport = out.len();
        match self.protocol {
            6 => {
                out.extend(self.ports.0.to_be_bytes());
                out.extend(self.ports.1.to_be_bytes());
                out.extend(self.sequence.to_be_bytes());
                // Timestamps, as every Linux segment carries.
                out.extend([
                    0, 0, 0, 9, 0x80, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 8, 10, 0, 0, 1, 2, 0, 0, 3, 4,
                ]);
            }
            17 => {
                out.extend(self.ports.0.to_be_bytes());
                out.extend(self.ports.1.to_be_bytes());
                out.extend((8 + len.min(65_000) as u16).to_be_bytes());
                out.extend([0, 0]);
            }
            _ => out.extend([8, 0, 0, 0, 0, 1, 0, 1]),
        }
        let filled = out.len();
        out.resize(filled + len, 0);
        for (index, octet) in out[filled..].iter_mut().enumerate() {
            *octet = (index * 7 + (index >> 8)) as u8;
        }
        let total = out.len() - start;
        if self.v6 {
            out[start + 4..start + 6].copy_from_slice(&((total - 40) as u16).to_be_bytes());
        } else {
            out[start + 2..start + 4].copy_from_slice(&(total as u16).to_be_bytes());
        }
        mend(&mut out[start..], transport - start);
    }

    fn header_v4(&self, out: &mut Vec<u8>) {
        // A record route (not copied), no-operations, a security option (copied).
        let options: &[u8] = match self.options {
            1 => &[7, 7, 4, 0, 0, 0, 0, 0],
            2 => &[1, 1, 1, 1],
            3 => &[0x82, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            _ => &[],
        };
        let flags = if self.dont_fragment { 0x40 } else { 0 };
        out.extend([0x45 + options.len() as u8 / 4, self.tos, 0, 0]);
        out.extend(self.id.to_be_bytes());
        out.extend([flags, 0, self.ttl, self.protocol, 0, 0]);
        out.extend([192, 0, 2, self.source]);
        out.extend([203, 0, 113, self.destination]);
        out.extend(options);
    }

    fn header_v6(&self, out: &mut Vec<u8>) {
        // Hop-by-hop, destination options, routing, authentication, an atomic fragment: as many as asked for.
        const CHAIN: [(u8, &[u8]); 5] = [
            (0, &[0, 0, 1, 4, 0, 0, 0, 0]),
            (60, &[0, 0, 1, 4, 0, 0, 0, 0]),
            (43, &[0, 0, 4, 0, 0, 0, 0, 0]),
            (51, &[0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
            (44, &[0, 0, 0, 0, 0, 0, 0, 7]),
        ];
        let chain = &CHAIN[..usize::from(self.extensions.min(5))];
        let next = |index: usize| chain.get(index).map_or(self.protocol, |header| header.0);
        out.extend([0x60 | self.tos >> 4, self.tos << 4 | 5, 0x43, 0x21, 0, 0, next(0), self.ttl]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.source]);
        out.extend([0x20, 1, 0xd, 0xb8, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, self.destination]);
        for (index, (_, octets)) in chain.iter().enumerate() {
            let at = out.len();
            out.extend(*octets);
            out[at] = next(index + 1);
        }
    }
}

/// Makes the checksums right again, where headers are where they should be.
pub(crate) fn mend(packet: &mut [u8], transport: usize) {
    if packet.len() > 20 && packet[0] >> 4 == 4 {
        let header = (usize::from(packet[0] & 15) * 4).clamp(20, packet.len());
        packet[10..12].fill(0);
        let value = !sum(&packet[..header]);
        packet[10..12].copy_from_slice(&value.to_be_bytes());
    }
    let Some(seen) = Seen::of(packet) else { return };
    let field = transport + if seen.protocol == 6 { 16 } else { 6 };
    if seen.transport != transport || !matches!(seen.protocol, 6 | 17) || field + 2 > seen.total {
        return;
    }
    packet[field..field + 2].fill(0);
    let octets = &packet[transport..seen.total];
    let value = match !fold(pseudo(&seen, octets.len()) + u64::from(sum(octets))) {
        0 if seen.protocol == 17 => 0xffff,
        value => value,
    };
    packet[field..field + 2].copy_from_slice(&value.to_be_bytes());
}

/// Lengths of payloads: mostly small, some up to `most`.
pub(crate) fn length(random: &mut Random, most: usize) -> usize {
    let bound = match random.below(16) {
        0..8 => 80,
        8..14 => 1500,
        14 => 9000,
        _ => 65_000,
    };
    random.below(bound.min(most) + 1)
}

/// Octets that mean something at the edges.
const EDGES: [u8; 12] = [0, 1, 4, 6, 7, 8, 0x0f, 0x40, 0x60, 0x7f, 0x80, 0xff];

/// Damages `packet`, an IP packet with whatever lies around it; `fields` are offsets worth aiming at.
pub(crate) fn damage(random: &mut Random, packet: &mut Vec<u8>, fields: &[usize]) {
    for _ in 0..=random.below(3) {
        if packet.is_empty() {
            return;
        }
        let near = random.below(packet.len().min(120));
        match random.below(12) {
            0..3 => {
                let at = random.pick(fields);
                if let Some(octet) = packet.get_mut(at) {
                    *octet = if random.one_in(2) { random.pick(&EDGES) } else { random.octet() };
                }
            }
            3 | 4 => packet[near] ^= 1 << random.below(8),
            5 => packet[near] = random.pick(&EDGES),
            6 => packet[near] = random.octet(),
            7 => {
                let at = random.pick(fields) & !1;
                let len = packet.len() as u16;
                let value = random.pick(&[
                    0,
                    1,
                    7,
                    8,
                    20,
                    40,
                    len,
                    len.wrapping_sub(1),
                    len.wrapping_add(1),
                    0x2000,
                    0x3fff,
                    0xffff,
                ]);
                if let Some(field) = packet.get_mut(at..at + 2) {
                    field.copy_from_slice(&value.to_be_bytes());
                }
            }
            8 => packet.truncate(near),
            9 => {
                let len = random.below(packet.len() + 1);
                packet.truncate(len);
            }
            10 => {
                let len = packet.len() + 1 + random.below(64);
                packet.resize(len, 0xee);
            }
            _ => martian(random, packet),
        }
    }
}

/// Puts an address that no packet should carry where addresses are.
fn martian(random: &mut Random, packet: &mut [u8]) {
    const V4: [[u8; 4]; 6] =
        [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [169, 254, 0, 1], [198, 51, 100, 1]];
    let is_v6 = packet[0] >> 4 == 6;
    let at = match (is_v6, random.one_in(2)) {
        (false, source) => {
            if source {
                12
            } else {
                16
            }
        }
        (true, source) => {
            if source {
                8
            } else {
                24
            }
        }
    };
    let Some(field) = packet.get_mut(at..at + if is_v6 { 16 } else { 4 }) else { return };
    if is_v6 {
        let first = random.pick(&[0u8, 0xfe, 0xff]);
        field.fill(0);
        (field[0], field[1]) = (first, if first == 0 { 0 } else { 0x80 });
        field[15] = random.octet() % 3;
    } else {
        field.copy_from_slice(&random.pick(&V4));
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}
