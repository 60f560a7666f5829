//! Owns [`Link`]: up to when every change of one watched resource is known. Pure.

use std::time::{Duration, Instant};

use super::{follow::WATCH_SECONDS, manners::Manners};
use crate::pace;

/// A watch that is well is answered anew every 30 s, and given up after 35 s without a word. A
/// longer silence is none of a healthy one, whether or not something has failed yet.
const SILENCE: Duration = Duration::from_secs(40);
/// At whatever pace, as watches have whole seconds.
const SHORTEST_SILENCE: Duration = Duration::from_secs(3);

/// A watch that was answered has brought by then what it resumes.
const BACKLOG: Duration = Duration::from_secs(2);
/// A watch that ends in good order is answered anew so soon.
const ANEW: Duration = Duration::from_secs(2);

/// The watch of one resource.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    /// The last sign of life but for `answered`.
    last: Instant,
    /// When the running watch was answered. The server may yet say that it has forgotten the
    /// version to resume from: then this was no contact.
    pub(super) answered: Option<Instant>,
    /// False before the first list and from a failure to what mends it.
    pub(super) connected: bool,
    /// Every change up to here is known for sure.
    known: Instant,
    /// When the list under way began: a page of it is as old as the first one.
    listing: Option<Instant>,
    /// When the backlog of the running watch has come; none where no watch runs.
    settles: Option<Instant>,
    pub(super) manners: Manners,
}

impl Link {
    /// No contact yet.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: now,
            answered: None,
            connected: false,
            known: now,
            listing: None,
            settles: None,
            manners: Manners::default(),
        }
    }

    fn heard(&self) -> Instant {
        self.answered.map_or(self.last, |at| at.max(self.last))
    }

    fn quiet(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.heard())
    }

    pub(super) fn is_connected(&self, now: Instant) -> bool {
        self.connected && self.quiet(now) <= pace::of(SILENCE).max(SHORTEST_SILENCE)
    }

    /// For how long changes may have escaped us, as far as the directory as a whole goes.
    pub(super) fn age(&self, now: Instant) -> Duration {
        if self.is_connected(now) {
            Duration::ZERO
        } else {
            self.quiet(now)
        }
    }

    fn has_settled(&self, now: Instant) -> bool {
        self.connected && self.settles.is_some_and(|at| now >= at)
    }

    /// When a change that is noticed now, or is yet to be noticed, happened at the earliest.
    pub(super) fn earliest(&self, now: Instant) -> Instant {
        match (self.has_settled(now), self.is_connected(now)) {
            (true, true) => now,
            (true, false) => self.heard(),
            (false, _) => self.known,
        }
    }

    /// What a running watch has brought is known; to be called before anything else happens to it.
    fn catch_up(&mut self, now: Instant) {
        if self.has_settled(now) {
            self.known = self.known.max(self.heard());
        }
    }

    /// A list begins.
    pub(super) fn listing(&mut self, now: Instant) {
        self.catch_up(now);
        self.listing = Some(now);
    }

    /// A list is complete: it says what was when it began, and the watch after it what came then.
    pub(super) fn listed(&mut self, now: Instant) {
        self.known = self.known.max(self.listing.take().unwrap_or(now));
        (self.last, self.connected, self.settles) = (now, true, None);
    }

    /// All is known: the resource does not exist.
    pub(super) fn made(&mut self, now: Instant) {
        (self.known, self.listing) = (now, None);
        (self.last, self.connected, self.settles) = (now, true, Some(now));
    }

    /// The watch brought an event.
    pub(super) fn event(&mut self, now: Instant) {
        self.catch_up(now);
        if !self.is_connected(now) {
            self.settles = Some(now + pace::of(BACKLOG));
        }
        (self.last, self.connected) = (now, true);
    }

    /// A watch has begun. Unless the one before it ended in good order just now, it has yet to bring
    /// what happened in between.
    pub(super) fn answered(&mut self, now: Instant) {
        self.catch_up(now);
        let watch = pace::whole_seconds(WATCH_SECONDS);
        let whole = Duration::from_secs(watch.into()) + pace::of(ANEW);
        if self.settles.is_none() || !self.connected || self.quiet(now) > whole {
            self.settles = Some(now + pace::of(BACKLOG));
        }
        (self.answered, self.connected) = (Some(now), true);
        self.manners.answered(now);
    }

    /// A list or a watch has failed; `forgotten` where the server does not know any more what came
    /// after the version that we have.
    pub(super) fn lost(&mut self, forgotten: bool, now: Instant) {
        self.catch_up(now);
        let answered = self.answered.take().filter(|_| !forgotten);
        self.last = answered.map_or(self.last, |at| at.max(self.last));
        (self.connected, self.settles, self.listing) = (false, None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A link that has been watched for a while at the moment that is returned.
    fn watched() -> (Instant, Link) {
        let begin = Instant::now();
        let mut link = Link::new(begin);
        link.listing(begin);
        link.listed(begin + 10 * SECOND);
        link.answered(begin + 11 * SECOND);
        (begin + 20 * SECOND, link)
    }

    #[test]
    fn the_backlog_of_an_outage_may_be_as_old_as_the_outage() {
        let (start, mut link) = watched();
        let at = |seconds| start + seconds * SECOND;
        assert_eq!(link.earliest(at(7)), at(7));
        link.event(at(8));
        link.lost(false, at(10));
        assert_eq!(link.earliest(at(15)), at(8), "in the list that follows");
        link.answered(at(20));
        assert_eq!(link.earliest(at(21)), at(8));
        link.event(at(21));
        assert_eq!(link.earliest(at(21)), at(8), "one event is not all of it");
        assert_eq!(link.earliest(at(22)), at(22));
        link.answered(at(50));
        assert_eq!(link.earliest(at(50)), at(50), "nothing was missed");
    }

    #[test]
    fn a_watch_that_breaks_before_it_has_brought_anything_has_told_of_nothing() {
        let (start, mut link) = watched();
        let at = |seconds| start + seconds * SECOND;
        link.event(at(8));
        link.lost(false, at(10));
        link.answered(at(20));
        link.lost(false, at(21));
        assert_eq!(link.earliest(at(22)), at(8));
        link.answered(at(30));
        assert_eq!(link.earliest(at(31)), at(8));
        assert_eq!(link.earliest(at(33)), at(33));
    }

    #[test]
    fn a_list_says_what_was_when_it_began() {
        let (start, mut link) = watched();
        let at = |seconds| start + seconds * SECOND;
        link.event(at(8));
        link.lost(true, at(10));
        link.listing(at(11));
        assert_eq!(link.earliest(at(20)), at(8));
        link.listed(at(20));
        assert_eq!(link.earliest(at(24)), at(11), "the watch has yet to begin");
        link.answered(at(25));
        assert_eq!(link.earliest(at(26)), at(11));
        assert_eq!(link.earliest(at(27)), at(27));
    }

    #[test]
    fn the_end_of_a_silence_brings_what_was_missed() {
        let (start, mut link) = watched();
        let at = |seconds| start + seconds * SECOND;
        link.event(at(8));
        assert_eq!(link.earliest(at(48)), at(48));
        assert_eq!(link.earliest(at(49)), at(8), "no sign of life");
        link.event(at(60));
        assert_eq!(link.earliest(at(61)), at(8));
        assert_eq!(link.earliest(at(62)), at(62));
        // One that was given up after 35 s is answered anew, and nothing has failed.
        link.answered(at(96));
        assert_eq!(link.earliest(at(97)), at(60));
        assert_eq!(link.earliest(at(98)), at(98));
    }

    #[test]
    fn what_does_not_exist_has_no_backlog() {
        let start = Instant::now();
        let mut link = Link::new(start);
        link.listing(start);
        link.made(start + SECOND);
        let later = start + 5 * SECOND;
        assert_eq!(link.earliest(later), later);
    }
}
