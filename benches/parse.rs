//! How long it takes to find magic packets: in what real senders send, and in the worst that fits
//! into a datagram. No input may cost more than a few microseconds per thousand bytes.

use divan::{Bencher, black_box, counter::BytesCount};
use kubevirt_wol::{frame, packet};

#[path = "../tests/fixtures/mod.rs"]
mod fixtures;

use fixtures::{TARGET, magic};

/// The largest payload of a datagram over IPv4.
const LARGEST: usize = 65_507;

fn main() {
    divan::main();
}

fn scan(bencher: Bencher<'_, '_>, bytes: &[u8]) {
    bencher
        .counter(BytesCount::of_slice(bytes))
        .bench_local(|| packet::scan(black_box(bytes)));
}

fn repeated(piece: &[u8]) -> Vec<u8> {
    piece.iter().copied().cycle().take(LARGEST).collect()
}

#[divan::bench]
fn scan_102_bytes(bencher: Bencher<'_, '_>) {
    scan(bencher, &magic(TARGET));
}

#[divan::bench]
fn scan_1472_bytes_with_the_packet_at_the_end(bencher: Bencher<'_, '_>) {
    scan(bencher, &[vec![0x20; 1370], magic(TARGET)].concat());
}

#[divan::bench]
fn scan_largest_all_ff(bencher: Bencher<'_, '_>) {
    scan(bencher, &repeated(&[0xff]));
}

#[divan::bench]
fn scan_largest_syncs_and_zeros(bencher: Bencher<'_, '_>) {
    scan(bencher, &repeated(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]));
}

#[divan::bench]
fn scan_largest_packets_that_lack_a_byte(bencher: Bencher<'_, '_>) {
    scan(bencher, &repeated(&magic(TARGET)[..101]));
}

#[divan::bench]
fn scan_largest_one_target_642_times(bencher: Bencher<'_, '_>) {
    scan(bencher, &repeated(&magic(TARGET)));
}

#[divan::bench]
fn parse_the_frame_of_debian_wakeonlan(bencher: Bencher<'_, '_>) {
    let frame = fixtures::frame("V1");
    bencher
        .bench_local(|| frame::parse(black_box(&frame), None).map(|payload| payload.bytes.len()));
}

#[divan::bench]
fn parse_and_scan_the_frame_of_debian_wakeonlan(bencher: Bencher<'_, '_>) {
    let frame = fixtures::frame("V1");
    bencher.bench_local(|| {
        frame::parse(black_box(&frame), None)
            .ok()
            .map(|payload| packet::scan(payload.bytes))
    });
}
