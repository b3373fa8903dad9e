//! The model against Hugging Face transformers, and against itself: golden logits and tokens of tiny random models
//! (`fixtures/make_golden.py`), batch invariance to the last bit, and refusals of bad folders.
#![forbid(unsafe_code)]

mod adapters;
mod fixture;
mod invariance;
mod prefix_cache;
mod refusals;
mod speculation;
mod transformers;
