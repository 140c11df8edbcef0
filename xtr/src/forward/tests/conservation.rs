//! No packet is lost on the books, whatever comes in.
use super::*;
use crate::packet::headers::VirtioNetHeader as Virtio;
use proptest::prelude::*;
use zerocopy::native_endian::U16;

#[derive(Clone, Debug)]
enum Step {
    Native { virtio: Virtio, packet: Vec<u8> },
    Core { fields: OuterFields, datagram: Vec<u8> },
    Insert { destination: u8, verdict: u8, mtu: u16 },
    Release,
    Advance { millis: u16 },
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let build = (
        any::<bool>(),
        any::<bool>(),
        0u8..6,
        any::<u8>(),
        any::<u8>(),
        0usize..4000,
        any::<bool>(),
    );
    let packet = build.prop_map(|(is_v6, is_tcp, destination, ttl, tos, len, df)| {
        let transport = if is_tcp { tcp(1, 0x10) } else { udp() };
        let mut build = Build::family(is_v6, transport, payload(len));
        build.destination = address(is_v6, destination);
        (build.ttl, build.tos) = (ttl, tos);
        build.flags_offset = if df { 0x4000 } else { 0 };
        build.bytes()
    });
    let broken = (packet.clone(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>())
        .prop_map(|(mut packet, at, value, cut)| {
            let at = at.index(packet.len());
            packet[at] = value;
            if cut {
                packet.truncate(at);
            }
            packet
        });
    prop_oneof![3 => packet, 1 => broken, 1 => prop::collection::vec(any::<u8>(), 0..80)]
}

fn address(is_v6: bool, number: u8) -> IpAddr {
    if is_v6 { ip(&format!("2001:db8:2::{number}")) } else { ip(&format!("203.0.113.{number}")) }
}

fn steps() -> impl Strategy<Value = Step> {
    let virtio = (0u8..2, prop::sample::select(vec![0u8, 0, 1, 4, 5, 9]), 0u16..2000, 0u16..60)
        .prop_map(|(flags, gso_type, size, start)| Virtio {
            flags,
            gso_type,
            gso_size: U16::new(size),
            csum_start: U16::new(start),
            csum_offset: U16::new(16),
            ..Virtio::default()
        });
    let fields = (any::<u8>(), any::<u8>()).prop_map(|(ttl, tos)| OuterFields { ttl, tos });
    prop_oneof![
        4 => (virtio, packets()).prop_map(|(virtio, packet)| Step::Native { virtio, packet }),
        4 => (fields, packets(), any::<bool>()).prop_map(|(fields, packet, headed)| Step::Core {
            fields,
            datagram: if headed { lisp(0, &packet) } else { packet },
        }),
        2 => (0u8..6, 0u8..5, 60u16..3000)
            .prop_map(|(destination, verdict, mtu)| Step::Insert { destination, verdict, mtu }),
        1 => Just(Step::Release),
        1 => any::<u16>().prop_map(|millis| Step::Advance { millis }),
    ]
}

fn apply(bench: &mut Bench, step: Step) {
    match step {
        Step::Native { virtio, packet } => bench.native_frame(virtio, &packet),
        Step::Core { fields, datagram } => bench.core(PEER_V4, fields, &datagram),
        Step::Insert { destination, verdict, mtu } => {
            for (is_v6, peer) in [(false, PEER_V6), (true, PEER_V4)] {
                let prefix = IpNet::from(address(is_v6, destination)).to_string();
                match verdict {
                    0 => bench.verdict(0, &prefix, Verdict::Miss),
                    1 => bench.verdict(0, &prefix, Verdict::Native),
                    2 => bench.verdict(0, &prefix, Verdict::Drop(DropReason::ActionDrop)),
                    _ => drop(bench.map(&prefix, peer, mtu)),
                }
            }
        }
        Step::Release => bench.release(true),
        Step::Advance { millis } => bench.advance(Duration::from_millis(millis.into())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn packets_are_conserved(
        steps in prop::collection::vec(steps(), 1..60),
        refuse_every in prop::option::of(1u64..5),
        native_forward: bool,
    ) {
        let reencapsulate = vec!["203.0.113.0/30".parse().expect("a prefix")];
        let rules = Rules { native_forward, reencapsulate, ..Rules::default() };
        let mut bench = Bench::configured(rules, Marking::default(), 4);
        bench.out.refuse_every = refuse_every;
        for step in steps {
            apply(&mut bench, step);
            bench.counters();
        }
        bench.advance(Duration::from_secs(60));
        bench.release(true);
        prop_assert_eq!(bench.counters().held, 0);
    }
}
