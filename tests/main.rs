//! Black-box tests: the real `baton` binary, real processes, real sockets, real signals.
//!
//! Run them with `./dev test`, which installs what they need: Python with the packages of `requirements.txt`
//! (`BATON_TEST_PYTHON`), libfabric (`BATON_TEST_LIBFABRIC`), UCX (`BATON_TEST_UCX`) and NIXL (`BATON_TEST_NIXL`). A test that lacks one
//! fails and says so.

#![forbid(unsafe_code)]

mod harness;

mod api;
mod bad_input;
mod bench;
mod decisions;
mod failure;
mod gateway;
mod keys;
mod kv_events;
mod lora;
mod membership;
mod metrics;
mod one_answer;
mod operator;
mod pairs;
mod picker;
mod picker_conformance;
mod prefix_cache;
mod recall;
mod schedulers;
mod speculation;
mod start_stop;
mod structured;
mod tls;
mod tools;
mod traces;
mod traffic;
mod upstream;
