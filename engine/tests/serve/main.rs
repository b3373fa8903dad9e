//! The engine as its callers see it, over a double of the model whose answer depends on every byte of KV cache it reads.

mod disaggregated;
mod lifecycle;
mod mirror;
mod preemption;
mod prefix_cache;
mod requests;
mod reservations;
mod schedules;
mod speculation;
mod support;
