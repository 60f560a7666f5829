//! The directory: which VM a magic packet means, and which packets may wake it.

mod changes;
mod fixture;
mod selection;
