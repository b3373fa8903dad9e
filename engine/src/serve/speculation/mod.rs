//! Speculative decoding: several tokens of a sequence in one step, and the same tokens as without.
//!
//! ```text
//!   Propose ── drafts ──► cut ──► one step: last token + drafts, a row of logits after each ──► Sampler, row by row
//!   (n-grams, draft model)  │                                                                    │ as long as it chooses
//!      ▲                    └ grammar, ends, max_tokens, blocks                                  │ what was drafted
//!      └────────── depth: how many, by what was accepted and what rows cost ◄────────────────────┘
//! ```
//! Drafts are never believed. The sampler chooses each token from the logits after the tokens before it, as it would without
//! drafts, and its draw depends on the token's index alone; a draft only means that those logits are there already. So output is
//! the same for greedy and for sampled requests, with penalties, log-probabilities, grammars and ends, whatever is proposed.
//!
//! Keys and values of refused drafts lie behind the computed part of their sequence and are overwritten by the next step.
//! Nothing counts, stores, reports or hands over what lies there. Blocks that only drafts need are taken for one step, if there are
//! any, and given back after it: whether somebody is let in or preempted does not depend on drafts.

mod costs;
mod depth;
mod draft_model;
mod drafter;
mod ngram;
mod propose;

pub use draft_model::DraftModel;
pub use ngram::NgramLookup;
pub use propose::{DraftRequest, MAX_DRAFT_TOKENS, Propose, Speculation};

pub(super) use drafter::{DraftLimits, Drafter, Drafts};
