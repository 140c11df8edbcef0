//! Whether what came out is what may come out.
use crate::check::{Seen, ecn, long, sum, transport_is_sound, word};
use crate::craft::ip;
use crate::machine::{INSTANCE, Kind, MTUS, Machine, OWN, SOURCE_PORTS, instance, last_octet};
use std::net::IpAddr;
use xtr::forward::Outer;
use xtr::packet::OuterFields;

const NEEDS_CSUM: u8 = 1;
const GSO_ECN: u8 = 0x80;

/// Judges what a TUN frame became. `frame` is what was read, or was held: that may have come from the core, in any instance.
pub(crate) fn frame(machine: &Machine, frame: &[u8], was_held: bool) {
    if machine.out.items.is_empty() {
        return;
    }
    let packet = &frame[10..];
    let seen = Seen::of(packet).expect("only a packet goes out");
    let packet = &packet[..seen.total];
    if machine.out.items.iter().any(|item| matches!(item.kind, Kind::Forwarded)) {
        let [item] = &machine.out.items[..] else { panic!("forwarded once") };
        assert_eq!(machine.out.octets(item), &frame[..10 + seen.total], "forwarded as it came");
        return;
    }
    let ids = if was_held { [0, INSTANCE] } else { [instance(seen.source).get(); 2] };
    let inners: Vec<&[u8]> = machine
        .out
        .items
        .iter()
        .map(|item| match &item.kind {
            Kind::Encapsulated(outer) => encapsulated(outer, machine.out.octets(item), &seen, &ids),
            other => panic!("{other:?} out of a TUN frame"),
        })
        .collect();
    let gso_type = frame[1] & !GSO_ECN;
    let is_whole = machine.out.refused == 0;
    if gso_type != 0 {
        let size = usize::from(u16::from_ne_bytes([frame[4], frame[5]]));
        segments(packet, &seen, size, inners, is_whole);
    } else if frame[0] & NEEDS_CSUM != 0 {
        let start = usize::from(u16::from_ne_bytes([frame[6], frame[7]]));
        let field = start + usize::from(u16::from_ne_bytes([frame[8], frame[9]]));
        let mut completed = packet.to_vec();
        completed[field..field + 2].fill(0);
        let partial = &packet[field..field + 2];
        let mut value = !fold_two(sum(&completed[start..]), word(partial, 0), field - start);
        if value == 0 && field - start == 6 {
            value = 0xffff;
        }
        completed[field..field + 2].copy_from_slice(&value.to_be_bytes());
        whole(&completed, inners, is_whole);
    } else {
        whole(packet, inners, is_whole);
    }
}

/// Sum of everything and of what the checksum field held; a field at an odd place counts with its octets swapped.
fn fold_two(sum: u16, field: u16, at: usize) -> u16 {
    let field = if at.is_multiple_of(2) { field } else { field.swap_bytes() };
    crate::check::fold(u64::from(sum) + u64::from(field))
}

/// One packet, or its fragments.
fn whole(packet: &[u8], inners: Vec<&[u8]>, is_whole: bool) {
    if let [only] = inners[..]
        && !(Seen::of(only).is_some_and(|seen| seen.is_fragment()) && only.len() < packet.len())
    {
        assert!(only == packet, "changed on the way:\n{packet:02x?}\n{only:02x?}");
    } else if is_whole {
        let again = reassemble(inners, Some(packet));
        assert_eq!(again.len(), 1, "one datagram");
    }
}

/// Puts IPv4 fragments together. `original` may be a fragment itself; then the pieces are compared with it as they are.
fn reassemble(inners: Vec<&[u8]>, original: Option<&[u8]>) -> Vec<Vec<u8>> {
    let mut whole: Vec<Vec<u8>> = Vec::new();
    let mut open = false;
    let from = original.map(|packet| (Seen::of(packet).expect("a packet"), packet));
    for inner in inners {
        let seen = Seen::of(inner).expect("checked");
        let (base, original_more) = from.map_or((0, false), |(seen, _)| (seen.offset, seen.more));
        let was_sound = from.is_none_or(|(seen, _)| seen.sound);
        assert_eq!(seen.sound, was_sound, "a damaged header stays damaged, a sound one sound");
        let is_last = !seen.more || original_more && ends(&seen, base, from.map(|(seen, _)| seen));
        if !open {
            assert_eq!(seen.offset, base, "the first fragment comes first");
            let mut first = inner.to_vec();
            let flags = word(&first, 6) & 0xe000 & !0x2000;
            first[6..8].copy_from_slice(&(flags | (base / 8) as u16).to_be_bytes());
            whole.push(first);
        } else {
            let so_far = whole.last_mut().expect("open");
            let first =
                Seen::of(&so_far[..usize::from(word(so_far, 2))]).expect("the first fragment");
            assert_eq!(seen.offset - base, so_far.len() - first.header, "no gap");
            assert_eq!(
                (seen.id, seen.tos, seen.ttl, seen.protocol),
                (first.id, first.tos, first.ttl, first.protocol)
            );
            assert_eq!((seen.source, seen.destination), (first.source, first.destination));
            so_far.extend_from_slice(&inner[seen.header..]);
        }
        assert!(is_last || (seen.total - seen.header).is_multiple_of(8), "in units of 8 octets");
        assert!(!seen.dont_fragment);
        open = !is_last;
    }
    assert!(!open, "the last fragment is missing");
    for packet in &mut whole {
        let len = packet.len() as u16;
        packet[2..4].copy_from_slice(&len.to_be_bytes());
    }
    if let (Some((seen, packet)), [again]) = (from, &whole[..]) {
        assert_eq!(again[seen.header..], packet[seen.header..], "the payload is the same");
        assert_eq!(again[..6], packet[..6]);
        assert_eq!(again[8..10], packet[8..10]);
        assert_eq!(again[12..seen.header], packet[12..seen.header]);
    }
    whole
}

fn ends(seen: &Seen, base: usize, original: Option<Seen>) -> bool {
    original.is_some_and(|original| {
        seen.offset - base + seen.total - seen.header == original.total - original.header
    })
}

/// The segments of a super-packet, some of them perhaps fragmented.
fn segments(packet: &[u8], seen: &Seen, size: usize, inners: Vec<&[u8]>, is_whole: bool) {
    let headers = seen.transport
        + match seen.protocol {
            6 => usize::from(packet[seen.transport + 12] >> 4) * 4,
            17 => 8,
            other => panic!("protocol {other} was segmented"),
        };
    assert!(size > 0 && !seen.is_fragment());
    if !is_whole {
        return;
    }
    let fragmented =
        inners.iter().any(|inner| Seen::of(inner).is_some_and(|seen| seen.is_fragment()));
    let owned: Vec<Vec<u8>>;
    let pieces: Vec<&[u8]> = if fragmented {
        owned = reassemble(inners, None);
        owned.iter().map(Vec::as_slice).collect()
    } else {
        inners
    };
    let payload = packet.len() - headers;
    assert_eq!(pieces.len(), payload.div_ceil(size).max(1), "so many segments");
    let mut at = headers;
    for (index, piece) in pieces.iter().enumerate() {
        let end = packet.len().min(at + size);
        assert_eq!(piece[headers..], packet[at..end], "payload of segment {index}");
        let is_last = index + 1 == pieces.len();
        segment(packet, seen, piece, headers, index, is_last, fragmented);
        at = end;
    }
    assert_eq!(at, packet.len(), "all of the payload");
}

fn segment(
    packet: &[u8],
    seen: &Seen,
    piece: &[u8],
    headers: usize,
    index: usize,
    is_last: bool,
    fragmented: bool,
) {
    let transport = seen.transport;
    if seen.is_v6() {
        assert_eq!(piece[..4], packet[..4]);
        assert_eq!(piece[6..transport], packet[6..transport]);
    } else {
        assert_eq!(word(piece, 4), word(packet, 4).wrapping_add(index as u16), "ID");
        assert_eq!((&piece[..2], &piece[6..10]), (&packet[..2], &packet[6..10]));
        assert_eq!(piece[12..transport], packet[12..transport]);
        assert!(fragmented || sum(&piece[..seen.header]) == 0xffff, "IPv4 checksum");
    }
    assert_eq!(piece[transport..transport + 4], packet[transport..transport + 4], "ports");
    if seen.protocol == 6 {
        let sent = (piece.len() - headers, index);
        let offset = long(piece, transport + 4).wrapping_sub(long(packet, transport + 4)) as usize;
        assert!(offset.is_multiple_of(sent.1.max(1)), "sequence number");
        assert_eq!(piece[transport + 8..transport + 13], packet[transport + 8..transport + 13]);
        let (fin_psh, cwr) = (if is_last { 0 } else { 0x09 }, if index == 0 { 0 } else { 0x80 });
        assert_eq!(piece[transport + 13], packet[transport + 13] & !fin_psh & !cwr, "flags");
        assert_eq!(piece[transport + 14..transport + 16], packet[transport + 14..transport + 16]);
        assert_eq!(piece[transport + 18..headers], packet[transport + 18..headers]);
    } else {
        assert_eq!(usize::from(word(piece, transport + 4)), piece.len() - transport, "UDP length");
        assert_ne!(word(piece, transport + 6), 0, "UDP has a checksum");
    }
    let made = Seen { total: piece.len(), ..*seen };
    assert!(!seen.is_plain() || transport_is_sound(piece, &made), "transport checksum");
}

/// Judges one encapsulated packet and returns the inner one.
fn encapsulated<'a>(outer: &Outer, octets: &'a [u8], seen: &Seen, ids: &[u32]) -> &'a [u8] {
    let (lisp, inner) = octets.split_at(8);
    let header = |id: u32| match id {
        0 => [[0; 4], [0; 4]].concat(),
        _ => [[8, 0, 0, 0], (id << 8).to_be_bytes()].concat(),
    };
    assert!(ids.iter().any(|&id| header(id) == lisp), "LISP header {lisp:02x?} for {ids:x?}");
    let new = Seen::of(inner).expect("a packet inside");
    assert_eq!(new.total, inner.len(), "its length is its length");
    assert_eq!((new.source, new.destination), (seen.source, seen.destination));
    let last = last_octet(seen.destination);
    let limit = usize::from(MTUS[usize::from(last & 15)])
        .saturating_sub(if last.is_multiple_of(2) { 36 } else { 56 });
    let in_pieces = outer.may_fragment && new.is_v6() && inner.len() <= 1280;
    assert!(inner.len() <= limit || in_pieces, "{} octets over a path for {limit}", inner.len());
    assert_eq!(outer.destination.is_ipv4(), last.is_multiple_of(2));
    assert_eq!(ip(OWN[outer.own_rloc]).is_ipv4(), outer.destination.is_ipv4());
    assert!(!OWN.map(ip).contains(&outer.destination));
    assert!(outer.port < SOURCE_PORTS);
    assert_eq!(outer.fields, OuterFields { ttl: new.ttl, tos: new.tos }, "copied");
    inner
}

/// Judges what a datagram from `outer_source` became.
pub(crate) fn datagram(
    machine: &Machine,
    outer_source: IpAddr,
    fields: OuterFields,
    datagram: &[u8],
) {
    let Some(first) = machine.out.items.first() else { return };
    assert_ne!(last_octet(outer_source), 66, "the policy refuses it");
    assert!(datagram.len() >= 28 && datagram[0] & 3 == 0, "KK is refused");
    let (instance, inner, fields, depth) = innermost(datagram, fields, 1);
    let seen = Seen::of(inner).expect("only a packet goes on");
    let inner = &inner[..seen.total];
    let again = last_octet(seen.destination) & 0x40 != 0;
    let expected = decapsulated(inner, &seen, fields, again);
    assert!(depth <= 2, "nested too deep");
    match &first.kind {
        Kind::Delivered { inner: parsed, .. } if machine.out.items.len() == 1 => {
            let octets = machine.out.octets(first);
            let new = Seen::of(octets).expect("a packet");
            assert_eq!(octets.len(), seen.total);
            assert_eq!((parsed.ttl, parsed.tos, parsed.total_len), (new.ttl, new.tos, new.total));
            same(octets, &expected, &seen, &new);
        }
        Kind::Encapsulated(_) if again => {
            let new = Seen::of(&expected).expect("a packet");
            let inners: Vec<&[u8]> = machine
                .out
                .items
                .iter()
                .map(|item| match &item.kind {
                    Kind::Encapsulated(outer) => {
                        encapsulated(outer, machine.out.octets(item), &new, &[instance])
                    }
                    other => panic!("{other:?} beside an encapsulated packet"),
                })
                .collect();
            if let [only] = inners[..]
                && only.len() == expected.len()
            {
                same(only, &expected, &seen, &Seen::of(only).expect("a packet"));
            } else if machine.out.refused == 0 {
                let whole = reassemble(inners, Some(&mended(&expected, &seen)));
                assert_eq!(whole.len(), 1);
            }
        }
        other => panic!("{other:?}: what is this?"),
    }
}

/// Equal, and the header checksum as right or wrong as it was.
fn same(octets: &[u8], expected: &[u8], seen: &Seen, new: &Seen) {
    assert_eq!(new.sound, seen.sound, "a damaged header stays damaged, a sound one sound");
    let skip = |packet: &[u8]| {
        let mut packet = packet.to_vec();
        if packet[0] >> 4 == 4 {
            packet[10..12].fill(0);
        }
        packet
    };
    assert!(skip(octets) == skip(expected), "changed on the way:\n{expected:02x?}\n{octets:02x?}");
}

/// With a checksum that is as right or wrong as it was.
fn mended(packet: &[u8], seen: &Seen) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if !seen.is_v6() {
        packet[10..12].fill(0);
        let value = !sum(&packet[..seen.header]);
        let value = if seen.sound { value } else { value ^ 0x5555 };
        packet[10..12].copy_from_slice(&value.to_be_bytes());
    }
    packet
}

/// Instance and packet behind the innermost LISP header addressed to us, and the outer fields that apply to it.
fn innermost(
    datagram: &[u8],
    fields: OuterFields,
    depth: usize,
) -> (u32, &[u8], OuterFields, usize) {
    let instance = if datagram[0] & 8 != 0 { long(datagram, 4) >> 8 } else { 0 };
    let inner = &datagram[8..];
    let Some(seen) = Seen::of(inner) else { return (instance, inner, fields, depth) };
    let nested = seen.protocol == 17
        && seen.offset == 0
        && seen.total >= seen.transport + 4
        && word(inner, seen.transport + 2) == 4341
        && OWN.map(ip).contains(&seen.destination);
    match inner.get(seen.transport + 8..seen.total) {
        Some(next) if nested && next.len() >= 28 => {
            let tos = ecn(seen.tos, fields.tos).map_or(0, |ecn| fields.tos & 0xfc | ecn);
            let fields = OuterFields { ttl: seen.ttl.min(fields.ttl), tos };
            innermost(next, fields, depth + 1)
        }
        _ => (instance, inner, fields, depth),
    }
}

/// TTL the smaller, DSCP the outer, ECN by RFC 6040; one less of TTL if it goes on.
fn decapsulated(inner: &[u8], seen: &Seen, fields: OuterFields, again: bool) -> Vec<u8> {
    let mut packet = inner.to_vec();
    let ttl = seen.ttl.min(fields.ttl) - u8::from(again);
    let ecn = ecn(seen.tos, fields.tos).expect("CE over Not-ECT is dropped");
    let tos = fields.tos & 0xfc | ecn;
    if seen.is_v6() {
        packet[7] = ttl;
        packet[0] = 0x60 | tos >> 4;
        packet[1] = packet[1] & 15 | tos << 4;
    } else {
        (packet[1], packet[8]) = (tos, ttl);
    }
    packet
}

/// Judges an ICMP error.
pub(crate) fn icmp(destination: IpAddr, message: &[u8]) {
    let most = if destination.is_ipv4() { 576 - 20 } else { 1280 - 40 };
    assert!((8..=most).contains(&message.len()), "{} octets", message.len());
    match (destination.is_ipv4(), message[0], message[1]) {
        (true, 3, 4 | 1) | (true, 11, 0) => assert_eq!(sum(message), 0xffff, "checksum"),
        (false, 2, 0) => assert!(long(message, 4) >= 1280),
        (false, 1 | 3, _) => {}
        other => panic!("{other:?} is no error of ours"),
    }
    assert!(message.len() == 8 || message[8] >> 4 == if destination.is_ipv4() { 4 } else { 6 });
}
