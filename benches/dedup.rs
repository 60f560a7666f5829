//! How long the deduplication of one packet takes, and how many bytes each key costs.

use std::time::{Duration, Instant};

use divan::{AllocProfiler, Bencher, black_box};
use kubevirt_wol::{
    dedup::{Verdict, Window},
    mac::MacAddr,
    packet::Trailing,
};

/// Reports what each benchmark allocates.
#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

const LENGTH: Duration = Duration::from_secs(2);

/// As many keys as an agent remembers, and many more.
const KEYS: [u32; 2] = [32_768, 1_000_000];

type Key = (MacAddr, Trailing);

fn main() {
    divan::main();
}

fn key(number: u32) -> Key {
    let [a, b, c, d] = number.to_be_bytes();
    (MacAddr::new([2, 0, a, b, c, d]), Trailing::cut(&[]))
}

fn full(keys: u32, now: Instant) -> Window<Key> {
    let mut window = Window::new(LENGTH, keys as usize);
    for number in 0..keys {
        window.admit(key(number), now);
    }
    window
}

/// The largest `max alloc` divided by the number of keys is the price of a key.
#[divan::bench(args = KEYS, sample_count = 3, sample_size = 1)]
fn fill(keys: u32) -> Window<Key> {
    full(keys, Instant::now())
}

/// A key that is not in the window, which is full: the oldest one goes.
#[divan::bench(args = KEYS)]
fn admit_first(bencher: Bencher<'_, '_>, keys: u32) {
    let now = Instant::now();
    let mut window = full(keys, now);
    let mut number = keys;
    bencher.bench_local(|| {
        number += 1;
        assert_eq!(window.admit(black_box(key(number)), now), Verdict::First);
    });
}

/// A key that is in the window.
#[divan::bench(args = KEYS)]
fn admit_repeat(bencher: Bencher<'_, '_>, keys: u32) {
    let now = Instant::now();
    let mut window = full(keys, now);
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7_919) % keys;
        assert_eq!(window.admit(black_box(key(number)), now), Verdict::Repeat);
    });
}

/// The same, with the key forgotten each time.
#[divan::bench(args = KEYS)]
fn forget_and_admit(bencher: Bencher<'_, '_>, keys: u32) {
    let now = Instant::now();
    let mut window = full(keys, now);
    let mut number = 0;
    bencher.bench_local(|| {
        number = (number + 7_919) % keys;
        window.forget(black_box(&key(number)));
        assert_eq!(window.admit(key(number), now), Verdict::First);
    });
}
