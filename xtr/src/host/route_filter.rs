//! PURE. Which messages of the kernel are worth waking up for, as a classic BPF program on the netlink socket.
//!
//! A router that takes part in BGP sees its whole table change: hundreds of thousands of routes, of which a few lead to RLOCs. The program
//! takes everything but routes; of those, it takes a default route and a route that may cover an RLOC. RLOCs are a sorted list of ranges,
//! searched by halving, so that a route that concerns nobody costs a dozen instructions in the kernel and wakes nobody. Of IPv6
//! addresses the first 32 bits count; what the program takes is looked at again, exactly.
use socket2::SockFilter;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Ranges per family: two trees of them and the rest are less than the 4096 instructions of a program.
const MAX_RANGES: usize = 250;

/// Offsets of `struct nlmsghdr` and `struct rtmsg`.
const TYPE_LOW: u32 = if cfg!(target_endian = "little") { 4 } else { 5 };
const FAMILY: u32 = 16;
const DESTINATION_LEN: u32 = 17;
const ATTRIBUTES: u32 = 28;
/// Octets of `struct rtattr`.
const ATTRIBUTE_HEADER: u32 = 4;
const RTM_NEWROUTE: u32 = libc::RTM_NEWROUTE as u32;
const RTM_DELROUTE: u32 = libc::RTM_DELROUTE as u32;
/// `SKF_AD_OFF + SKF_AD_NLATTR` of filter(7): where the attribute X is, from A on; 0 if nowhere.
const FIND_ATTRIBUTE: u32 = (-0x1000i32 + 12) as u32;

const LOAD_OCTET: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const LOAD_AT_X: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_IND) as u16;
const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_IMM) as u16;
const LOAD: u16 = (libc::BPF_LD | libc::BPF_MEM) as u16;
const LOAD_X_NUMBER: u16 = (libc::BPF_LDX | libc::BPF_IMM) as u16;
const LOAD_X: u16 = (libc::BPF_LDX | libc::BPF_MEM) as u16;
const STORE: u16 = libc::BPF_ST as u16;
const TO_X: u16 = (libc::BPF_MISC | libc::BPF_TAX) as u16;
const SUBTRACT: u16 = (libc::BPF_ALU | libc::BPF_SUB | libc::BPF_K) as u16;
const SHIFT_BY_X: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_X) as u16;
const SHIFT: u16 = (libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K) as u16;
const OR_X: u16 = (libc::BPF_ALU | libc::BPF_OR | libc::BPF_X) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
const IF_NOT_LESS: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const GO: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// Memory: the first and the last address that the route covers, its length.
const FIRST: u32 = 0;
const LAST: u32 = 1;
const LEN: u32 = 2;

/// One instruction: code, jump if true, jump if false, number.
type Instruction = (u16, u8, u8, u32);

const TAKE: Instruction = (RETURN, 0, 0, u32::MAX);
const LEAVE: Instruction = (RETURN, 0, 0, 0);

/// The program that takes what may concern these RLOCs.
pub(super) fn program(rlocs: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    instructions(rlocs)
        .into_iter()
        .map(|(code, jt, jf, k)| SockFilter::new(code, jt, jf, k))
        .collect()
}

fn instructions(rlocs: &BTreeSet<IpAddr>) -> Vec<Instruction> {
    let v4 = rlocs.iter().filter_map(|rloc| match rloc {
        IpAddr::V4(v4) => Some(v4.to_bits()),
        IpAddr::V6(_) => None,
    });
    let v6 = rlocs.iter().filter_map(|rloc| match rloc {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => Some((v6.to_bits() >> 96) as u32),
    });
    let (v4, v6) = (of_family(&ranges(v4)), of_family(&ranges(v6)));
    let mut program = vec![
        (LOAD_OCTET, 0, 0, TYPE_LOW),
        (IF_EQUAL, 2, 0, RTM_NEWROUTE),
        (IF_EQUAL, 1, 0, RTM_DELROUTE),
        TAKE,
        (LOAD_OCTET, 0, 0, DESTINATION_LEN),
        (IF_EQUAL, 0, 1, 0),
        TAKE,
        (STORE, 0, 0, LEN),
        (LOAD_X_NUMBER, 0, 0, u32::from(libc::RTA_DST)),
        (LOAD_NUMBER, 0, 0, ATTRIBUTES),
        (LOAD_WORD, 0, 0, FIND_ATTRIBUTE),
        (IF_EQUAL, 0, 1, 0),
        TAKE,
        (TO_X, 0, 0, 0),
        (LOAD_AT_X, 0, 0, ATTRIBUTE_HEADER),
        (STORE, 0, 0, FIRST),
        // What lies behind the prefix: all ones, shifted by its length, in two steps as 32 is too many for one.
        (LOAD, 0, 0, LEN),
        (IF_GREATER, 0, 1, 32),
        (LOAD_NUMBER, 0, 0, 32),
        (SUBTRACT, 0, 0, 1),
        (TO_X, 0, 0, 0),
        (LOAD_NUMBER, 0, 0, u32::MAX),
        (SHIFT_BY_X, 0, 0, 0),
        (SHIFT, 0, 0, 1),
        (LOAD_X, 0, 0, FIRST),
        (OR_X, 0, 0, 0),
        (STORE, 0, 0, LAST),
        (LOAD_OCTET, 0, 0, FAMILY),
        (IF_EQUAL, 0, 1, libc::AF_INET as u32),
        (GO, 0, 0, 2 + v6.len() as u32),
        (IF_EQUAL, 1, 0, libc::AF_INET6 as u32),
        TAKE,
    ];
    program.extend(v6);
    program.extend(v4);
    program
}

/// Sorted, disjoint ranges that contain all `numbers`: few, and therefore perhaps others as well.
fn ranges(numbers: impl Iterator<Item = u32>) -> Vec<(u32, u32)> {
    let mut ranges: Vec<(u32, u32)> = numbers.map(|number| (number, number)).collect();
    ranges.sort_unstable();
    ranges.dedup();
    if ranges.len() > MAX_RANGES {
        // The widest gaps stay.
        let mut gaps: Vec<u32> = ranges.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
        gaps.sort_unstable_by(|one, other| other.cmp(one));
        let least = gaps[MAX_RANGES - 2];
        let mut kept: Vec<(u32, u32)> = Vec::with_capacity(MAX_RANGES);
        for (low, high) in ranges {
            match kept.last_mut() {
                Some(last) if low - last.1 <= least => last.1 = high,
                _ => kept.push((low, high)),
            }
        }
        return kept;
    }
    ranges
}

fn of_family(ranges: &[(u32, u32)]) -> Vec<Instruction> {
    let Some((_, highest)) = ranges.last() else { return vec![LEAVE] };
    let mut program = vec![(LOAD, 0, 0, FIRST), (IF_GREATER, 0, 1, *highest), LEAVE];
    program.extend(search(ranges));
    program
}

/// Takes the message if a range meets `FIRST..=LAST`: the lowest range that does not end before `FIRST`, which there is, decides.
fn search(ranges: &[(u32, u32)]) -> Vec<Instruction> {
    match ranges {
        [] => vec![LEAVE],
        [(low, _)] if ranges.len() == 1 => {
            vec![(LOAD, 0, 0, LAST), (IF_NOT_LESS, 0, 1, *low), TAKE, LEAVE]
        }
        _ => {
            let (left, right) = ranges.split_at(ranges.len() / 2);
            let highest = left.last().map_or(0, |(_, high)| *high);
            let (left, right) = (search(left), search(right));
            let mut program = vec![
                (LOAD, 0, 0, FIRST),
                (IF_GREATER, 0, 1, highest),
                (GO, 0, 0, left.len() as u32),
            ];
            program.extend(left);
            program.extend(right);
            program
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::IpNet;

    /// What the kernel does with a route to `prefix`; the instructions of this program only.
    fn takes(program: &[Instruction], prefix: IpNet) -> bool {
        let (address, family) = match prefix.addr() {
            IpAddr::V4(v4) => (v4.to_bits(), libc::AF_INET as u32),
            IpAddr::V6(v6) => ((v6.to_bits() >> 96) as u32, libc::AF_INET6 as u32),
        };
        let (mut a, mut x, mut memory, mut at) = (0u32, 0u32, [0u32; 3], 0usize);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let branch = |condition: bool| usize::from(if condition { jt } else { jf });
            match code {
                LOAD_OCTET if k == TYPE_LOW => a = RTM_NEWROUTE,
                LOAD_OCTET if k == DESTINATION_LEN => a = prefix.prefix_len().into(),
                LOAD_OCTET if k == FAMILY => a = family,
                LOAD_WORD => a = 36,
                LOAD_AT_X => a = address,
                LOAD_NUMBER => a = k,
                LOAD => a = memory[k as usize],
                LOAD_X_NUMBER => x = k,
                LOAD_X => x = memory[k as usize],
                STORE => memory[k as usize] = a,
                TO_X => x = a,
                SUBTRACT => a -= k,
                SHIFT_BY_X => a >>= x,
                SHIFT => a >>= k,
                OR_X => a |= x,
                IF_EQUAL => at += branch(a == k),
                IF_GREATER => at += branch(a > k),
                IF_NOT_LESS => at += branch(a >= k),
                GO => at += k as usize,
                RETURN => return k != 0,
                other => panic!("{other:#x}"),
            }
        }
    }

    fn net(text: &str) -> IpNet {
        text.parse().expect("prefix")
    }

    #[test]
    fn pb_16_only_routes_that_may_cover_an_rloc_wake_anybody() {
        let rlocs = ["192.0.2.77", "198.51.100.1", "2001:db8:c0::1"];
        let rlocs = rlocs.iter().map(|text| text.parse().expect("address")).collect();
        let program = instructions(&rlocs);
        for (prefix, taken) in [
            ("0.0.0.0/0", true),
            ("::/0", true),
            ("192.0.2.77/32", true),
            ("192.0.2.76/32", false),
            ("192.0.2.78/32", false),
            ("192.0.2.0/24", true),
            ("192.0.2.128/25", false),
            ("192.0.0.0/8", true),
            ("193.0.0.0/8", false),
            ("128.0.0.0/1", true),
            ("0.0.0.0/1", false),
            ("198.51.100.0/31", true),
            ("198.51.100.2/31", false),
            ("2001:db8::/32", true),
            ("2001:db8:c0::1/128", true),
            // The first 32 bits agree.
            ("2001:db8:c1::/48", true),
            ("2001:db9::/32", false),
            ("2000::/3", true),
            ("4000::/3", false),
        ] {
            assert_eq!(takes(&program, net(prefix)), taken, "{prefix}");
        }
        assert!(!takes(&instructions(&BTreeSet::new()), net("192.0.2.0/24")));
    }

    #[test]
    fn pb_16_the_program_agrees_with_a_plain_search_and_stays_small() {
        use rand::rngs::StdRng;
        use rand::{RngExt, SeedableRng};
        let mut rng = StdRng::from_seed([5; 32]);
        for count in [1usize, 2, 3, 100, 250, 10_000] {
            let mut rlocs = BTreeSet::new();
            for _ in 0..count {
                let v4 = std::net::Ipv4Addr::from_bits(rng.random::<u32>() & 0x0f0f_ffff);
                let v6 = std::net::Ipv6Addr::from_bits(rng.random());
                rlocs.extend([IpAddr::from(v4), IpAddr::from(v6)]);
            }
            let program = instructions(&rlocs);
            assert!(program.len() <= 4096, "{count}: {}", program.len());
            for _ in 0..2_000 {
                let address = std::net::Ipv4Addr::from_bits(rng.random::<u32>() & 0x0f0f_ffff);
                let prefix = ipnet::Ipv4Net::new_assert(address, rng.random_range(1..=32)).trunc();
                let covers = rlocs.iter().any(|rloc| IpNet::from(prefix).contains(rloc));
                let taken = takes(&program, prefix.into());
                assert!(taken || !covers, "{count} {prefix}");
                assert!(!taken || covers || count > MAX_RANGES, "{count} {prefix}");
            }
        }
    }
}
