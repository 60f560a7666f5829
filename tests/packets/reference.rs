//! Owns the naive scanner that the real one is compared with: it looks at every offset, and is as
//! plain as it is slow.

use kubevirt_wol::{
    mac::MacAddr,
    packet::{MAGIC_LEN, MagicPacket, Rejection, Trailing},
};

/// What a search at every offset finds: every first pattern of a station, however many.
pub(crate) fn search(bytes: &[u8]) -> Vec<MagicPacket> {
    let mut found: Vec<MagicPacket> = Vec::new();
    for (at, window) in bytes.windows(MAGIC_LEN).enumerate() {
        if window[0] != 0xff || window[..6] != [0xff; 6] {
            continue;
        }
        let address = &window[6..12];
        let target = MacAddr::new(address.try_into().unwrap());
        if window[6..]
            .chunks(6)
            .all(|repetition| repetition == address)
            && !target.is_group()
            && !target.is_zero()
            && found.iter().all(|packet| packet.target != target)
        {
            found.push(MagicPacket {
                target,
                trailing: Trailing::cut(&bytes[at + MAGIC_LEN..]),
            });
        }
    }
    found
}

/// Why a search at every offset finds nothing.
pub(crate) fn search_reason(bytes: &[u8]) -> Rejection {
    if bytes.len() < MAGIC_LEN {
        return Rejection::Short;
    }
    let syncs = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&[0xff; 6]));
    let reason = |at| match &bytes[at + 6..] {
        rest if rest.starts_with(&[0xff; 96]) => Rejection::GroupTarget,
        // Not the end of the synchronisation stream.
        [0xff, ..] => Rejection::NoSync,
        rest if rest.len() < 96 => Rejection::Truncated,
        rest if rest[..6].repeat(16) != rest[..96] => Rejection::Repetition,
        [first, ..] if first & 1 == 1 => Rejection::GroupTarget,
        _ => Rejection::ZeroTarget,
    };
    syncs.map(reason).max().unwrap_or(Rejection::NoSync)
}
