//! Seeded damage to packets.

use rand::rngs::StdRng;
use rand::{Rng, RngExt};

/// A packet drawn from `corpus` and damaged, or pure noise, never one of `corpus`; the same generator gives the same packets.
pub fn packet(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    loop {
        let packet = attempt(corpus, rng);
        if !corpus.contains(&packet) {
            return packet;
        }
    }
}

fn attempt(corpus: &[Vec<u8>], rng: &mut StdRng) -> Vec<u8> {
    let kind = rng.random_range(0..8);
    if kind == 0 || corpus.is_empty() {
        let mut noise = vec![0; rng.random_range(0..200)];
        rng.fill_bytes(&mut noise);
        return noise;
    }
    let mut packet = corpus[rng.random_range(0..corpus.len())].clone();
    for _ in 0..rng.random_range(1..6) {
        damage(&mut packet, corpus, rng);
    }
    packet
}

fn damage(packet: &mut Vec<u8>, corpus: &[Vec<u8>], rng: &mut StdRng) {
    if packet.is_empty() {
        packet.push(rng.random());
    }
    let at = rng.random_range(0..packet.len());
    match rng.random_range(0..8) {
        0 => packet[at] ^= 1 << rng.random_range(0..8),
        1 => packet[at] = rng.random(),
        2 => packet[at] = [0x00, 0x01, 0x7f, 0x80, 0xff][rng.random_range(0..5)],
        3 => packet.truncate(at),
        4 => packet.insert(at, rng.random()),
        // A length or count that reaches just about to the end.
        5 if at + 1 < packet.len() => {
            let rest = (packet.len() - at - 2 + rng.random_range(0..3)) as u16;
            packet[at..at + 2].copy_from_slice(&rest.to_be_bytes());
        }
        6 => drop(packet.drain(at..(at + rng.random_range(1..8)).min(packet.len()))),
        _ => {
            let other = &corpus[rng.random_range(0..corpus.len())];
            packet.truncate(at);
            packet.extend_from_slice(&other[at.min(other.len())..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn no_packet_stays_whole() {
        let corpus = [vec![0; 4], vec![0; 5], vec![1]];
        let mut rng = StdRng::seed_from_u64(1);
        for _ in 0..10_000 {
            assert!(!corpus.contains(&packet(&corpus, &mut rng)));
        }
    }
}
