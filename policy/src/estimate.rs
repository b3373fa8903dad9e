//! What each place would cost a request, and those who are there, in milliseconds; and the search for the cheapest.
//!
//! A place is a prefill and a decode worker, or a decode worker alone, which then prefills for itself; so "disaggregate or not" is no
//! rule of its own but follows from the same numbers. Costs are sums of [`Term`]s, each with a weight.

mod objective;
mod search;
mod sides;
mod term;
mod tops;

pub use search::{Search, Span};
pub use sides::Sides;
pub use term::{Candidate, Term, Terms, Weights};
pub use tops::KEPT;
