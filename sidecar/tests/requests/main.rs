//! A real sidecar between scripted workers: what its client sees, and what the workers are told.

mod bed;
mod drain;
mod fakes;
mod membership;
mod paths;
