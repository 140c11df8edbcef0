use super::*;
use proptest::prelude::*;

const VM: Mac = Mac([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
const GATEWAY: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);

fn v4(text: &str) -> Ipv4Addr {
    text.parse().expect("address")
}

fn v6(text: &str) -> Ipv6Addr {
    text.parse().expect("address")
}

fn arp(to: Mac, operation: u8, sender: &str, target: &str) -> Vec<u8> {
    arp_frame(to, VM, operation, (VM, v4(sender)), (Mac([0; 6]), v4(target)))
}

/// A message of Neighbor Discovery from the VM with a right checksum.
fn nd(kind: u8, flags: u8, addresses: (&str, &str), target: &str, option: Option<u8>) -> Vec<u8> {
    let (source, destination) = (v6(addresses.0), v6(addresses.1));
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(v6(target).octets());
    if let Some(option) = option {
        message.extend([option, 1]);
        message.extend(VM.0);
    }
    let pseudo = checksum::pseudo_header(source.into(), destination.into(), 58, message.len());
    let sum = pseudo.add_octets(&message).complement();
    message[2..4].copy_from_slice(&sum);
    let to = if destination.is_multicast() { Mac([0x33, 0x33, 0, 0, 0, 1]) } else { GATEWAY };
    let mut frame = ethernet(to, VM, IPV6);
    frame.extend([0x60, 0, 0, 0, 0, message.len() as u8, 58, 255]);
    frame.extend(source.octets());
    frame.extend(destination.octets());
    frame.extend(message);
    frame
}

fn said(frame: &[u8]) -> Saying {
    parse(frame).expect("ours").expect("sane")
}

#[test]
fn dy_01_an_arp_request_tells_where_its_sender_is() {
    let saying = said(&arp(Mac::BROADCAST, 1, "172.16.4.7", "172.16.4.1"));
    let expected = Saying {
        mac: VM,
        to_one: false,
        has: v4("172.16.4.7").into(),
        tentative: false,
        asks_for: Some(v4("172.16.4.1").into()),
    };
    assert_eq!(saying, expected);
    assert!(said(&arp(GATEWAY, 1, "172.16.4.7", "172.16.4.1")).to_one);
}

#[test]
fn dy_01_gratuitous_arp_and_probes_ask_for_nobody() {
    for operation in [1, 2] {
        let saying = said(&arp(Mac::BROADCAST, operation, "172.16.4.7", "172.16.4.7"));
        assert_eq!((saying.has, saying.tentative), (v4("172.16.4.7").into(), false));
        assert_eq!(saying.asks_for, None);
    }
    let probe = said(&arp(Mac::BROADCAST, 1, "0.0.0.0", "172.16.4.7"));
    assert_eq!((probe.has, probe.tentative), (v4("172.16.4.7").into(), true));
    assert_eq!(probe.asks_for, None);
}

#[test]
fn an_arp_packet_that_no_host_sends_is_not_believed() {
    let good = arp(Mac::BROADCAST, 1, "172.16.4.7", "172.16.4.1");
    // Hardware type, protocol type, lengths, operation; sender's hardware address unlike the frame's.
    for (at, value) in [(15, 6), (16, 9), (18, 8), (19, 16), (21, 3), (21, 0), (22, 0x53)] {
        let mut bad = good.clone();
        bad[at] = value;
        assert_eq!(parse(&bad), Some(Err(NotSane)), "octet {at}");
    }
    for sender in ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.1"] {
        let bad = arp(Mac::BROADCAST, 1, sender, "172.16.4.1");
        assert_eq!(parse(&bad), Some(Err(NotSane)), "{sender}");
    }
    assert_eq!(parse(&arp(Mac::BROADCAST, 2, "0.0.0.0", "172.16.4.7")), Some(Err(NotSane)));
    // From a group, and from nobody.
    for octet in [1, 0] {
        let mut bad = good.clone();
        for at in (6..12).chain(22..28) {
            bad[at] = octet;
        }
        assert_eq!(parse(&bad), Some(Err(NotSane)));
    }
    for length in 14..good.len() {
        assert_eq!(parse(&good[..length]), Some(Err(NotSane)), "{length} octets");
    }
}

#[test]
fn dy_01_a_solicitation_tells_where_its_sender_is() {
    let addresses = ("2001:db8:e004::7", "ff02::1:ff00:1");
    let saying = said(&nd(135, 0, addresses, "2001:db8:e004::1", Some(1)));
    assert_eq!(saying.has, v6("2001:db8:e004::7"));
    assert_eq!(saying.asks_for, Some(v6("2001:db8:e004::1").into()));
    assert!(!saying.to_one && !saying.tentative);
    let unicast = ("2001:db8:e004::7", "2001:db8:e004::1");
    assert!(said(&nd(135, 0, unicast, "2001:db8:e004::1", None)).to_one);
    // To all without its link-layer address: RFC 4861 §4.3 wants it.
    let bad = nd(135, 0, addresses, "2001:db8:e004::1", None);
    assert_eq!(parse(&bad), Some(Err(NotSane)));
}

#[test]
fn dy_01_duplicate_address_detection_says_who_is_about_to_come() {
    let saying = said(&nd(135, 0, ("::", "ff02::1:ff00:7"), "2001:db8:e004::7", None));
    assert_eq!((saying.has, saying.tentative), (v6("2001:db8:e004::7").into(), true));
    assert_eq!(saying.asks_for, None);
    // Neither to another group nor with a link-layer address (RFC 4861 §7.1.1).
    for (group, option) in [("ff02::1", None), ("ff02::1:ff00:7", Some(1))] {
        let bad = nd(135, 0, ("::", group), "2001:db8:e004::7", option);
        assert_eq!(parse(&bad), Some(Err(NotSane)), "{group}");
    }
}

#[test]
fn dy_01_an_unsolicited_advertisement_tells_where_its_sender_is() {
    let addresses = ("fe80::5054:ff:fe12:3456", "ff02::1");
    let saying = said(&nd(136, 0x20, addresses, "2001:db8:e004::7", Some(2)));
    assert_eq!((saying.has, saying.asks_for), (v6("2001:db8:e004::7").into(), None));
    // To all, and yet an answer; to all without its link-layer address.
    for (flags, option) in [(0x60, Some(2)), (0x20, None)] {
        let bad = nd(136, flags, addresses, "2001:db8:e004::7", option);
        assert_eq!(parse(&bad), Some(Err(NotSane)), "{flags:x}");
    }
}

#[test]
fn neighbour_discovery_that_is_not_sane_is_not_believed() {
    let good = nd(136, 0x20, ("fe80::1", "ff02::1"), "2001:db8:e004::7", Some(2));
    // Version, hop limit, code, checksum, target, length of the option.
    for (at, value) in [(14, 0x40), (21, 254), (55, 1), (56, 0), (62, 0xff), (79, 0)] {
        let mut bad = good.clone();
        bad[at] ^= value | 1;
        assert_eq!(parse(&bad), Some(Err(NotSane)), "octet {at}");
    }
    for length in 55..good.len() {
        assert_eq!(parse(&good[..length]), Some(Err(NotSane)), "{length} octets");
    }
    let multicast = nd(136, 0x20, ("fe80::1", "ff02::1"), "ff02::7", Some(2));
    assert_eq!(parse(&multicast), Some(Err(NotSane)));
    let group = nd(136, 0x20, ("ff02::1", "ff02::1"), "2001:db8:e004::7", Some(2));
    assert_eq!(parse(&group), Some(Err(NotSane)));
}

#[test]
fn other_frames_are_none_of_ours() {
    for frame in [&[][..], &[0; 13], &[0; 60]] {
        assert_eq!(parse(frame), None);
    }
    let echo = nd(128, 0, ("fe80::1", "ff02::1"), "2001:db8:e004::7", None);
    assert_eq!(parse(&echo), None);
}

#[test]
fn what_we_send_is_sane_itself() {
    let asker = |ip: &str| Some((VM, ip.parse().expect("address")));
    let reply = answer(GATEWAY, v4("172.16.4.8").into(), asker("172.16.4.7")).expect("a frame");
    let saying = said(&reply);
    assert_eq!((saying.mac, saying.has), (GATEWAY, v4("172.16.4.8").into()));
    assert!(saying.to_one && saying.asks_for.is_none());
    let announced = said(&answer(GATEWAY, v4("172.16.4.8").into(), None).expect("a frame"));
    assert!(!announced.to_one && announced.asks_for.is_none());

    let target: IpAddr = v6("2001:db8:e004::8").into();
    let reply = answer(GATEWAY, target, asker("2001:db8:e004::7")).expect("a frame");
    assert_eq!((said(&reply).mac, said(&reply).has), (GATEWAY, target));
    assert_eq!(reply[58] & 0x60, 0x40, "solicited, but no override: it is a proxy's");
    let announced = answer(GATEWAY, target, None).expect("a frame");
    assert_eq!((said(&announced).has, announced[58] & 0x60), (target, 0x20));
    assert_eq!(answer(GATEWAY, target, asker("172.16.4.7")), None);

    let asked = question(GATEWAY, GATEWAY.link_local().into(), target).expect("a frame");
    assert_eq!(said(&asked).asks_for, Some(target));
    let asked = question(GATEWAY, v4("172.16.4.1").into(), v4("172.16.4.7").into());
    assert_eq!(said(&asked.expect("a frame")).asks_for, Some(v4("172.16.4.7").into()));
}

#[test]
fn ethernet_addresses_are_read_and_written() {
    assert_eq!("00:00:5e:00:01:01".parse(), Ok(GATEWAY));
    assert_eq!(GATEWAY.to_string(), "00:00:5e:00:01:01");
    assert_eq!(GATEWAY.link_local(), v6("fe80::200:5eff:fe00:101"));
    for bad in ["", "00:00:5e:00:01", "00:00:5e:00:01:01:02", "0:0:5e:0:1:1", "00:00:5e:00:01:+1"] {
        assert_eq!(bad.parse::<Mac>(), Err(()), "{bad}");
    }
}

proptest! {
    #[test]
    fn no_frame_makes_the_parser_panic(frame in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _ = parse(&frame);
    }

    #[test]
    fn no_change_of_a_good_frame_makes_the_parser_panic(
        at in 12usize..86,
        value: u8,
        length in 0usize..90,
        which in 0usize..3,
    ) {
        let mut frame = match which {
            0 => arp(Mac::BROADCAST, 1, "172.16.4.7", "172.16.4.1"),
            1 => nd(135, 0, ("::", "ff02::1:ff00:7"), "2001:db8:e004::7", None),
            _ => nd(136, 0x20, ("fe80::1", "ff02::1"), "2001:db8:e004::7", Some(2)),
        };
        if let Some(octet) = frame.get_mut(at) {
            *octet = value;
        }
        frame.truncate(length);
        if let Some(Ok(saying)) = parse(&frame) {
            prop_assert!(saying.mac.is_station());
        }
    }
}
