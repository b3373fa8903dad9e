//! API keys: what they look like, how they are kept, and who has which.

mod file;
mod hash;
mod holders;
mod secret;

pub(crate) use file::{ANONYMOUS, KeyTerms, parse};
pub use file::{KeyFileError, check_key_file};
pub use hash::KeyHash;
pub(crate) use holders::Holders;
pub(crate) use secret::{Bearer, bearer};
pub use secret::{Secret, WeakKey};
