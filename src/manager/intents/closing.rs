//! Owns what becomes of the intents when the manager ends: what is under way is finished, the rest is
//! left to the other managers.

use std::time::Instant;

use super::{Intents, intent::Intent};

impl Intents {
    /// Starts nothing any more, and tells every reporter to keep its wake for another manager; only
    /// those of a start that is under way may yet hear what comes of it. To be called again as
    /// long as [`is_at_work`](Self::is_at_work), because a start may fail.
    pub fn close(&mut self, now: Instant) {
        self.closing = true;
        for intent in self.open.values_mut() {
            if !intent.is_in_hand() {
                intent.defer(now, true, &mut self.actions);
            }
        }
    }

    /// Whether a call is under way, or one was made and it is not known yet what came of it. That a VM is
    /// read before anything is decided is another manager's to do.
    #[must_use]
    pub fn is_at_work(&self) -> bool {
        let checks = self.open.values().filter(|intent| intent.is_checked());
        self.under_way > checks.count() || self.open.values().any(Intent::is_in_hand)
    }
}
