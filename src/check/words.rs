//! Owns small words of the findings.

use std::time::Duration;

/// A time as people say it, in its largest unit or two.
pub(super) fn lasting(time: Duration) -> String {
    let (days, hours) = (time.as_secs() / 86_400, time.as_secs() / 3_600 % 24);
    let (minutes, seconds) = (time.as_secs() / 60 % 60, time.as_secs() % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, ..) => format!("{hours} h {minutes} min"),
        (1..7, ..) => format!("{days} d {hours} h"),
        _ => format!("{days} days"),
    }
}

/// The first of several, and how many there are beside.
pub(super) fn first(all: &[String], most: usize) -> String {
    let named = all.iter().take(most).cloned().collect::<Vec<_>>();
    match all.len().saturating_sub(most) {
        0 => named.join("; "),
        more => format!("{}; and {more} more", named.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_as_precisely_as_it_matters() {
        for (seconds, told) in [
            (7, "7 s"),
            (61, "1 min"),
            (3_600 * 5 + 60, "5 h 1 min"),
            (86_400 * 6 + 3_600, "6 d 1 h"),
            (86_400 * 200, "200 days"),
        ] {
            assert_eq!(lasting(Duration::from_secs(seconds)), told);
        }
    }

    #[test]
    fn of_many_the_first_are_named_and_the_rest_counted() {
        let all = ["a", "b", "c"].map(str::to_owned);
        assert_eq!(first(&all, 3), "a; b; c");
        assert_eq!(first(&all, 1), "a; and 2 more");
    }
}
