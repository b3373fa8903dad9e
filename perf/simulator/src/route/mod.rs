//! Where requests go.

mod baton;
mod simple;

pub(crate) use baton::{BatonRouter, REPORT_MS, TICK_MS};
pub(crate) use simple::SimpleRouter;

use crate::{engine::Holders, traffic::Traffic};

/// Where a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Who computes the prompt; none: who generates.
    pub(crate) prefill: Option<u32>,
    pub(crate) decode: u32,
}

/// What became of a request that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Goes(Place),
    /// [`BatonRouter::next`] or [`BatonRouter::expired`] will name it.
    Waits,
    Refused,
}

/// What routers may look at.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub(crate) traffic: &'a Traffic,
    pub(crate) holders: &'a Holders,
    pub(crate) block_tokens: u32,
}

/// Who decides.
pub(crate) enum Router {
    Simple(SimpleRouter),
    Baton(Box<BatonRouter>),
}
