//! Beds for tests: made-up pages, servers and an API server.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod api;
pub(crate) mod pages;
pub(crate) mod servers;
