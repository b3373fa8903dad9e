//! Where each request goes, and at what cost: policy, pure.
//!
//! Everything here is plain data and functions: no I/O, no clock (whoever calls hands in `now`), no chance of its own (a request brings its dice), no log. So the
//! scheduler and a simulator run the very same code, and a decision can be computed again.
//!
//! ```text
//!  reports, events ─► view::FleetView ─┐
//!                                      ├─► decide::Decider ─► Decision ─► record::Record ─► explain, what if
//!  request ────────► view::RequestView ┘        ▲   filter (profile) → cost (estimate) → pick (profile)
//!  what then happened ─► learn::Learner ─ costs ┘
//!  admission::Admission: what may come in at all, and in which order
//!  placer::Placer: all of these together, told what happens
//! ```
//!
//! | module | what |
//! |---|---|
//! | [`view`] | what is known: workers, links, load, a request |
//! | [`cost`] | linear models of what work takes, and published constants |
//! | [`estimate`] | the parts of a place's cost, and the cheapest among all pairs |
//! | [`profile`] | filters, scorers, pickers by name; the YAML file |
//! | [`decide`] | one decision |
//! | [`learn`] | costs from what happened, output lengths, prediction errors |
//! | [`admission`] | room, objectives, the fair bounded queue |
//! | [`placer`] | all that decides on requests, in one piece |
//! | [`record`] | decisions kept, explained, recomputed |
//!
//! What is left out: which worker has which prefix (an index tells, as numbers), transport, and doing anything.
//!
//! Invariants:
//! - The search over pairs finds what looking at every pair would find.
//! - Costs that are learned are finite, not negative, and at most a thousand times what was believed first.
//! - Admission promises no more decode memory than there is, and every request that is offered has exactly one end.
#![forbid(unsafe_code)]

pub mod admission;
pub mod cost;
pub mod decide;
pub mod dice;
pub mod estimate;
pub mod learn;
pub mod placer;
pub mod profile;
pub mod record;
pub mod view;
