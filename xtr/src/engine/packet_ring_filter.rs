//! Which packets of an interface the ring takes, as an eBPF program.
//!
//! The same decision runs twice per packet: as the filter of the packet sockets, and as the gate behind them, which keeps the kernel
//! from forwarding what they took (see `packet_ring_gate`). Everything else stays with the kernel and comes through the TUN if at all:
//!
//! - what is not addressed to this host on the link, or carries a VLAN tag (it belongs to the VLAN's interface);
//! - destinations that are not to be taken, or are to be left: the host's own addresses, what routing keeps;
//! - TTL or Hop Limit 1: the kernel answers, with its own address, rate limit and statistics (EN-05);
//! - IPv4 options and IPv6 Hop-by-Hop Options: they are for the router, not for us;
//! - super-packets of anything but TCP and plain UDP, and larger than 65 535 octets: a virtio-net header cannot describe them.
use ipnet::IpNet;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;

/// More prefixes than this would make the program too long for its jumps, and too slow.
const MAX_PREFIXES: usize = 1_000;

/// UDP ports of tunnels whose super-packets a virtio-net header cannot describe: VXLAN (two), VXLAN-GPE, GENEVE.
const TUNNEL_PORTS: [i32; 4] = [4789, 8472, 4790, 6081];

/// Octets of the Ethernet header.
const L2: i32 = 14;
/// Offsets in `struct __sk_buff`.
const LEN: i16 = 0;
const PKT_TYPE: i16 = 4;
const PROTOCOL: i16 = 16;
const VLAN_PRESENT: i16 = 20;
const GSO_SIZE: i16 = 176;

/// What a program returns for a packet of the ring, and for any other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answers {
    pub(super) take: i32,
    pub(super) leave: i32,
}

/// Which destinations are taken.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Selection {
    /// Taken, but for those in `leave`.
    pub(super) take: Vec<IpNet>,
    /// Left to the kernel.
    pub(super) leave: Vec<IpNet>,
}

impl Selection {
    /// `take` without `leave` and without the addresses `local`; what cannot matter is left out.
    pub(super) fn new(take: &[IpNet], leave: &[IpNet], local: &[IpAddr]) -> Self {
        let take = IpNet::aggregate(&take.to_vec());
        let mut all: Vec<IpNet> = local.iter().copied().map(IpNet::from).collect();
        all.extend(leave);
        let mut leave = IpNet::aggregate(&all);
        leave.retain(|left| take.iter().any(|taken| taken.contains(left) || left.contains(taken)));
        Self { take, leave }
    }

    /// The program's instructions.
    ///
    /// # Errors
    /// `InvalidInput` for more prefixes than a program can hold.
    pub(super) fn program(&self, answers: Answers) -> io::Result<Vec<Instruction>> {
        if self.take.len() + self.leave.len() > MAX_PREFIXES {
            let text =
                format!("intake by ring takes at most {MAX_PREFIXES} prefixes and addresses");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let mut program = Program::default();
        program.decide(self, answers);
        program.finish()
    }
}

/// `struct bpf_insn`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// Where a jump goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Label {
    Take,
    Leave,
    V4,
    V6,
    Matched(bool),
    Udp(bool),
    Addresses(bool),
    Next(usize),
}

#[derive(Clone, Copy)]
enum Register {
    R0 = 0,
    R1 = 1,
    R2 = 2,
    /// The packet: where the instructions that read it expect it.
    R6 = 6,
    /// IPv4 destination; the first half of an IPv6 one.
    R7 = 7,
    /// The second half.
    R8 = 8,
}
use Register::{R0, R1, R2, R6, R7, R8};

const JEQ: u8 = 0x15;
const JNE: u8 = 0x55;
const JGT: u8 = 0x25;
const JLE: u8 = 0xb5;
const JLT: u8 = 0xa5;
/// Compares 32 bits, registers with a number.
const JEQ32: u8 = 0x16;
const LOAD_OCTET: u8 = 0x30;
const LOAD_SHORT: u8 = 0x28;
const LOAD_WORD: u8 = 0x20;

#[derive(Default)]
struct Program {
    instructions: Vec<Instruction>,
    jumps: Vec<(usize, Label)>,
    labels: HashMap<Label, usize>,
    next: usize,
}

impl Program {
    fn decide(&mut self, selection: &Selection, answers: Answers) {
        self.push(0xbf, R6, Some(R1), 0, 0);
        self.field(R2, PKT_TYPE);
        self.jump(JNE, R2, libc::PACKET_HOST.into(), Label::Leave);
        self.field(R2, VLAN_PRESENT);
        self.jump(JNE, R2, 0, Label::Leave);
        self.field(R2, PROTOCOL);
        for (ethertype, label) in [(libc::ETH_P_IP, Label::V4), (libc::ETH_P_IPV6, Label::V6)] {
            let in_memory = i32::from((ethertype as u16).to_be());
            self.jump(JEQ, R2, in_memory, label);
        }
        self.go(Label::Leave);
        self.label(Label::V4);
        self.fixed_v4();
        self.addresses(selection, true);
        self.label(Label::V6);
        self.fixed_v6();
        self.addresses(selection, false);
        for (label, answer) in [(Label::Take, answers.take), (Label::Leave, answers.leave)] {
            if self.jumps.iter().all(|(_, target)| *target != label) {
                continue;
            }
            self.label(label);
            self.push(0xb4, R0, None, 0, answer);
            self.push(0x95, R0, None, 0, 0);
        }
    }

    /// Length, options, TTL, kind of super-packet.
    fn fixed_v4(&mut self) {
        self.bound_length(L2 + 20, L2 + 0xffff);
        self.packet(LOAD_OCTET, L2);
        self.jump(JNE, R0, 0x45, Label::Leave);
        self.packet(LOAD_OCTET, L2 + 8);
        self.jump(JLE, R0, 1, Label::Leave);
        self.super_packet(true, L2 + 9, L2 + 20);
        self.packet(LOAD_WORD, L2 + 16);
        self.push(0xbf, R7, Some(R0), 0, 0);
    }

    fn fixed_v6(&mut self) {
        self.bound_length(L2 + 40, L2 + 0xffff);
        self.packet(LOAD_OCTET, L2 + 6);
        self.jump(JEQ, R0, 0, Label::Leave);
        self.packet(LOAD_OCTET, L2 + 7);
        self.jump(JLE, R0, 1, Label::Leave);
        self.super_packet(false, L2 + 6, L2 + 40);
        for (half, offset) in [(R7, L2 + 24), (R8, L2 + 32)] {
            self.packet(LOAD_WORD, offset);
            self.push(0xbf, half, Some(R0), 0, 0);
            self.push(0x67, half, None, 0, 32);
            self.packet(LOAD_WORD, offset + 4);
            self.push(0x4f, half, Some(R0), 0, 0);
        }
    }

    /// What is read later is there: a read beyond the end would end the program.
    fn bound_length(&mut self, least: i32, most: i32) {
        self.field(R2, LEN);
        self.jump(JLT, R2, least, Label::Leave);
        self.jump(JGT, R2, most, Label::Leave);
    }

    fn super_packet(&mut self, v4: bool, protocol: i32, transport: i32) {
        self.field(R2, GSO_SIZE);
        self.jump(JEQ, R2, 0, Label::Addresses(v4));
        self.packet(LOAD_OCTET, protocol);
        self.jump(JEQ, R0, libc::IPPROTO_TCP, Label::Addresses(v4));
        self.jump(JEQ, R0, libc::IPPROTO_UDP, Label::Udp(v4));
        self.go(Label::Leave);
        self.label(Label::Udp(v4));
        self.packet(LOAD_SHORT, transport + 2);
        for port in TUNNEL_PORTS {
            self.jump(JEQ, R0, port, Label::Leave);
        }
        self.label(Label::Addresses(v4));
    }

    fn addresses(&mut self, selection: &Selection, v4: bool) {
        let has_any = selection.take.iter().any(|prefix| prefix.addr().is_ipv4() == v4);
        self.match_any(&selection.take, v4, Label::Matched(v4), Label::Leave);
        if has_any {
            self.label(Label::Matched(v4));
            self.match_any(&selection.leave, v4, Label::Leave, Label::Take);
        }
    }

    fn match_any(&mut self, prefixes: &[IpNet], v4: bool, matched: Label, otherwise: Label) {
        let family: Vec<IpNet> =
            prefixes.iter().copied().filter(|prefix| prefix.addr().is_ipv4() == v4).collect();
        if family.iter().any(|prefix| prefix.prefix_len() == 0) {
            // The kernel refuses instructions that nothing leads to.
            return self.go(matched);
        }
        family.into_iter().for_each(|prefix| self.match_prefix(prefix, matched));
        self.go(otherwise);
    }

    /// `prefix` is not 0/0.
    fn match_prefix(&mut self, prefix: IpNet, matched: Label) {
        let len = prefix.prefix_len();
        match prefix.network() {
            IpAddr::V4(network) => {
                let shift = 32 - i32::from(len);
                self.push(0xbf, R2, Some(R7), 0, 0);
                self.push(0x77, R2, None, 0, shift);
                let wanted = network.to_bits() >> shift;
                self.jump(JEQ32, R2, wanted.cast_signed(), matched);
            }
            IpAddr::V6(network) => {
                let bits = network.to_bits();
                let halves = ((bits >> 64) as u64, bits as u64);
                let next = Label::Next(self.next);
                self.next += 1;
                if len <= 64 {
                    self.match_half(R7, halves.0, len, matched);
                } else {
                    self.wide(R1, halves.0);
                    self.jump_registers(0x5d, R7, R1, next);
                    self.match_half(R8, halves.1, len - 64, matched);
                }
                self.label(next);
            }
        }
    }

    /// Compares the first `len` bits, 1 to 64.
    fn match_half(&mut self, half: Register, wanted: u64, len: u8, matched: Label) {
        let shift = 64 - i32::from(len);
        self.push(0xbf, R2, Some(half), 0, 0);
        self.push(0x77, R2, None, 0, shift);
        self.wide(R1, wanted >> shift);
        self.jump_registers(0x1d, R2, R1, matched);
    }

    fn field(&mut self, to: Register, offset: i16) {
        self.push(0x61, to, Some(R6), offset, 0);
    }

    /// Reads the packet at `offset` into R0, in host byte order; R1 to R5 are lost.
    fn packet(&mut self, size: u8, offset: i32) {
        self.push(size, R0, None, 0, offset);
    }

    /// Loads a 64-bit number: an instruction of two.
    fn wide(&mut self, to: Register, value: u64) {
        self.push(0x18, to, None, 0, (value as u32).cast_signed());
        self.push(0, R0, None, 0, ((value >> 32) as u32).cast_signed());
    }

    fn jump(&mut self, condition: u8, register: Register, value: i32, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(condition, register, None, 0, value);
    }

    fn jump_registers(&mut self, condition: u8, left: Register, right: Register, to: Label) {
        self.jumps.push((self.instructions.len(), to));
        self.push(condition, left, Some(right), 0, 0);
    }

    fn go(&mut self, to: Label) {
        self.jump(0x05, R0, 0, to);
    }

    fn label(&mut self, label: Label) {
        self.labels.insert(label, self.instructions.len());
    }

    fn push(
        &mut self,
        code: u8,
        to: Register,
        from: Option<Register>,
        offset: i16,
        immediate: i32,
    ) {
        let registers = to as u8 | from.map_or(0, |register| register as u8) << 4;
        self.instructions.push(Instruction { code, registers, offset, immediate });
    }

    fn finish(mut self) -> io::Result<Vec<Instruction>> {
        for (at, label) in self.jumps {
            let target = self.labels.get(&label).map(|&target| target as i64 - at as i64 - 1);
            let offset = target.and_then(|offset| i16::try_from(offset).ok());
            self.instructions[at].offset =
                offset.ok_or_else(|| io::Error::other("a jump of the filter is too far"))?;
        }
        Ok(self.instructions)
    }
}
