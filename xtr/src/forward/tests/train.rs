//! The datagrams of a train, judged together, become what they become one by one.
use super::*;
use proptest::prelude::*;

/// What a train is made of: its flow's first packet, and how each of the datagrams differs from that.
#[derive(Clone, Debug)]
struct Train {
    is_v6: bool,
    is_tcp: bool,
    destination: u8,
    tos: u8,
    instance: u32,
    outer: OuterFields,
    differences: Vec<Difference>,
    /// How much shorter the last one is.
    cut: usize,
}

#[derive(Clone, Debug)]
enum Difference {
    None,
    Octet { at: prop::sample::Index, value: u8 },
    Shorter(u8),
    Id(u16),
    Destination(u8),
    Ttl(u8),
    Nested,
}

fn differences() -> impl Strategy<Value = Difference> {
    prop_oneof![
        8 => Just(Difference::None),
        2 => (any::<prop::sample::Index>(), any::<u8>())
            .prop_map(|(at, value)| Difference::Octet { at, value }),
        1 => any::<u8>().prop_map(Difference::Shorter),
        2 => any::<u16>().prop_map(Difference::Id),
        1 => (0u8..6).prop_map(Difference::Destination),
        1 => any::<u8>().prop_map(Difference::Ttl),
        1 => Just(Difference::Nested),
    ]
}

fn trains() -> impl Strategy<Value = Train> {
    let fields = (any::<u8>(), any::<u8>()).prop_map(|(ttl, tos)| OuterFields { ttl, tos });
    let packet =
        (any::<bool>(), any::<bool>(), 0u8..6, 0u8..8, prop::sample::select(vec![0, 7, 77]));
    (packet, fields, prop::collection::vec(differences(), 1..12), 0usize..60).prop_map(
        |((is_v6, is_tcp, destination, tos, instance), outer, differences, cut)| Train {
            is_v6,
            is_tcp,
            destination,
            tos,
            instance,
            outer,
            differences,
            cut,
        },
    )
}

fn address(is_v6: bool, number: u8) -> IpAddr {
    if is_v6 { ip(&format!("2001:db8:2::{number}")) } else { ip(&format!("203.0.113.{number}")) }
}

impl Train {
    /// One after the other, and the octets of each.
    fn octets(&self) -> (Vec<u8>, usize) {
        let transport = if self.is_tcp { tcp(1, 0x10) } else { udp() };
        let first = Build {
            destination: address(self.is_v6, self.destination),
            tos: self.tos,
            ..Build::family(self.is_v6, transport, payload(60))
        };
        let whole = lisp(self.instance, &first.bytes()).len();
        let mut octets = Vec::new();
        for difference in &self.differences {
            let mut packet = first.clone();
            match difference {
                Difference::Destination(number) => {
                    packet.destination = address(self.is_v6, *number);
                }
                Difference::Ttl(ttl) => packet.ttl = *ttl,
                Difference::Id(id) => packet.id = *id,
                Difference::Shorter(by) => packet.payload.truncate(60 - usize::from(by % 60)),
                Difference::Nested => {
                    let data = Transport::Udp { ports: (50_000, 4341) };
                    packet.destination = ip(if self.is_v6 { OWN_V6 } else { OWN_V4 });
                    packet.transport = data;
                }
                Difference::None | Difference::Octet { .. } => {}
            }
            let mut datagram = lisp(self.instance, &packet.bytes());
            if let Difference::Octet { at, value } = difference {
                let at = at.index(datagram.len());
                datagram[at] = *value;
            }
            // What follows the packet is trimmed.
            datagram.resize(whole, 0xee);
            octets.extend(datagram);
        }
        octets.truncate(octets.len() - self.cut);
        (octets, whole)
    }
}

fn bench(refuse_every: Option<u64>) -> Bench {
    let prefix = |text: &str| text.parse::<IpNet>().expect("a prefix");
    let mut bench = Bench::with(Rules {
        unknown_instances: [77].into(),
        foreign_destinations: vec![prefix("203.0.113.1/32"), prefix("2001:db8:2::1/128")],
        reencapsulate: vec![prefix("203.0.113.2/32"), prefix("2001:db8:2::2/128")],
        roaming: vec![prefix("203.0.113.3/32"), prefix("2001:db8:2::3/128")],
        own: vec![prefix("203.0.113.4/32"), prefix("2001:db8:2::4/128")],
        ..Rules::default()
    });
    bench.forwarder.arrivals = Arc::new(crate::counters::Arrivals::new(4, 2));
    bench.map("203.0.113.2/32", "198.51.100.9", 1500);
    bench.verdict(0, "203.0.113.3/32", Verdict::Native);
    bench.out.refuse_every = refuse_every;
    bench
}

fn punts(bench: &Bench) -> Vec<String> {
    std::iter::from_fn(|| bench.punts.pop()).map(|punt| format!("{punt:?}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_train_becomes_what_its_datagrams_become_one_by_one(
        trains in prop::collection::vec(trains(), 1..8),
        refuse_every in prop::option::of(1u64..6),
    ) {
        let (mut whole, mut single) = (bench(refuse_every), bench(refuse_every));
        for train in &trains {
            let (octets, size) = train.octets();
            let (source, mut buffer) = (ip(PEER_V4), octets.clone());
            let mut view = whole.reader.enter();
            whole.forwarder.train_from_core(
                whole.now,
                &mut view,
                (source, train.outer),
                (&mut buffer, size),
                &mut whole.out,
            );
            drop(view);
            octets.chunks(size).for_each(|datagram| single.core(PEER_V4, train.outer, datagram));
        }
        prop_assert_eq!(&whole.out.delivered, &single.out.delivered);
        prop_assert_eq!(&whole.out.sent, &single.out.sent);
        prop_assert_eq!(whole.counters(), single.counters());
        prop_assert_eq!(punts(&whole), punts(&single));
        for prefix in 0..4 {
            let of = |bench: &Bench| bench.forwarder.arrivals.get(prefix, 0);
            prop_assert_eq!(of(&whole), of(&single));
        }
    }
}
