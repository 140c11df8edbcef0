//! Random messages survive encoding and parsing; random octets do no harm.

use std::net::SocketAddr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;

fn simple_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        4 => any::<std::net::Ipv4Addr>().prop_map(Address::Ipv4),
        4 => any::<std::net::Ipv6Addr>().prop_map(Address::Ipv6),
        1 => Just(Address::None),
        1 => any::<[u8; 6]>().prop_map(Address::Mac),
        1 => vec(1_u8.., 0..20).prop_map(Address::Name),
        1 => unknown_lcaf().prop_map(Address::Lcaf),
    ]
}

/// A type whose body is not looked into.
fn unknown_lcaf() -> impl Strategy<Value = Lcaf> {
    (any::<[u8; 3]>(), 3_u8..255, vec(any::<u8>(), 0..30)).prop_map(
        |([rsvd1, flags, rsvd2], kind, body)| Lcaf::Unknown { rsvd1, flags, kind, rsvd2, body },
    )
}

fn any_address() -> impl Strategy<Value = Address> {
    // Four levels of LCAF at most: an unknown one may sit at the leaves.
    simple_address().prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|list| Address::Lcaf(Lcaf::AfiList(list))),
            (any::<u8>(), any::<u32>(), inner).prop_map(|(mask_len, instance_id, address)| {
                let address = Box::new(address);
                Address::Lcaf(Lcaf::InstanceId { mask_len, instance_id, address })
            }),
        ]
    })
}

fn any_eid() -> impl Strategy<Value = EidField> {
    let net = |width: u8| 0..=width;
    prop_oneof![
        (any::<[u8; 4]>(), net(32), 0..=InstanceId::MAX).prop_map(|(ip, len, instance)| {
            let net = IpNet::new(ip.into(), len).unwrap();
            EidPrefix::new(InstanceId::new(instance).unwrap(), net).into()
        }),
        (any::<[u8; 16]>(), net(128)).prop_map(|(ip, len)| {
            EidPrefix::new(InstanceId::DEFAULT, IpNet::new(ip.into(), len).unwrap()).into()
        }),
        (any_address(), any::<u8>())
            .prop_filter_map("no such EID", |(address, len)| EidField::new(address, len).ok()),
    ]
}

fn any_locator() -> impl Strategy<Value = LocatorRecord> {
    (any::<[u8; 4]>(), any::<[bool; 3]>(), any_address()).prop_map(
        |(
            [priority, weight, multicast_priority, multicast_weight],
            [local, probed, reachable],
            address,
        )| LocatorRecord {
            priority,
            weight,
            multicast_priority,
            multicast_weight,
            local,
            probed,
            reachable,
            address,
        },
    )
}

/// As it would be parsed: locators sorted, ACT only without any.
fn any_record() -> impl Strategy<Value = EidRecord> {
    (any::<u32>(), 0_u8..8, any::<bool>(), 0_u16..4096, any_eid(), vec(any_locator(), 0..5))
        .prop_map(|(ttl_minutes, action, authoritative, map_version, eid, mut locators)| {
            locators.sort_by(|a, b| a.address.cmp(&b.address));
            let action = if locators.is_empty() { action } else { 0 };
            let action = Action::from_code(action);
            EidRecord { ttl_minutes, action, authoritative, map_version, eid, locators }
        })
}

fn any_records() -> impl Strategy<Value = Vec<EidRecord>> {
    vec(any_record(), 0..4)
}

fn any_identity() -> impl Strategy<Value = Option<XtrIdentity>> {
    option::of(
        (any::<u128>(), any::<u64>()).prop_map(|(xtr_id, site_id)| XtrIdentity { xtr_id, site_id }),
    )
}

fn any_authentication() -> impl Strategy<Value = AuthenticationData> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..40)).prop_map(|(key_id, algorithm_id, mac)| {
        let mac = MacField::from(mac.as_slice());
        AuthenticationData { key_id, algorithm_id, mac }
    })
}

fn any_request() -> impl Strategy<Value = MapRequest> {
    let requested =
        (any::<bool>(), any_eid()).prop_map(|(notify, eid)| RequestedEid { notify, eid });
    (
        any::<[bool; 7]>(),
        any::<u64>(),
        any_address(),
        vec(any_address(), 1..=32),
        vec(requested, 0..4),
        option::of(any_record()),
        any_identity(),
    )
        .prop_map(|(flags, nonce, source_eid, itr_rlocs, records, map_data, identity)| {
            let [authoritative, probe, smr, pitr, smr_invoked, local_xtr, dont_map_reply] = flags;
            MapRequest {
                authoritative,
                probe,
                smr,
                pitr,
                smr_invoked,
                local_xtr,
                dont_map_reply,
                nonce,
                source_eid,
                itr_rlocs,
                records,
                map_data,
                identity,
            }
        })
}

fn any_reply() -> impl Strategy<Value = MapReply> {
    (any::<[bool; 2]>(), any::<u64>(), any_records(), option::of(vec(any::<u8>(), 1..60))).prop_map(
        |([probe, echo_nonce], nonce, records, security)| MapReply {
            probe,
            echo_nonce,
            nonce,
            records,
            security,
        },
    )
}

fn any_register() -> impl Strategy<Value = MapRegister> {
    (any::<[bool; 6]>(), any::<u64>(), any_authentication(), any_records(), any_identity())
        .prop_map(|(flags, nonce, authentication, records, identity)| {
            let [proxy_reply, security_capable, eid_notify, use_ttl, merge, want_map_notify] =
                flags;
            MapRegister {
                proxy_reply,
                security_capable,
                eid_notify,
                use_ttl,
                merge,
                want_map_notify,
                nonce,
                authentication,
                records,
                identity,
            }
        })
}

fn any_notify() -> impl Strategy<Value = MapNotify> {
    (any::<u64>(), any_authentication(), any_records(), any_identity()).prop_map(
        |(nonce, authentication, records, identity)| MapNotify {
            nonce,
            authentication,
            records,
            identity,
        },
    )
}

/// LISP-SEC authentication data with lengths that agree with its octets.
fn any_security() -> impl Strategy<Value = Vec<u8>> {
    (any::<[u8; 3]>(), any::<[u8; 2]>(), vec(any::<u8>(), 0..40), vec(any::<u8>(), 2..40)).prop_map(
        |(head, wrapping, otk, eid_ad)| {
            let mut data = vec![1];
            data.extend(head);
            data.extend([0, otk.len() as u8]);
            data.extend(wrapping);
            data.extend(&otk);
            data.extend([0, eid_ad.len() as u8 + 2]);
            data.extend(&eid_ad);
            data
        },
    )
}

fn any_referral() -> impl Strategy<Value = MapReferral> {
    let signature = (any::<[u32; 3]>(), any::<u16>(), any::<u8>(), vec(any::<u8>(), 0..40))
        .prop_map(
            |([original_ttl_minutes, expiration, inception], key_tag, algorithm, signature)| {
                ReferralSignature {
                    original_ttl_minutes,
                    expiration,
                    inception,
                    key_tag,
                    algorithm,
                    signature,
                }
            },
        );
    let record = (
        any::<u32>(),
        0_u8..8,
        any::<[bool; 2]>(),
        0_u16..4096,
        any_eid(),
        vec(any_locator(), 0..5),
        vec(signature, 0..4),
    )
        .prop_map(
            |(ttl_minutes, action, flags, map_version, eid, mut referrals, signatures)| {
                referrals.sort_by(|a, b| a.address.cmp(&b.address));
                let [authoritative, incomplete] = flags;
                let action = ReferralAction::from_code(action);
                ReferralRecord {
                    ttl_minutes,
                    action,
                    authoritative,
                    incomplete,
                    map_version,
                    eid,
                    referrals,
                    signatures,
                }
            },
        );
    (any::<u64>(), vec(record, 0..4)).prop_map(|(nonce, records)| MapReferral { nonce, records })
}

fn any_eid_ad() -> impl Strategy<Value = EidAd> {
    let body = (any::<bool>(), any::<u16>(), vec(any_eid(), 0..4), vec(any::<u8>(), 0..20))
        .prop_map(|(etr_cant_sign, hmac_id, prefixes, hmac)| {
            let hmac = MacField::from(hmac.as_slice());
            EidAdBody { etr_cant_sign, hmac_id, prefixes, hmac }
        });
    (any::<u16>(), option::of(body)).prop_map(|(kdf_id, body)| EidAd { kdf_id, body })
}

fn any_ecm_security() -> impl Strategy<Value = EcmSecurity> {
    let ids = (any::<u16>(), any::<u8>(), any::<u8>());
    (ids, any::<u64>(), any::<[u8; 16]>(), any_eid_ad()).prop_map(|(ids, preamble, otk, eid_ad)| {
        let (requested_hmac, key_id, wrapping_id) = ids;
        EcmSecurity { requested_hmac, key_id, wrapping_id, preamble, otk, eid_ad }
    })
}

fn any_reply_security() -> impl Strategy<Value = ReplySecurity> {
    (any_eid_ad(), any::<u16>(), vec(any::<u8>(), 0..20)).prop_map(
        |(eid_ad, packet_hmac_id, packet_hmac)| {
            let packet_hmac = MacField::from(packet_hmac.as_slice());
            ReplySecurity { eid_ad, packet_hmac_id, packet_hmac }
        },
    )
}

fn any_info_request() -> impl Strategy<Value = InfoRequest> {
    (any::<u64>(), any_authentication(), any::<u32>(), any_eid(), any_address()).prop_map(
        |(nonce, authentication, ttl_minutes, eid, sender)| InfoRequest {
            nonce,
            authentication,
            ttl_minutes,
            eid,
            sender,
        },
    )
}

fn any_info_reply() -> impl Strategy<Value = InfoReply> {
    let nat = (any::<[u16; 2]>(), vec(any_address(), 3), vec(any_address(), 0..4));
    (any_info_request(), nat).prop_map(|(request, ([ms_port, etr_port], mut fixed, rtrs))| {
        let mut next = || fixed.pop().unwrap_or(Address::None);
        let (global_etr, ms, private_etr) = (next(), next(), next());
        let nat = NatTraversal { ms_port, etr_port, global_etr, ms, private_etr, rtrs };
        let InfoRequest { nonce, authentication, ttl_minutes, eid, .. } = request;
        InfoReply { nonce, authentication, ttl_minutes, eid, nat }
    })
}

fn any_rtr_authentication() -> impl Strategy<Value = Vec<u8>> {
    any_authentication().prop_map(|authentication| RtrAuthentication { authentication }.to_vec())
}

fn any_ecm() -> impl Strategy<Value = EncapsulatedControlMessage> {
    let port = || any::<u16>().prop_filter("data port", |&port| port != DATA_PORT);
    let v4 = (any::<[u8; 4]>(), any::<[u8; 4]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = (any::<[u8; 16]>(), any::<[u8; 16]>()).prop_map(|(a, b)| (a.into(), b.into()));
    let addresses = prop_oneof![v4, v6];
    let message = vec(any::<u8>(), 1..200).prop_map(|mut message| {
        message[0] = 0x10 | message[0] & 0x0d;
        message
    });
    let security = prop_oneof![any_security(), any_rtr_authentication()];
    (option::of(security), any::<[bool; 5]>(), addresses, (port(), port()), message).prop_map(
        |(security, flags, (source, destination), ports, message)| {
            let [ddt_originated, to_etr, to_map_server, to_rtr, relayed] = flags;
            EncapsulatedControlMessage {
                security,
                ddt_originated,
                to_etr,
                to_map_server,
                to_rtr,
                relayed,
                source: SocketAddr::new(source, ports.0),
                destination: SocketAddr::new(destination, ports.1),
                message,
            }
        },
    )
}

fn any_message() -> impl Strategy<Value = Message> {
    prop_oneof![
        any_request().prop_map(Message::MapRequest),
        any_reply().prop_map(Message::MapReply),
        any_register().prop_map(Message::MapRegister),
        any_notify().prop_map(Message::MapNotify),
        any_notify().prop_map(|notify| Message::MapNotifyAck(MapNotifyAck(notify))),
        any_referral().prop_map(Message::MapReferral),
        any_info_request().prop_map(Message::InfoRequest),
        any_info_reply().prop_map(Message::InfoReply),
        any_ecm().prop_map(Message::Encapsulated),
    ]
}

/// Parses; what parses is encoded and parsed again, to the same.
fn survive(octets: &[u8]) {
    let tolerance = Tolerance::LISPERS_NET;
    let Ok(mut message) = Message::parse_with(octets, tolerance) else { return };
    let encoded = message.to_vec();
    normalise(&mut message);
    assert_eq!(Message::parse(&encoded), Ok(message));
}

/// As [`survive`], for LISP-SEC authentication data.
fn survive_as_security(octets: &[u8]) {
    if let Ok(security) = EcmSecurity::parse(octets) {
        assert_eq!(EcmSecurity::parse(&security.to_vec()), Ok(security));
    }
    if let Ok(security) = ReplySecurity::parse(octets) {
        assert_eq!(ReplySecurity::parse(&security.to_vec()), Ok(security));
    }
}

/// What encoding changes on purpose: the order of locators, and ACT beside them.
fn normalise(message: &mut Message) {
    let records = match message {
        Message::MapRequest(request) => request.map_data.as_mut_slice(),
        Message::MapReply(reply) => &mut reply.records,
        Message::MapRegister(register) => &mut register.records,
        Message::MapNotify(notify) | Message::MapNotifyAck(MapNotifyAck(notify)) => {
            &mut notify.records
        }
        Message::MapReferral(referral) => {
            for record in &mut referral.records {
                record.referrals.sort_by(|a, b| a.address.cmp(&b.address));
            }
            &mut []
        }
        Message::InfoRequest(_) | Message::InfoReply(_) | Message::Encapsulated(_) => &mut [],
    };
    for record in records {
        record.locators.sort_by(|a, b| a.address.cmp(&b.address));
        if !record.locators.is_empty() {
            record.action = Action::NoAction;
        }
    }
}

proptest! {
    #[test]
    fn cw_21_encoded_messages_parse_to_themselves(message in any_message()) {
        prop_assert_eq!(Message::parse(&message.to_vec()), Ok(message));
    }

    #[test]
    fn cw_21_lengths_are_those_of_the_octets(record in any_record(), message in any_message()) {
        for locator in record.locators {
            let mut octets = Vec::new();
            locator.encode(&mut octets);
            prop_assert_eq!(locator.encoded_len(), octets.len());
        }
        if let Message::Encapsulated(ecm) = &message {
            prop_assert_eq!(ecm.encoded_len(), message.to_vec().len());
        }
    }

    #[test]
    fn cw_21_encoding_does_not_depend_on_the_order_of_locators(
        record in any_record(), turn in any::<usize>(),
    ) {
        let mut turned = record.clone();
        let count = turned.locators.len().max(1);
        turned.locators.rotate_left(turn % count);
        // Locators of equal address keep the order they are given in.
        let distinct = record.locators.windows(2).all(|two| two[0].address < two[1].address);
        prop_assume!(distinct);
        let encode = |record| MapReply::new(0, vec![record]);
        prop_assert_eq!(
            Message::MapReply(encode(record)).to_vec(),
            Message::MapReply(encode(turned)).to_vec()
        );
    }

    #[test]
    fn cw_21_lisp_sec_data_parses_to_itself(
        ecm in any_ecm_security(), reply in any_reply_security(),
    ) {
        prop_assert_eq!(EcmSecurity::parse(&ecm.to_vec()), Ok(ecm));
        prop_assert_eq!(ReplySecurity::parse(&reply.to_vec()), Ok(reply));
    }

    #[test]
    fn cw_21_changed_lisp_sec_data_does_no_harm(
        ecm in any_ecm_security(),
        reply in any_reply_security(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
    ) {
        for mut octets in [ecm.to_vec(), reply.to_vec()] {
            for (at, octet) in &changes {
                let at = at.index(octets.len());
                octets[at] = *octet;
            }
            survive_as_security(&octets);
            octets.truncate(end.index(octets.len()));
            survive_as_security(&octets);
        }
    }

    #[test]
    fn cw_21_random_octets_do_no_harm(octets in vec(any::<u8>(), 0..600)) {
        survive(&octets);
        survive_as_security(&octets);
    }

    #[test]
    fn cw_21_random_octets_of_each_type_do_no_harm(
        kind in 1_u8..9, mut octets in vec(prop_oneof![Just(0), Just(1), any::<u8>()], 1..200),
    ) {
        octets[0] = kind << 4 | octets[0] & 0x0f;
        survive(&octets);
    }

    #[test]
    fn cw_21_changed_messages_do_no_harm(
        message in any_message(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut octets = message.to_vec();
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        if cut {
            octets.truncate(end.index(octets.len() + 1));
        }
        survive(&octets);
    }

    #[test]
    fn cw_18_bits_beyond_the_mask_never_make_two_prefixes_differ(
        ip in any::<[u8; 4]>(), host in any::<u32>(), len in 0_u8..=32,
    ) {
        let host = host & u32::MAX.checked_shr(len.into()).unwrap_or(0);
        let other = u32::from_be_bytes(ip) ^ host;
        let eid = |ip: [u8; 4]| EidField::new(Address::Ipv4(ip.into()), len);
        prop_assert_eq!(eid(ip), eid(other.to_be_bytes()));
    }
}
