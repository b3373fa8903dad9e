//! What stands between clients and generator, as whoever puts a front together decides.

use baton_tenancy::Tenancy;

use crate::Upstreams;

/// Of one front.
pub struct Edge {
    /// Who may ask, and how much.
    pub tenancy: Tenancy,
    /// Who serves what the generator can't.
    pub upstreams: Upstreams,
}

impl Edge {
    /// Everybody is served, and nobody elsewhere: for a front behind a gateway that knows its clients.
    pub fn open() -> Self {
        Self { tenancy: Tenancy::open_to_all(), upstreams: Upstreams::default() }
    }
}
