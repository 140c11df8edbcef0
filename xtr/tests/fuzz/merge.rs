//! What the engine merges into super-packets for the TUN, and whether the kernel would cut them into the same packets again.
use crate::check::{Seen, fold, pseudo, sum, word};
use crate::machine::{Kind, Machine};
use xtr::packet::coalesce::MAX_PACKETS;
use xtr::packet::{Coalescer, Inner, MAX_HEADERS_LEN, Offer, Segments, VirtioNetHeader};

const FLOWS: usize = 16;

/// A super-packet in the making, with the packets it is made of.
#[derive(Default)]
struct Merger {
    coalescer: Coalescer,
    packets: Vec<Vec<u8>>,
    payload: Vec<u8>,
}

/// As the engine has them.
pub(crate) struct Mergers {
    mergers: Vec<Merger>,
    pub(crate) packets: u64,
    pub(crate) writes: u64,
}

impl Mergers {
    pub(crate) fn new() -> Self {
        Self { mergers: (0..FLOWS).map(|_| Merger::default()).collect(), packets: 0, writes: 0 }
    }

    /// Takes what was delivered; `flush` ends every super-packet.
    pub(crate) fn take(&mut self, machine: &Machine, flush: bool) {
        for item in &machine.out.items {
            let Kind::Delivered { hash, inner } = &item.kind else { continue };
            self.packets += 1;
            let packet = machine.out.octets(item);
            let merger = &mut self.mergers[*hash as usize % FLOWS];
            if merger.coalescer.packets() >= MAX_PACKETS {
                self.writes += merger.finish();
            }
            let mut offer = merger.coalescer.offer(packet, inner);
            if offer == Offer::Refused {
                self.writes += merger.finish();
                offer = merger.coalescer.offer(packet, inner);
            }
            match offer {
                Offer::Started(payload) | Offer::Joined(payload) => {
                    merger.payload.extend_from_slice(&packet[payload]);
                    merger.packets.push(packet.to_vec());
                }
                Offer::Alone => self.writes += 1,
                Offer::Refused => panic!("an empty coalescer refuses nothing"),
            }
        }
        if flush {
            self.writes += self.mergers.iter_mut().map(Merger::finish).sum::<u64>();
        }
    }
}

impl Merger {
    /// Ends the super-packet, judges it, and says how many writes that was.
    fn finish(&mut self) -> u64 {
        let Some(merged) = self.coalescer.take() else { return 0 };
        let written = [merged.headers, &self.payload].concat();
        assert_eq!(merged.packets, self.packets.len());
        assert_eq!(merged.octets, written.len());
        let seen = Seen::of(&written).expect("a packet");
        assert_eq!(seen.total, written.len(), "its length is its length");
        assert!(written.len() <= 65_575 && seen.sound && seen.is_plain());
        if self.packets.len() == 1 {
            assert_eq!(merged.virtio, VirtioNetHeader::default());
            assert!(written == self.packets[0], "a single packet is written as it is");
        } else {
            let virtio = merged.virtio;
            judge(&virtio, merged.headers.len(), &written, &seen, self.packets.len());
            self.compare(&virtio, &written);
        }
        self.packets.clear();
        self.payload.clear();
        1
    }

    /// Cuts it as the kernel will.
    fn compare(&self, virtio: &VirtioNetHeader, written: &[u8]) {
        let inner = Inner::parse(written).expect("a packet");
        let mut segments = Segments::new(written, &inner, virtio).expect("a super-packet");
        let mut scratch = [0; MAX_HEADERS_LEN];
        for packet in &self.packets {
            let piece = segments.next_into(written, &mut scratch).expect("as many segments");
            let mut again = [&scratch[..piece.headers_len], &written[piece.payload]].concat();
            let mut packet = packet.clone();
            if packet[0] >> 4 == 4 && packet[6] & 0x40 != 0 {
                // The ID of what is never fragmented means nothing.
                for packet in [&mut again, &mut packet] {
                    packet[4..6].fill(0);
                    packet[10..12].fill(0);
                }
            }
            assert!(again == packet, "cut differently:\n{packet:02x?}\n{again:02x?}");
        }
        assert_eq!(segments.remaining(), 0);
    }
}

/// What the kernel checks before it believes a virtio-net header, and more.
fn judge(virtio: &VirtioNetHeader, headers: usize, written: &[u8], seen: &Seen, packets: usize) {
    let (gso_type, field) = match (seen.protocol, seen.is_v6()) {
        (6, false) => (1, 16),
        (6, true) => (4, 16),
        _ => (5, 6),
    };
    assert_eq!((virtio.flags, virtio.gso_type), (1, gso_type));
    assert_eq!(usize::from(virtio.hdr_len.get()), headers);
    assert_eq!(usize::from(virtio.csum_start.get()), seen.transport);
    assert_eq!(usize::from(virtio.csum_offset.get()), field);
    let (size, payload) = (usize::from(virtio.gso_size.get()), written.len() - headers);
    assert_eq!(payload.div_ceil(size), packets, "as many segments as packets");
    let partial = word(written, seen.transport + field);
    let transport_len = written.len() - seen.transport;
    assert_eq!(partial, fold(pseudo(seen, transport_len)), "the pseudo-header's sum");
    if seen.protocol == 17 {
        assert_eq!(usize::from(word(written, seen.transport + 4)), transport_len, "UDP length");
    }
    assert_ne!(sum(&written[..seen.header]), 0);
}
