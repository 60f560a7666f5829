//! Owns the watches of `VirtualMachine` and `WolConfig`, which keep the directory and the agents'
//! settings up to date for as long as the manager runs.

use std::sync::Arc;

use crate::manager::vm::Vm;

/// Who wants to know of each change of a VM, after the directory has it. Called from the watch:
/// must return at once.
pub trait Observer: Send + Sync {
    /// The VM is new, or not as it was.
    fn changed(&self, vm: &Arc<Vm>);
    /// The VM is gone; this is what was last known of it.
    fn deleted(&self, vm: &Arc<Vm>);
}
