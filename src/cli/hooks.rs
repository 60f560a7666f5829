//! Owns the hidden flags by which the tests of faults set the pace, and break what they test. A program for
//! people has none of them.

use clap::Args;

#[cfg(debug_assertions)]
use crate::{
    pace,
    sabotage::{self, Mechanism},
};

/// What no person sets.
#[derive(Debug, Clone, Args)]
pub struct HookArgs {
    /// For tests: every time of the delivery contract passes so many times as fast.
    #[cfg(debug_assertions)]
    #[arg(
        long,
        global = true,
        hide = true,
        env = "WOL_TIME_SCALE",
        value_name = "N",
        default_value = "1",
        value_parser = pace::parse
    )]
    pub time_scale: f64,
    /// For tests: turns mechanisms of the delivery contract off.
    #[cfg(debug_assertions)]
    #[arg(
        long,
        global = true,
        hide = true,
        env = "WOL_SABOTAGE",
        value_name = "WHAT",
        value_enum,
        value_delimiter = ','
    )]
    pub sabotage: Vec<Mechanism>,
}

impl HookArgs {
    /// Puts them into force for this process, and says so: a copy of a test's command line must
    /// not go unseen.
    pub fn apply(&self) {
        #[cfg(debug_assertions)]
        {
            pace::set(self.time_scale);
            if self.time_scale > 1.0 {
                let scale = self.time_scale;
                tracing::warn!(scale, "for tests: times are shorter than promised");
            }
            sabotage::set(&self.sabotage);
            if !self.sabotage.is_empty() {
                let off = &self.sabotage;
                tracing::warn!(?off, "for tests: parts of the delivery contract are off");
            }
        }
    }
}
