//! Map-Requests: answered, forwarded, refused.

use super::*;
use crate::transmit::SourcePort;
use crate::wire::Action;

fn forwarded(sent: &[Transmit]) -> (SocketAddr, EncapsulatedControlMessage) {
    assert_eq!(sent.len(), 1);
    (sent[0].destination, EncapsulatedControlMessage::parse(&sent[0].payload).unwrap())
}

fn registered(proxy_reply: bool, records: Vec<EidRecord>) -> Bench {
    let mut bench = Bench::new();
    bench.register(&register(1, records).edit(|message| message.proxy_reply = proxy_reply));
    bench
}

#[test]
fn mr_01_mr_02_mr_07_ms_14_rp_10_rp_11_a_proxy_reply() {
    let mut locators = record("10.1.0.0/16", &[ETR, OTHER_ETR]);
    locators.locators[1].reachable = false;
    locators.locators[1].priority = 2;
    locators.authoritative = true;
    locators.map_version = 9;
    let mut bench = registered(true, vec![locators]);
    let sent = bench.ask_for(0xabcd, "10.1.2.3/32");
    assert_eq!(sent[0].destination, SocketAddr::new(ip(ITR), ITR_PORT), "RP-03, RP-04");
    assert_eq!((sent[0].source, sent[0].source_port), (ip(OWN), SourcePort::Control));
    let reply = reply(&sent[0]);
    assert_eq!(reply.nonce, 0xabcd, "RP-02");
    assert!(!reply.probe && !reply.echo_nonce);
    let record = &reply.records[0];
    assert!(!record.authoritative && record.locators.iter().all(|l| !l.local && !l.probed));
    assert_eq!((record.ttl_minutes, record.map_version), (1_440, 9));
    assert_eq!(record.eid.prefix(), Some(eid_prefix("10.1.0.0/16")));
    let of = |rloc| record.locators.iter().find(|l| l.address.rloc() == Some(ip(rloc))).unwrap();
    assert!(of(ETR).reachable && !of(OTHER_ETR).reachable);
    assert_eq!((of(ETR).priority, of(OTHER_ETR).priority, of(ETR).weight), (1, 2, 100));
}

#[test]
fn ms_15_mr_05_forwarded_with_its_octets_unchanged() {
    let mut bench = registered(false, vec![record("10.1.0.0/16", &[ETR])]);
    let ecm = ecm(&request(7, &["10.1.2.3/32"], &["2001:db8::99", ITR]));
    let sent = bench.input(ITR, 40_001, &ecm.to_octets());
    let (to, inner) = forwarded(&sent);
    assert_eq!(to, SocketAddr::new(ip(ETR), CONTROL_PORT));
    assert_eq!(sent[0].source_port, SourcePort::Ephemeral);
    assert_eq!(inner, ecm);
    assert_eq!(bench.server.get(Count::MapReplies), 0, "nothing goes to the ITR");
}

#[test]
fn ms_15_only_a_locator_with_the_r_bit_is_asked() {
    let mut both = record("10.1.0.0/16", &[ETR, OTHER_ETR]);
    both.locators[0].reachable = false;
    let mut bench = registered(false, vec![both]);
    for nonce in 0..4 {
        let (to, _) = forwarded(&bench.ask_for(nonce, "10.1.2.3/32"));
        assert_eq!(to.ip(), ip(OTHER_ETR));
    }
}

#[test]
fn ms_15_retransmissions_try_every_etr() {
    let mut bench = registered(false, vec![record("10.1.0.0/16", &[ETR, OTHER_ETR])]);
    let mut asked: Vec<_> =
        (0..2).map(|nonce| forwarded(&bench.ask_for(nonce, "10.1.2.3/32")).0.ip()).collect();
    asked.sort_unstable();
    assert_eq!(asked, [ip(ETR), ip(OTHER_ETR)]);
}

#[test]
fn ms_15_without_a_common_family_the_map_server_answers() {
    let mut bench = registered(false, vec![record("10.1.0.0/16", &["2001:db8:c0::13"])]);
    let records = bench.reply_to(1, "10.1.2.3/32");
    assert_eq!(rlocs_of(&records[0]), [ip("2001:db8:c0::13")]);
    let common = request(2, &["10.1.2.3/32"], &[ITR, "2001:db8:c0::99"]);
    let sent = bench.ask(&common);
    assert_eq!(forwarded(&sent).0.ip(), ip("2001:db8:c0::13"));
    assert_eq!(sent[0].source, ip(OWN6));
}

#[test]
fn ms_16_the_a_bit_reaches_an_etr_in_spite_of_proxy_service() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let mut authoritative = request(1, &["10.1.2.3/32"], &[ITR]);
    authoritative.authoritative = true;
    assert_eq!(forwarded(&bench.ask(&authoritative)).0.ip(), ip(ETR));
    let mut unreachable = record("10.9.0.0/16", &[ETR]);
    unreachable.locators[0].reachable = false;
    bench.register(&register(2, vec![unreachable]));
    let mut authoritative = request(2, &["10.9.2.3/32"], &[ITR]);
    authoritative.authoritative = true;
    let sent = bench.ask(&authoritative);
    assert!(!reply(&sent[0]).records[0].is_negative(), "no ETR can be reached");
}

#[test]
fn mr_03_ms_10_ms_12_an_eid_of_no_site() {
    let mut bench = Bench::new();
    let records = bench.reply_to(1, "10.3.0.1/32");
    let negative = &records[0];
    assert!(negative.is_negative());
    assert_eq!((negative.action, negative.ttl_minutes), (Action::NativelyForward, 15));
    assert_eq!(negative.eid.prefix(), Some(eid_prefix("10.3.0.0/16")));
    let records = bench.reply_to(2, "2001:db8:dead::1/128");
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("2001:db8:c000::/35")));
    assert_eq!(bench.reply_to(3, "192.0.2.1/32")[0].eid.prefix(), Some(eid_prefix("128.0.0.0/1")));
}

#[test]
fn ms_11_a_configured_prefix_that_nobody_registered() {
    let mut bench = Bench::new();
    let records = bench.reply_to(1, "10.2.0.1/32");
    assert_eq!((records[0].action, records[0].ttl_minutes), (Action::NativelyForward, 1));
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("10.2.0.0/16")));
    bench.register(&register(1, vec![record("10.1.128.0/24", &[ETR])]));
    let records = bench.reply_to(2, "10.1.0.1/32");
    assert_eq!(records[0].ttl_minutes, 1);
    assert_eq!(
        records[0].eid.prefix(),
        Some(eid_prefix("10.1.0.0/17")),
        "around what is registered"
    );
}

#[test]
fn rp_06_rp_07_more_specifics_come_along() {
    let records = vec![
        record("10.1.0.0/16", &[ETR]),
        record("10.1.16.0/20", &[ETR]),
        record("10.1.16.0/24", &[ETR]),
        record("10.1.17.0/24", &[ETR]),
    ];
    let mut bench = registered(true, records);
    let of = |records: Vec<EidRecord>| -> Vec<String> {
        records.iter().map(|r| r.eid.prefix().unwrap().to_string()).collect()
    };
    assert_eq!(of(bench.reply_to(1, "10.1.16.1/32")), ["10.1.16.0/24"]);
    let three = ["10.1.16.0/20", "10.1.16.0/24", "10.1.17.0/24"];
    assert_eq!(of(bench.reply_to(2, "10.1.20.1/32")), three);
    bench.advance(3);
    assert_eq!(of(bench.reply_to(3, "10.1.16.0/23")), three, "mask length not above the asked one");
}

#[test]
fn rp_07_more_specifics_that_cannot_come_along_narrow_the_record() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let vms: Vec<_> = (0..40).map(|host| record(&format!("10.1.0.{host}/32"), &[ETR])).collect();
    for (nonce, some) in (2..).zip(vms.chunks(10)) {
        bench.register(&register(nonce, some.to_vec()));
    }
    let records = bench.reply_to(1, "10.1.77.1/32");
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("10.1.64.0/18")));
    assert_eq!(rlocs_of(&records[0]), [ip(ETR)]);
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let unproxied = register(2, vec![record("10.1.200.0/24", &[OTHER_ETR])]);
    bench.register(&unproxied.edit(|message| message.proxy_reply = false));
    let records = bench.reply_to(1, "10.1.1.1/32");
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("10.1.0.0/17")), "its ETR is to be asked");
}

#[test]
fn rp_08_all_records_have_the_same_ttl() {
    let mut specific = record("10.1.16.0/24", &[ETR]);
    specific.ttl_minutes = 5;
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR]), specific]);
    let records = bench.reply_to(1, "10.1.0.1/32");
    assert_eq!(records.iter().map(|r| r.ttl_minutes).collect::<Vec<_>>(), [5, 5]);
}

#[test]
fn rq_03_every_record_of_a_request_is_processed() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let unproxied = register(2, vec![record("10.9.0.0/16", &[OTHER_ETR])]);
    bench.register(&unproxied.edit(|message| message.proxy_reply = false));
    let eids = ["10.1.0.1/32", "10.3.0.1/32", "10.9.0.1/32", "10.1.0.2/32"];
    let sent = bench.ask(&request(1, &eids, &[ITR]));
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].destination.ip(), ip(OTHER_ETR));
    assert_eq!(reply(&sent[1]).records.len(), 2);
}

#[test]
fn rq_06_rp_20_only_usable_itr_rlocs_are_answered() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let martians = ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "ff02::1", "::1"];
    for martian in martians {
        assert!(bench.ask(&request(1, &["10.1.0.1/32"], &[martian])).is_empty(), "{martian}");
    }
    assert_eq!(bench.discarded(Discard::ItrRlocMartian), martians.len() as u64);
    let mut nobody = request(1, &["10.1.0.1/32"], &[ITR]);
    nobody.itr_rlocs = vec![Address::None];
    assert!(bench.ask(&nobody).is_empty());
    assert_eq!(bench.discarded(Discard::NoItrRloc), 1);
    let sent = bench.ask(&request(1, &["10.1.0.1/32"], &["127.0.0.1", "2001:db8::99", ITR]));
    assert_eq!(sent[0].destination.ip(), ip(ITR), "of the family that the request came over");
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let sent = bench.ask(&request(1, &["10.1.0.1/32"], &["2001:db8::99"]));
    assert_eq!((sent[0].destination.ip(), sent[0].source), (ip("2001:db8::99"), ip(OWN6)));
}

#[test]
fn rp_15_one_answer_in_three_seconds_but_for_a_burst_to_an_itr_whose_answers_are_lost() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    for nonce in 1..=u64::from(timers::MAP_REPLY_BURST) {
        assert_eq!(bench.ask_for(nonce, "10.1.0.1/32").len(), 1);
    }
    assert!(bench.ask_for(20, "10.1.0.2/32").is_empty(), "same EID-prefix, same RLOC");
    assert_eq!(bench.discarded(Discard::ReplyRateLimited), 1);
    assert_eq!(bench.ask(&request(21, &["10.1.0.1/32"], &[ETR])).len(), 1, "another RLOC");
    assert_eq!(bench.ask_for(22, "10.2.0.1/32").len(), 1, "another EID-prefix");
    bench.advance(3);
    assert_eq!(bench.ask_for(23, "10.1.0.1/32").len(), 1);
    assert!(bench.ask_for(24, "10.1.0.2/32").is_empty());
    bench.register(&register(2, vec![record("10.1.0.0/16", &[OTHER_ETR])]));
    assert_eq!(bench.ask_for(25, "10.1.0.1/32").len(), 1, "another mapping is no repetition");
}

#[test]
fn rp_20_replies_to_one_rloc_are_bounded() {
    let mut bench = Bench::new();
    let mut answered = 0;
    for number in 0..8_000_u32 {
        let eid = format!("10.2.{}.{}/32", number >> 8, number & 255);
        let mut request = request(u64::from(number), &[&eid], &[ITR]);
        // Different answers, so that only the bound on the RLOC is left.
        bench.server.recent_replies =
            Recent::new(timers::MAP_REPLY_INTERVAL, 1, 1, Scatter::new([1, 2]));
        request.pitr = true;
        let octets = ecm(&request).to_octets();
        let from = format!("192.0.2.{}", number % 200 + 1);
        answered += bench.input(&from, 40_000, &octets).len();
    }
    assert_eq!(answered, timers::REPLIES_BURST as usize);
}

#[test]
fn cw_06_a_reply_stays_within_576_octets() {
    let rlocs: Vec<_> = (1..=80).map(|host| format!("198.51.100.{host}")).collect();
    let mut many = record("10.1.0.0/16", &rlocs.iter().map(String::as_str).collect::<Vec<_>>());
    many.locators[3].reachable = false;
    many.locators[4].priority = 200;
    let mut bench = registered(true, vec![many]);
    let sent = bench.ask_for(1, "10.1.0.1/32");
    assert!(sent[0].payload.len() <= 548);
    let kept = rlocs_of(&reply(&sent[0]).records[0]);
    assert!(
        kept.len() > 30
            && !kept.contains(&ip("198.51.100.4"))
            && !kept.contains(&ip("198.51.100.5"))
    );
}

#[test]
fn mr_09_rq_20_ec_09_what_is_no_lookup_is_dropped() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let plain = request(1, &["10.1.0.1/32"], &[ITR]);
    let octets = |request: &MapRequest| {
        let mut octets = Vec::new();
        request.encode(&mut octets);
        octets
    };
    assert!(bench.input(ITR, CONTROL_PORT, &octets(&plain)).is_empty());
    assert_eq!(bench.discarded(Discard::PlainMapRequest), 1);
    let mut probe = plain.clone();
    probe.probe = true;
    assert!(bench.input(ITR, CONTROL_PORT, &octets(&probe)).is_empty());
    assert!(bench.ask(&probe).is_empty());
    assert_eq!(bench.discarded(Discard::ProbeRefused), 2);
    let mut smr = plain.clone();
    smr.smr = true;
    assert!(bench.ask(&smr).is_empty());
    assert_eq!(bench.discarded(Discard::SmrRefused), 1);
    let mut inner = ecm(&plain);
    inner.message = register(2, vec![record("10.1.0.0/16", &[ETR])]).octets();
    assert!(bench.input(ITR, CONTROL_PORT, &inner.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::UnexpectedInner), 1);
}

#[test]
fn rq_18_the_d_bit_wants_no_map_reply() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let mut request = request(1, &["10.1.0.1/32"], &[ITR]);
    request.dont_map_reply = true;
    assert!(bench.ask(&request).is_empty());
    assert_eq!(bench.discarded(Discard::DontMapReply), 1);
}

#[test]
fn cw_24_instances_are_apart() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let eid = EidPrefix::new(InstanceId::new(7).unwrap(), "10.1.0.1/32".parse().unwrap());
    let mut request = request(1, &["10.1.0.1/32"], &[ITR]);
    request.records = vec![RequestedEid::new(eid)];
    let sent = bench.ask(&request);
    let negative = &reply(&sent[0]).records[0];
    assert!(negative.is_negative());
    let all = EidPrefix::new(InstanceId::new(7).unwrap(), "0.0.0.0/0".parse().unwrap());
    assert_eq!(negative.eid.prefix(), Some(all));
}

#[test]
fn rp_03_a_lookup_of_the_map_servers_own_host_is_answered() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let request = request(1, &["10.1.0.1/32"], &[OWN]);
    let sent = bench.input(OWN, 40_001, &ecm(&request).to_octets());
    assert_eq!(sent[0].destination, SocketAddr::new(ip(OWN), ITR_PORT));
    let mut to_itself = ecm(&request);
    to_itself.source.set_port(CONTROL_PORT);
    bench.advance(3);
    assert!(bench.input(OWN, 40_001, &to_itself.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::ItrRlocMartian), 1);
}

#[test]
fn rp_07_what_fits_is_measured_on_the_way_to_the_itr_rloc() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let vms: Vec<_> = (0..30).map(|host| record(&format!("10.1.0.{host}/32"), &[ETR])).collect();
    bench.register(&register(2, vms));
    // Over IPv6 1232 octets would do for all of them; the answer goes over IPv4.
    let octets = ecm(&request(1, &["10.1.77.1/32"], &[ITR])).to_octets();
    let sent = bench.input("2001:db8::99", 40_001, &octets);
    let records = reply(&sent[0]).records;
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].eid.prefix(), Some(eid_prefix("10.1.64.0/18")));
}

#[test]
fn ms_23_every_record_of_a_request_counts_against_its_source() {
    let mut bench = registered(true, vec![record("10.1.0.0/16", &[ETR])]);
    let eids: Vec<_> = (0..250).map(|host| format!("10.1.0.{host}/32")).collect();
    let eids: Vec<_> = eids.iter().map(String::as_str).collect();
    let octets = ecm(&request(1, &eids, &[ITR])).to_octets();
    for _ in 0..timers::REQUESTS_BURST / 250 {
        bench.input(ITR, 40_001, &octets);
    }
    assert_eq!(bench.discarded(Discard::SourceRateLimited), 0);
    bench.input(ITR, 40_001, &octets);
    assert_eq!(bench.discarded(Discard::SourceRateLimited), 1);
}

#[test]
fn cw_06_a_request_too_long_to_pass_on_is_answered() {
    let mut bench = registered(false, vec![record("10.1.0.0/16", &[ETR])]);
    let mut padded = ecm(&request(1, &["10.1.2.3/32"], &[ITR]));
    padded.message.resize(548 - 4 - 28, 0);
    let sent = bench.input(ITR, 40_001, &padded.to_octets());
    assert_eq!((forwarded(&sent).0.ip(), sent[0].payload.len()), (ip(ETR), 548));
    padded.message.push(0);
    let sent = bench.input(ITR, 40_001, &padded.to_octets());
    assert_eq!(sent[0].destination.ip(), ip(ITR));
    assert_eq!(rlocs_of(&reply(&sent[0]).records[0]), [ip(ETR)]);
}

#[test]
fn cw_19_a_request_for_nothing_is_counted() {
    let mut bench = Bench::new();
    let mut nothing = request(1, &["10.1.0.1/32"], &[ITR]);
    let mut octets = ecm(&nothing);
    nothing.records.clear();
    octets.message.clear();
    nothing.encode(&mut octets.message);
    assert!(bench.input(ITR, 40_001, &octets.to_octets()).is_empty());
    assert_eq!(bench.discarded(Discard::Malformed), 1);
}
