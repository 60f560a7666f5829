//! Owns the classic BPF program that the kernel runs on every frame before the agent is woken for
//! it: only what may be a magic packet passes.
//!
//! Frames of EtherType 0x0842 pass, and UDP datagrams to any port whose payload starts with the
//! synchronization stream; both behind up to two VLAN tags besides the outermost one, which the
//! kernel has taken off. The program saves work and decides nothing: [`crate::frame`] and
//! [`crate::packet`] look at everything again.

use std::collections::HashMap;

/// One instruction of a classic BPF program (`struct sock_filter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jump_true: u8,
    pub(super) jump_false: u8,
    pub(super) k: u32,
}

/// Operation codes (`linux/bpf_common.h`). A is the accumulator, X the index register.
pub(super) mod code {
    /// A = the 4 bytes at k
    pub(in crate::agent) const LOAD_WORD: u16 = 0x20;
    /// A = the 2 bytes at k
    pub(in crate::agent) const LOAD_HALF: u16 = 0x28;
    /// A = the byte at k
    pub(in crate::agent) const LOAD_BYTE: u16 = 0x30;
    /// A = the 4 bytes at X + k
    pub(in crate::agent) const LOAD_WORD_INDEXED: u16 = 0x40;
    /// A = the 2 bytes at X + k
    pub(in crate::agent) const LOAD_HALF_INDEXED: u16 = 0x48;
    /// X = four times the low half of the byte at k: the length of an IPv4 header
    pub(in crate::agent) const LOAD_HEADER_LENGTH: u16 = 0xb1;
    /// whether A = k
    pub(in crate::agent) const EQUAL: u16 = 0x15;
    /// whether A and k have a bit in common
    pub(in crate::agent) const ANY_BIT: u16 = 0x45;
    /// pass k bytes of the frame; none drops it
    pub(in crate::agent) const RETURN: u16 = 0x06;
}

/// Longer than any frame: the whole frame passes.
const WHOLE_FRAME: u32 = 0x4_0000;

/// In-band VLAN tags that are looked behind.
const MAX_TAGS: u32 = 2;

const WAKE_ON_LAN: u32 = 0x0842;
const IPV4: u32 = 0x0800;
const IPV6: u32 = 0x86dd;
const VLAN: [u32; 2] = [0x8100, 0x88a8];
const UDP: u32 = 17;
const UDP_HEADER: u32 = 8;

/// Where a jump goes; blocks are named by the number of in-band tags before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Label {
    EtherType(u32),
    Ipv4(u32),
    Ipv6(u32),
    Pass,
    Drop,
    /// The next instruction.
    Next,
}

/// An instruction whose jumps are still labels.
type Step = (u16, u32, Label, Label);

/// The program.
pub(super) fn program() -> Vec<Instruction> {
    let mut blocks = Vec::new();
    for tags in 0..=MAX_TAGS {
        blocks.push((Label::EtherType(tags), ether_type(tags)));
    }
    for tags in 0..=MAX_TAGS {
        blocks.push((Label::Ipv4(tags), ipv4(tags)));
        blocks.push((Label::Ipv6(tags), ipv6(tags)));
    }
    blocks.push((Label::Pass, vec![load(code::RETURN, WHOLE_FRAME)]));
    blocks.push((Label::Drop, vec![load(code::RETURN, 0)]));
    assemble(&blocks)
}

/// Looks at the `EtherType` after `tags` tags.
fn ether_type(tags: u32) -> Vec<Step> {
    use Label::{Drop, EtherType, Ipv4, Ipv6, Next, Pass};
    let mut steps = vec![
        load(code::LOAD_HALF, 12 + 4 * tags),
        (code::EQUAL, WAKE_ON_LAN, Pass, Next),
        (code::EQUAL, IPV4, Ipv4(tags), Next),
        (code::EQUAL, IPV6, Ipv6(tags), Next),
    ];
    if tags < MAX_TAGS {
        steps.push((code::EQUAL, VLAN[0], EtherType(tags + 1), Next));
        steps.push((code::EQUAL, VLAN[1], EtherType(tags + 1), Drop));
    } else {
        steps.push(load(code::RETURN, 0));
    }
    steps
}

/// Looks at an IPv4 datagram: UDP, not a later fragment, six bytes of 0xFF after its headers.
fn ipv4(tags: u32) -> Vec<Step> {
    use Label::{Drop, Next, Pass};
    let header = 14 + 4 * tags;
    vec![
        load(code::LOAD_BYTE, header + 9),
        (code::EQUAL, UDP, Next, Drop),
        load(code::LOAD_HALF, header + 6),
        (code::ANY_BIT, 0x1fff, Drop, Next),
        load(code::LOAD_HEADER_LENGTH, header),
        load(code::LOAD_WORD_INDEXED, header + UDP_HEADER),
        (code::EQUAL, 0xffff_ffff, Next, Drop),
        load(code::LOAD_HALF_INDEXED, header + UDP_HEADER + 4),
        (code::EQUAL, 0xffff, Pass, Drop),
    ]
}

/// Looks at an IPv6 datagram: UDP right after the header, six bytes of 0xFF after both.
fn ipv6(tags: u32) -> Vec<Step> {
    use Label::{Drop, Next, Pass};
    let header = 14 + 4 * tags;
    let payload = header + 40 + UDP_HEADER;
    vec![
        load(code::LOAD_BYTE, header + 6),
        (code::EQUAL, UDP, Next, Drop),
        load(code::LOAD_WORD, payload),
        (code::EQUAL, 0xffff_ffff, Next, Drop),
        load(code::LOAD_HALF, payload + 4),
        (code::EQUAL, 0xffff, Pass, Drop),
    ]
}

/// An instruction that does not jump.
const fn load(code: u16, k: u32) -> Step {
    (code, k, Label::Next, Label::Next)
}

/// Turns labels into distances, which count from the next instruction.
fn assemble(blocks: &[(Label, Vec<Step>)]) -> Vec<Instruction> {
    let mut starts = HashMap::new();
    let mut length = 0;
    for (label, steps) in blocks {
        starts.insert(*label, length);
        length += steps.len();
    }
    let distance = |from: usize, to: Label| {
        let start = starts.get(&to).copied().unwrap_or(from + 1);
        u8::try_from(start - from - 1).unwrap_or(u8::MAX)
    };
    let steps = blocks.iter().flat_map(|(_, steps)| steps);
    steps
        .enumerate()
        .map(|(at, &(code, k, yes, no))| Instruction {
            code,
            jump_true: distance(at, yes),
            jump_false: distance(at, no),
            k,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel does: a load beyond the frame drops it.
    fn passes(frame: &[u8]) -> bool {
        run(&program(), frame).unwrap_or(0) > 0
    }

    fn run(program: &[Instruction], frame: &[u8]) -> Option<u32> {
        let (mut a, mut x, mut at) = (0_u32, 0_u32, 0_usize);
        let load = |from: u32, bytes: usize| {
            let from = from as usize;
            let bytes = frame.get(from..from + bytes)?;
            Some(bytes.iter().fold(0, |word, b| word << 8 | u32::from(*b)))
        };
        loop {
            let step = program[at];
            at += 1;
            let jump = |yes| usize::from(if yes { step.jump_true } else { step.jump_false });
            match step.code {
                code::LOAD_WORD => a = load(step.k, 4)?,
                code::LOAD_HALF => a = load(step.k, 2)?,
                code::LOAD_BYTE => a = load(step.k, 1)?,
                code::LOAD_WORD_INDEXED => a = load(x + step.k, 4)?,
                code::LOAD_HALF_INDEXED => a = load(x + step.k, 2)?,
                code::LOAD_HEADER_LENGTH => x = (load(step.k, 1)? & 0xf) * 4,
                code::EQUAL => at += jump(a == step.k),
                code::ANY_BIT => at += jump(a & step.k != 0),
                code::RETURN => return Some(step.k),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn with_magic(headers: &str) -> Vec<u8> {
        let magic = "ff".repeat(6) + &"525400123456".repeat(16);
        bytes(&(headers.to_owned() + &magic))
    }

    const ETHERNET: &str = "ffffffffffff 02aa00000001";
    const IPV4_UDP: &str = "4500 0082f094400040113f890a4d0001ffffffff e2f10009006e0acd";
    const IPV6_UDP: &str = "6007e39f006e1101 fe8000000000000000aa00fffe000001 \
        ff020000000000000000000000000001 8d740009006efdae";

    #[test]
    fn magic_frames_of_every_carrier_pass_behind_up_to_two_tags() {
        for tags in ["", "8100000a", "88a80064 81000005", "81000001 81000002"] {
            for carrier in [
                "0842",
                &format!("0800 {IPV4_UDP}"),
                &format!("86dd {IPV6_UDP}"),
            ] {
                let frame = with_magic(&format!("{ETHERNET} {tags} {carrier}"));
                assert!(passes(&frame), "{tags:?} {carrier:?}");
            }
        }
    }

    #[test]
    fn a_unicast_frame_to_the_target_passes() {
        assert!(passes(&with_magic("525400123456 02aa00000001 0842")));
    }

    #[test]
    fn a_datagram_with_ip_options_passes_by_its_true_payload() {
        let options = "4600 0086f094400040113f890a4d0001ffffffff 01010100 e2f10009006e0acd";
        assert!(passes(&with_magic(&format!("{ETHERNET} 0800 {options}"))));
    }

    #[test]
    fn a_datagram_to_any_port_passes() {
        for port in ["0000", "0001", "9c40", "ffff"] {
            let ip = IPV4_UDP.replace("e2f10009", &format!("e2f1{port}"));
            assert!(
                passes(&with_magic(&format!("{ETHERNET} 0800 {ip}"))),
                "{port}"
            );
        }
    }

    #[test]
    fn other_traffic_is_dropped() {
        let junk = format!("{ETHERNET} 0800 {IPV4_UDP} {}", "00".repeat(102));
        assert!(!passes(&bytes(&junk)), "junk on port 9");
        for (what, headers) in [
            (
                "three tags",
                format!("{ETHERNET} 81000001 81000002 81000003 0842"),
            ),
            ("ARP", format!("{ETHERNET} 0806")),
            (
                "TCP",
                format!("{ETHERNET} 0800 {}", IPV4_UDP.replace("4011", "4006")),
            ),
            (
                "a later fragment",
                format!("{ETHERNET} 0800 {}", IPV4_UDP.replace("4000", "2001")),
            ),
            ("five of 0xFF", format!("{ETHERNET} 0800 {IPV4_UDP} 00")),
        ] {
            assert!(!passes(&with_magic(&headers)), "{what}");
        }
    }

    #[test]
    fn runts_are_dropped() {
        let whole = with_magic(&format!("{ETHERNET} 0800 {IPV4_UDP}"));
        for length in 0..48 {
            assert!(!passes(&whole[..length]), "{length} bytes");
        }
    }

    #[test]
    fn the_program_has_the_length_that_jumps_can_span() {
        assert_eq!(program().len(), 64);
    }
}
