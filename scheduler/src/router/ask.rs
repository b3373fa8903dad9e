//! A request as the router sees it.

use std::sync::Arc;

use baton_policy::{admission::Refusal, view::Objective};

use super::Reach;
use crate::{epp::Asked, error::GenerateError};

/// A request to be routed.
#[derive(Clone, Debug)]
pub(crate) struct Ask<'a> {
    pub(crate) request_id: &'a str,
    /// Its tokens, as far as they are known.
    pub(crate) prompt: &'a [u32],
    /// How many there are, or about how many.
    pub(crate) prompt_tokens: u64,
    /// Its text, four bytes a number; what is sent to workers that do not tell their caches is remembered by it.
    pub(crate) text: &'a [u32],
    pub(crate) max_tokens: u64,
    pub(crate) adapter: Option<&'a str>,
    pub(crate) cache_salt: Option<&'a str>,
    /// Whose it is, for fairness; how long its answers are is learned by tenant, too.
    pub(crate) tenant: Arc<str>,
    pub(crate) priority: i32,
    /// Its tenant's share beside others'.
    pub(crate) weight: f64,
    pub(crate) objective: Objective,
    pub(crate) session: Option<&'a str>,
    /// By whom it would be sent.
    pub(crate) reach: Reach,
    /// `ip:port` of the only workers that may have it; `None`: all.
    pub(crate) subset: Option<&'a [String]>,
    /// What it asks for, as metrics say.
    pub(crate) asked: Asked<'a>,
    /// Bytes that it takes while it waits.
    pub(crate) bytes: u64,
}

/// Why a request goes nowhere.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refused {
    /// Nobody could serve it.
    Nobody(GenerateError),
    /// Not now.
    NotNow(Refusal),
}
