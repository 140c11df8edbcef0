//! Header layouts as they are on the wire; every size is proved at compile time.

use zerocopy::byteorder::native_endian;
use zerocopy::network_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An IPv4 header without options (RFC 791 §3.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv4Header {
    /// Version (4) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP (6 bits) and ECN (2 bits).
    pub tos: u8,
    /// Total length in octets.
    pub total_len: U16,
    /// Identification.
    pub id: U16,
    /// Reserved, DF, MF and the fragment offset in units of 8 octets.
    pub flags_offset: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol number.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4Header {
    /// Octets of the header without options.
    pub const LEN: usize = 20;
    /// Do not fragment.
    pub const DF: u16 = 0x4000;
    /// More fragments follow.
    pub const MF: u16 = 0x2000;
    /// The fragment offset's bits.
    pub const OFFSET_MASK: u16 = 0x1fff;
}

/// The fixed IPv6 header (RFC 8200 §3).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Ipv6Header {
    /// Version (6), traffic class (8 bits), flow label (20 bits).
    pub version_class_label: U32,
    /// Octets after this header.
    pub payload_len: U16,
    /// What follows.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6Header {
    /// Octets of the header.
    pub const LEN: usize = 40;

    /// DSCP (6 bits) and ECN (2 bits).
    #[inline]
    pub fn traffic_class(&self) -> u8 {
        (self.version_class_label.get() >> 20) as u8
    }

    /// The flow label, 20 bits.
    #[inline]
    pub fn flow_label(&self) -> u32 {
        self.version_class_label.get() & 0x000f_ffff
    }
}

/// A UDP header (RFC 768).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UdpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Header and payload, octets.
    pub len: U16,
    /// Checksum, 0 = none.
    pub checksum: U16,
}

impl UdpHeader {
    /// Octets of the header.
    pub const LEN: usize = 8;
}

/// A TCP header without options (RFC 9293 §3.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct TcpHeader {
    /// Source port.
    pub source_port: U16,
    /// Destination port.
    pub destination_port: U16,
    /// Sequence number of the first payload octet.
    pub sequence: U32,
    /// Acknowledgment number.
    pub acknowledgment: U32,
    /// Header length in 32-bit words (high 4 bits) and reserved bits.
    pub data_offset: u8,
    /// CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
    pub flags: u8,
    /// Window.
    pub window: U16,
    /// Checksum.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl TcpHeader {
    /// Octets of the header without options.
    pub const LEN: usize = 20;
    /// The sender is done.
    pub const FIN: u8 = 0x01;
    /// Push.
    pub const PSH: u8 = 0x08;
    /// Acknowledgment number valid.
    pub const ACK: u8 = 0x10;
    /// Congestion window reduced.
    pub const CWR: u8 = 0x80;
}

/// The LISP data header (RFC 9300 §5.1, REQUIREMENTS §26.1).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct LispHeader {
    /// N L E V I R K K, most significant bit first.
    pub flags: u8,
    /// Nonce or map-versions.
    pub nonce: [u8; 3],
    /// Instance ID and Locator-Status-Bits.
    pub instance_lsbs: U32,
}

impl LispHeader {
    /// Octets of the header.
    pub const LEN: usize = 8;
    /// Nonce present.
    pub const N: u8 = 0x80;
    /// Locator-Status-Bits present.
    pub const L: u8 = 0x40;
    /// The nonce is to be echoed.
    pub const E: u8 = 0x20;
    /// Map-versions present.
    pub const V: u8 = 0x10;
    /// Instance ID present.
    pub const I: u8 = 0x08;
    /// Key ID of an encrypted packet.
    pub const KK: u8 = 0x03;
}

/// `struct virtio_net_hdr` before every packet of a TUN opened with `IFF_VNET_HDR` (10 octets, host byte order).
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct VirtioNetHeader {
    /// [`Self::NEEDS_CSUM`]; what else the kernel says there is ignored.
    pub flags: u8,
    /// One of the `GSO_` values, perhaps with [`Self::GSO_ECN`].
    pub gso_type: u8,
    /// IP and transport header, octets; a hint.
    pub hdr_len: native_endian::U16,
    /// Payload octets per segment.
    pub gso_size: native_endian::U16,
    /// Where the transport header starts, from the start of the packet.
    pub csum_start: native_endian::U16,
    /// Where the checksum field is, from `csum_start`.
    pub csum_offset: native_endian::U16,
}

impl VirtioNetHeader {
    /// Octets of the header.
    pub const LEN: usize = 10;
    /// The transport checksum holds only the pseudo-header's sum.
    pub const NEEDS_CSUM: u8 = 1;
    /// Not a super-packet.
    pub const GSO_NONE: u8 = 0;
    /// TCP over IPv4.
    pub const GSO_TCPV4: u8 = 1;
    /// TCP over IPv6.
    pub const GSO_TCPV6: u8 = 4;
    /// UDP datagrams of one size, over either.
    pub const GSO_UDP_L4: u8 = 5;
    /// The TCP super-packet's first segment carries CWR.
    pub const GSO_ECN: u8 = 0x80;
}

const _: () = assert!(size_of::<Ipv4Header>() == Ipv4Header::LEN);
const _: () = assert!(size_of::<Ipv6Header>() == Ipv6Header::LEN);
const _: () = assert!(size_of::<UdpHeader>() == UdpHeader::LEN);
const _: () = assert!(size_of::<TcpHeader>() == TcpHeader::LEN);
const _: () = assert!(size_of::<LispHeader>() == LispHeader::LEN);
const _: () = assert!(size_of::<VirtioNetHeader>() == VirtioNetHeader::LEN);

/// Protocol numbers (IANA).
pub mod protocol {
    /// IPv6 Hop-by-Hop Options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 Routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 Fragment header.
    pub const FRAGMENT: u8 = 44;
    /// Authentication Header.
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// IPv6 Destination Options.
    pub const DESTINATION_OPTIONS: u8 = 60;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// Mobility Header.
    pub const MOBILITY: u8 = 135;
}
