//! The load generator against servers whose behaviour is known: the null server, and made-up ones that are wrong.

mod harness;
mod phases;
mod sessions;
mod tls;
mod truth;
mod wrong_servers;
