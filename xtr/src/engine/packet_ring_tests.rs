//! The filter on the kernel's own virtual machine, judged by an oracle.
use super::*;
use ipnet::IpNet;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

const BPF_PROG_TEST_RUN: c_int = 10;

/// Of BPF_PROG_TEST_RUN.
#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    data_in_len: u32,
    data_out_len: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
}

/// What the program says to a frame.
fn run(program: &OwnedFd, frame: &[u8]) -> i32 {
    let mut run = TestRun {
        program: program.as_raw_fd().cast_unsigned(),
        result: 0,
        data_in_len: frame.len() as u32,
        data_out_len: 0,
        data_in: frame.as_ptr() as u64,
        data_out: 0,
        repeat: 1,
        duration: 0,
    };
    // SAFETY: the pointer in it is to `frame`, with its length; the kernel writes results into the rest, and nothing else has a
    // reference to it.
    let done = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_PROG_TEST_RUN,
            std::ptr::from_mut(&mut run),
            size_of::<TestRun>(),
        )
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    run.result.cast_signed()
}

fn load_or_skip(selection: &Selection) -> Option<OwnedFd> {
    match load(SCHED_CLS, &selection.program(FOR_GATE).expect("a program")) {
        Ok(program) => Some(program),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            println!("SKIP: no privilege to load programs: {error}");
            None
        }
        Err(error) => panic!("the kernel refuses the program: {error}"),
    }
}

/// An Ethernet frame to the device that the kernel runs programs with.
fn frame(destination: IpAddr) -> Vec<u8> {
    let mut frame = vec![0; 12];
    match destination {
        IpAddr::V4(destination) => {
            frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1]);
            frame.extend(destination.octets());
        }
        IpAddr::V6(destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 8, 17, 64]);
            frame.extend([0x20; 16]);
            frame.extend(destination.octets());
        }
    }
    frame.extend([0; 8]);
    frame
}

fn expected(take: &[IpNet], leave: &[IpNet], local: &[IpAddr], to: IpAddr) -> i32 {
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&to));
    if within(take) && !within(leave) && !local.contains(&to) {
        FOR_GATE.take
    } else {
        FOR_GATE.leave
    }
}

/// Addresses that have much in common.
fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        (0..4u32, 0..4u32).prop_map(|(high, low)| Ipv4Addr::from_bits(high << 30 | low).into()),
        (0..4u128, 0..4u128, 0..4u128).prop_map(|(high, middle, low)| {
            Ipv6Addr::from_bits(high << 126 | middle << 63 | low).into()
        }),
    ]
}

fn prefixes(most: usize) -> impl Strategy<Value = Vec<IpNet>> {
    let prefix = (address(), 0..=128u8).prop_map(|(address, len)| {
        let longest = if address.is_ipv4() { 32 } else { 128 };
        IpNet::new(address, len.min(longest)).expect("a prefix").trunc()
    });
    proptest::collection::vec(prefix, 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pi_03_the_kernel_selects_what_the_oracle_does(
        take in prefixes(6),
        leave in prefixes(6),
        local in proptest::collection::vec(address(), 0..6),
        to in proptest::collection::vec(address(), 1..40),
    ) {
        let selection = Selection::new(&take, &leave, &local);
        if let Some(program) = load_or_skip(&selection) {
            for to in to {
                prop_assert_eq!(
                    run(&program, &frame(to)), expected(&take, &leave, &local, to), "{}", to
                );
            }
        }
    }
}

#[test]
fn what_is_not_plain_forwarding_is_left() {
    let all: Vec<IpNet> = vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
    let Some(program) = load_or_skip(&Selection::new(&all, &[], &[])) else { return };
    let v4 = frame("203.0.113.1".parse().unwrap());
    let v6 = frame("2001:db8::1".parse().unwrap());
    for good in [&v4, &v6] {
        assert_eq!(run(&program, good), FOR_GATE.take);
    }
    let with = |frame: &[u8], at: usize, octet: u8| {
        let mut frame = frame.to_vec();
        frame[at] = octet;
        frame
    };
    // Not to this host on the link; a protocol of its own; options; the last hop.
    let left = [
        with(&v4, 0, 2),
        with(&v4, 12, 9),
        with(&v4, 14, 0x46),
        with(&v4, 14 + 8, 1),
        with(&v4, 14 + 8, 0),
        with(&v6, 14 + 6, 0),
        with(&v6, 14 + 7, 1),
    ];
    for frame in left {
        assert_eq!(run(&program, &frame), FOR_GATE.leave, "{frame:?}");
    }
}

#[test]
fn many_addresses_still_make_a_program() {
    let all: Vec<IpNet> = vec!["::/0".parse().unwrap()];
    let local: Vec<IpAddr> =
        (0..1_000u128).map(|n| Ipv6Addr::from_bits(0x2001 << 112 | n << 17).into()).collect();
    let selection = Selection::new(&all, &[], &local[..999]);
    let Some(program) = load_or_skip(&selection) else { return };
    assert_eq!(run(&program, &frame(local[998])), FOR_GATE.leave);
    assert_eq!(run(&program, &frame(local[999])), FOR_GATE.take);
    let too_many = Selection::new(&all, &[], &local).program(FOR_GATE);
    assert_eq!(too_many.unwrap_err().kind(), io::ErrorKind::InvalidInput);
}
