//! TLS over real files and real sockets.

#![forbid(unsafe_code)]

mod connections;
mod files;
mod support;
