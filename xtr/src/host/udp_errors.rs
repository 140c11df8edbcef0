//! What the kernel dropped before a UDP socket saw it. It counts per network namespace, whatever the port.
use std::fs;

/// Datagrams that the kernel refused, IPv4 and IPv6 together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpErrors {
    /// Their checksum was neither 0 nor right (DE-03).
    pub checksum: u64,
    /// Their socket's buffer was full.
    pub buffer: u64,
}

impl UdpErrors {
    /// The kernel's counters now, in the network namespace of the calling thread; 0 where they cannot be read.
    pub fn read() -> Self {
        let text =
            |name| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
        Self::parse(&text("snmp"), &text("snmp6"))
    }

    /// What was added since `earlier`.
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            checksum: self.checksum.saturating_sub(earlier.checksum),
            buffer: self.buffer.saturating_sub(earlier.buffer),
        }
    }

    fn parse(snmp: &str, snmp6: &str) -> Self {
        let both = |v4: &str, v6: &str| {
            ipv4_counter(snmp, v4).unwrap_or(0) + ipv6_counter(snmp6, v6).unwrap_or(0)
        };
        Self {
            checksum: both("InCsumErrors", "Udp6InCsumErrors"),
            buffer: both("RcvbufErrors", "Udp6RcvbufErrors"),
        }
    }
}

/// `snmp` has two lines that begin with `Udp:`: names, then values.
fn ipv4_counter(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp:"));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|found| found == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

/// `snmp6` has a line per counter: name, value.
fn ipv6_counter(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(char::is_whitespace)?;
        if found == name { value.trim().parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn de_03_the_kernel_s_counters_are_read() {
        let snmp = "Ip: a b\nIp: 1 2\nUdp: InDatagrams InErrors RcvbufErrors InCsumErrors\nUdp: 9 8 7 6\nUdpLite: x\nUdpLite: 0\n";
        let snmp6 = "Udp6InDatagrams                 \t5\nUdp6InCsumErrors                \t3\nUdp6RcvbufErrors\t2\n";
        assert_eq!(UdpErrors::parse(snmp, snmp6), UdpErrors { checksum: 9, buffer: 9 });
        assert_eq!(UdpErrors::parse("", "x"), UdpErrors::default());
        assert_eq!(UdpErrors::parse("Udp: InCsumErrors\nUdp:\n", ""), UdpErrors::default());
    }

    #[test]
    fn only_what_was_added_counts() {
        let [early, late] =
            [(2, 3), (5, 3)].map(|(checksum, buffer)| UdpErrors { checksum, buffer });
        assert_eq!(late.since(early), UdpErrors { checksum: 3, buffer: 0 });
        assert_eq!(early.since(late).checksum, 0, "somebody reset them");
    }
}
