//! What `/proc` says of a running program.

use std::{fs, time::Duration};

/// Memory that is resident, in KiB.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The part of that which is not the program's file: what another process of it would cost.
pub(crate) fn own(pid: u32) -> u64 {
    status(pid, "RssAnon:")
}

/// The most that ever was resident.
pub(crate) fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

fn status(pid: u32, field: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse().ok())
        .expect("a number of kB")
}

/// Processor time so far, of all threads; the kernel counts it in hundredths of a second.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let ticks = fields
        .split(' ')
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

/// Bytes that the kernel has queued for the socket on a UDP port.
pub(crate) fn queued(port: u16) -> u64 {
    let end = format!(":{port:04X}");
    let tables = ["/proc/net/udp6", "/proc/net/udp"]
        .map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines());
    let bytes = rows.filter_map(|row| {
        let mut fields = row.split_whitespace().skip(1);
        let local = fields.next()?;
        let queues = fields.nth(2)?;
        let (_, received) = queues.split_once(':')?;
        local
            .ends_with(&end)
            .then(|| u64::from_str_radix(received, 16).ok())?
    });
    bytes.sum()
}
