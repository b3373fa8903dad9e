//! API keys: what they look like, how they are kept, and who has which.

mod file;
mod hash;
mod holders;
mod secret;

pub use file::KeyFileError;
pub(crate) use file::{ANONYMOUS, KeyTerms, parse};
pub use hash::KeyHash;
pub(crate) use holders::Holders;
pub(crate) use secret::{Bearer, bearer};
pub use secret::{Secret, WeakKey};
