//! Structured output: which tokens may come next, by a JSON schema, a regular expression or a grammar.
//!
//! ```text
//!   front:    schema, regex, tools ── source ──► text ── compile: is it a grammar? ──► with the request, to both workers
//!   workers:  text ── compile, or kept ──► Grammar ── start ──► GrammarState ── mask, accept ──► one sequence's tokens
//! ```
//!
//! A wrapper of [llguidance](https://github.com/guidance-ai/llguidance), the library under vLLM's, SGLang's and llama.cpp's
//! structured output: it needs no automaton over the vocabulary made in advance, so grammars compile in milliseconds. This crate
//! adds what a server needs: limits, a bounded cache, compiling off the serving threads, and states that share nothing.
//!
//! # Invariants
//! - What a grammar allows depends on its text, the vocabulary and the sequence's own tokens alone, so two workers agree on it.
//! - A token that ends a text is allowed exactly where the grammar is complete.
//! - Text, compiling time, memory and the time of a mask are bounded.

#![forbid(unsafe_code)]

mod cache;
mod compiler;
mod error;
mod explain;
mod grammar;
mod service;
pub mod source;
mod vocabulary;

pub use compiler::MAX_SOURCE_BYTES;
pub use error::{GrammarBroken, GrammarError};
pub use explain::{Input, Refusal};
pub use grammar::{Grammar, GrammarState};
pub use service::{GrammarCounts, Grammars};
pub use vocabulary::{TokenBytes, Vocabulary};
