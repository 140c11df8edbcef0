//! The packet that is asked about, as octets.
use crate::packet::checksum;
use crate::packet::headers::{Ipv4Header, Ipv6Header, UdpHeader, protocol};
use mapping::admin::ExplainQuery;
use std::net::IpAddr;
use zerocopy::IntoBytes;
use zerocopy::network_endian::{U16, U32};

/// Octets of a TCP header without options, and of what is read of an ICMP message.
const TCP_HEADER_LEN: usize = 20;
const ICMP_HEADER_LEN: usize = 8;

/// The inner packet. `Err` says what does not fit together.
pub(super) fn build(question: &ExplainQuery) -> Result<Vec<u8>, String> {
    let (source, destination) = (question.source, question.destination);
    let transport = transport(question);
    let ip_len = if source.is_ipv4() { Ipv4Header::LEN } else { Ipv6Header::LEN };
    let (len, least) = (usize::from(question.length), ip_len + transport.len());
    if len < least {
        return Err(format!("such a packet has at least {least} octets, not {len}"));
    }
    let mut packet = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let flags = if question.dont_fragment { Ipv4Header::DF } else { 0 };
            let mut header = Ipv4Header {
                version_ihl: 0x45,
                tos: question.tos,
                total_len: U16::new(question.length),
                id: U16::ZERO,
                flags_offset: U16::new(flags),
                ttl: question.ttl,
                protocol: question.protocol,
                checksum: U16::ZERO,
                source: source.octets(),
                destination: destination.octets(),
            };
            header.checksum = U16::from_bytes(checksum::internet(header.as_bytes()));
            header.as_bytes().to_vec()
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => Ipv6Header {
            version_class_label: U32::new(6 << 28 | u32::from(question.tos) << 20),
            payload_len: U16::new(question.length - Ipv6Header::LEN as u16),
            next_header: question.protocol,
            hop_limit: question.ttl,
            source: source.octets(),
            destination: destination.octets(),
        }
        .as_bytes()
        .to_vec(),
        _ => return Err(format!("{source} and {destination} are not of one address family")),
    };
    packet.extend_from_slice(&transport);
    packet.resize(len, 0);
    Ok(packet)
}

/// The start of what follows the IP header.
fn transport(question: &ExplainQuery) -> Vec<u8> {
    let ports = [question.source_port, question.destination_port].map(u16::to_be_bytes).concat();
    let mut header = ports;
    match question.protocol {
        protocol::TCP => {
            header.resize(TCP_HEADER_LEN, 0);
            // The header's length in words, SYN.
            (header[12], header[13]) = (5 << 4, 2);
        }
        protocol::UDP => {
            let ip_len = if question.source.is_ipv4() { Ipv4Header::LEN } else { Ipv6Header::LEN };
            let len = question.length.saturating_sub(ip_len as u16);
            header.extend_from_slice(&len.to_be_bytes());
            header.resize(UdpHeader::LEN, 0);
        }
        protocol::SCTP => header.resize(12, 0),
        // Echo Request.
        protocol::ICMP => header = [vec![8], vec![0; ICMP_HEADER_LEN - 1]].concat(),
        protocol::ICMPV6 => header = [vec![128], vec![0; ICMP_HEADER_LEN - 1]].concat(),
        _ => header.clear(),
    }
    header
}
