//! Switching offload features of links on and off: checksums, so that what is captured carries those that a wire
//! would carry, and segmentation.
//!
//! A veth pair passes packets with their checksum still to be computed. The ethtool family of generic netlink
//! changes that; its few messages are written out here.

use std::io;

use nix::libc::NETLINK_GENERIC;
use rtnetlink::sys::Socket;

use super::namespace::Namespace;

/// Generic netlink's own family and its lookup command (linux/genetlink.h).
const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
/// linux/ethtool_netlink.h.
const ETHTOOL_MSG_FEATURES_SET: u8 = 12;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_WANTED: u16 = 3;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_BITS_BIT: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;
const ETHTOOL_A_BITSET_BIT_VALUE: u16 = 3;
/// linux/netlink.h.
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 1 << 15;

/// The first kernel in which UDP_SEGMENT does not need checksum offload of the link.
const SEGMENTS_WITHOUT_OFFLOAD: (u32, u32) = (6, 11);

/// Whether the lab's core links may do without checksum offload: before Linux 6.11 the kernel refuses bursts
/// (UDP_SEGMENT) there, which would hide the normal way of sending.
pub(crate) fn can_compute_checksums() -> bool {
    let release = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    kernel_version(&release).is_some_and(|version| version >= SEGMENTS_WITHOUT_OFFLOAD)
}

fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Makes a link compute the checksums of what it sends.
pub fn compute_checksums(namespace: &Namespace, link: &'static str) -> io::Result<()> {
    set_features(namespace, link, &[("tx-checksum-ip-generic", false)])
}

/// Switches features of a link on or off, by their names in the kernel; the others stay as they are.
pub(crate) fn set_features(
    namespace: &Namespace,
    link: &str,
    features: &[(&str, bool)],
) -> io::Result<()> {
    let change = change_of(link, features);
    namespace.run(move || {
        let mut socket = Socket::new(NETLINK_GENERIC as isize)?;
        socket.bind_auto()?;
        let name = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0");
        let answer = request(&socket, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, NLM_F_REQUEST, &name)?;
        let family = family_id(&answer)
            .ok_or_else(|| io::Error::other("the kernel has no ethtool netlink"))?;
        let flags = NLM_F_REQUEST | NLM_F_ACK;
        request(&socket, family, ETHTOOL_MSG_FEATURES_SET, flags, &change)?;
        Ok(())
    })?
}

fn change_of(link: &str, features: &[(&str, bool)]) -> Vec<u8> {
    let name = attribute(ETHTOOL_A_HEADER_DEV_NAME, &terminated(link));
    let mut list = Vec::new();
    for (feature, on) in features {
        // A bit that is named and has no value is cleared; bits that are not named stay.
        let mut bit = attribute(ETHTOOL_A_BITSET_BIT_NAME, &terminated(feature));
        if *on {
            bit.extend(attribute(ETHTOOL_A_BITSET_BIT_VALUE, &[]));
        }
        list.extend(attribute(ETHTOOL_A_BITSET_BITS_BIT | NLA_F_NESTED, &bit));
    }
    let bits = attribute(ETHTOOL_A_BITSET_BITS | NLA_F_NESTED, &list);
    let mut attributes = attribute(ETHTOOL_A_FEATURES_HEADER | NLA_F_NESTED, &name);
    attributes.extend(attribute(ETHTOOL_A_FEATURES_WANTED | NLA_F_NESTED, &bits));
    attributes
}

fn terminated(text: &str) -> Vec<u8> {
    let mut octets = text.as_bytes().to_vec();
    octets.push(0);
    octets
}

/// A netlink attribute, padded to four octets.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut octets = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    octets.extend(kind.to_ne_bytes());
    octets.extend(value);
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets
}

/// Sends one generic netlink message; returns the answer's attributes, or the error it carries.
fn request(
    socket: &Socket,
    family: u16,
    command: u8,
    flags: u16,
    attributes: &[u8],
) -> io::Result<Vec<u8>> {
    let mut message = ((20 + attributes.len()) as u32).to_ne_bytes().to_vec();
    message.extend(family.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend([command, 1, 0, 0]);
    message.extend(attributes);
    socket.send(&message, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let field = |at: usize| answer.get(at..at + 4).and_then(|octets| octets.try_into().ok());
    let kind = answer.get(4..6).and_then(|octets| octets.try_into().ok()).map(u16::from_ne_bytes);
    match (kind, field(16).map(i32::from_ne_bytes)) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(Vec::new()),
        (Some(NLMSG_ERROR), Some(error)) => Err(io::Error::from_raw_os_error(-error)),
        (Some(_), Some(_)) => Ok(answer[20..].to_vec()),
        _ => Err(io::Error::other("a netlink answer is too short")),
    }
}

fn family_id(mut attributes: &[u8]) -> Option<u16> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if kind == CTRL_ATTR_FAMILY_ID {
            return Some(u16::from_ne_bytes(value.get(..2)?.try_into().ok()?));
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read() {
        assert_eq!(kernel_version("6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("6.11.2"), Some((6, 11)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn attributes_are_padded_and_found_again() {
        let mut attributes = attribute(CTRL_ATTR_FAMILY_NAME, b"ethtool\0x");
        assert_eq!(attributes.len(), 16);
        attributes.extend(attribute(CTRL_ATTR_FAMILY_ID, &21u16.to_ne_bytes()));
        assert_eq!(family_id(&attributes), Some(21));
        assert_eq!(family_id(&attributes[..17]), None);
    }
}
