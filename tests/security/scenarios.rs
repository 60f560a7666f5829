//! What a user sees of who is let in: a start in the API server's record or none, what the metrics
//! count, and what the log says to do.

#[path = "bed.rs"]
mod bed;
#[path = "certificates.rs"]
mod certificates;
#[path = "sessions.rs"]
mod sessions;
#[path = "strangers.rs"]
mod strangers;

pub(crate) use certificates::*;
pub(crate) use sessions::*;
pub(crate) use strangers::*;
