//! Prefill worker, decode worker and sidecar in one process: real engines over a model's double, real transfers over shared
//! memory, real gRPC. The double's answer depends on every byte of KV cache, so a block that is missing, late or somebody
//! else's gives other tokens.

mod answers;
mod bed;
mod ends;
mod sessions;
mod workers;
