//! The manager: what becomes of a wake, and what agents see of it.

mod intents;
mod intents_model;
mod start;
mod world;
