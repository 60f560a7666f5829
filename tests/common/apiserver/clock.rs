//! Owns how times and unique identifiers are written.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

/// Now, to the second.
pub fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A fresh random UUID.
pub fn uid() -> String {
    let hex = format!("{:032x}", fastrand::u128(..));
    let [time, middle] = [&hex[..8], &hex[8..12]];
    format!(
        "{time}-{middle}-4{}-a{}-{}",
        &hex[13..16],
        &hex[17..20],
        &hex[20..]
    )
}

/// The time since then, as kubectl shows ages.
pub fn age(time: &str) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human(Timestamp::now().duration_since(time)),
        Err(_) => "<unknown>".to_owned(),
    }
}

fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |whole: i64, unit: char, rest: i64, small: char| {
        if rest == 0 {
            format!("{whole}{unit}")
        } else {
            format!("{whole}{unit}{rest}{small}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, 'm', seconds % 60, 's'),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, 'h', minutes % 60, 'm'),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, 'd', hours % 24, 'h'),
        _ if days < 730 => format!("{days}d"),
        _ => pair(days / 365, 'y', days % 365, 'd'),
    }
}
