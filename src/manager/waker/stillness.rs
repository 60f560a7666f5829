//! Owns what the waker does after the process stood still, frozen or suspended: other managers may have
//! started VMs meanwhile, and their owners may have stopped them again.

use tokio::time::Instant;

use super::Waker;

impl Waker {
    /// Has the intents begin anew where the process stood still since this was looked at last. To be
    /// called before what they want is done, and before time passes for them: what would expire is
    /// handed back.
    pub(super) fn heed_pulse(&mut self) {
        let gaps = self.tools.pulse.gaps();
        if std::mem::replace(&mut self.gaps, gaps) == gaps {
            return;
        }
        let caught_up = self.tools.pulse.caught_up_at().into_std();
        let left = self
            .intents
            .stood_still(Instant::now().into_std(), caught_up);
        tracing::warn!(
            wakes = left.len(),
            "this manager stood still for a while; wakes that waited are reported anew"
        );
        for uid in left {
            self.unfollow(&uid);
        }
    }
}
