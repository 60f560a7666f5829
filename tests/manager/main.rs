//! The manager: what becomes of a wake, and what agents see of it.

mod bed;
mod intents;
mod intents_model;
mod legacy;
mod service;
mod start;
mod world;
