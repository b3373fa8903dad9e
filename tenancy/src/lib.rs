//! Who may use the front, how much of it, and what they used: API keys, limits, usage and an audit log.
//!
//! ```text
//!  headers read ──► Tenancy::begin ──► Call ──► model ──► prompt ──► generated … ──► dropped
//!                    who is it? 401            403       429                        usage, audit line
//!                    requests, places 429
//! ```
//!
//! A front asks at each of these points and does what the answer says; header values come in as bytes and go out as text, so
//! that nothing here knows of HTTP. [`TenancyArgs`] are the options, [`Tenancy::open`] makes the rest of them.
//!
//! Without keys everybody is served, as "anonymous", and counted.
//!
//! Deliberately absent: sharing limits between several fronts (each one grants the whole limit), which would need a shared
//! store in the way of every request; and slow password hashes: keys are 256 random bits, which nobody guesses, however fast
//! a guess is, while a slow hash would let strangers keep our processors busy with wrong keys.
//!
//! # Invariants
//! - A key is never stored, logged or answered: files hold salted hashes, errors and logs hold names.
//! - Whether a key is right is found with the same work whether it exists or not, and compared in constant time.
//! - Over any time, a key is admitted no more than its limit for that time and one minute's worth more, whoever calls when.
//! - State and metrics are as many as configured keys. What strangers send leaves none behind.
//! - A key file that cannot be read changes nothing: the keys of the last good one stay.
//! - A line of the audit log is one write; lines of several processes in one file do not mix.

#![forbid(unsafe_code)]

mod args;
mod audit;
mod call;
mod clock;
mod key;
mod limit;
mod metrics;
mod refusal;
mod reload;
mod tenancy;

pub use args::{ApiKeyOption, TenancyArgs};
pub use audit::AuditError;
pub use call::{About, Call};
pub use clock::{Clock, ManualClock, Now, SystemClock};
pub use key::{KeyFileError, KeyHash, Secret, WeakKey, check_key_file};
pub use limit::Limited;
pub use refusal::Refusal;
pub use tenancy::{Tenancy, TenancyError, Tenant};
