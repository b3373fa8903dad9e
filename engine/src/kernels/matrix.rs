//! Weight matrices in the order in which the matrix kernel reads them.

use super::{Buffer, Element, Int8Matrix, element::LANES};

/// A weight matrix `[n, k]` in one of the forms that there are kernels for.
pub(crate) enum Packed<T> {
    /// In the type of activations.
    Plain(PackedMatrix<T>),
    /// In eight bits.
    Int8(Int8Matrix),
}

impl<T: Element> Packed<T> {
    /// Outputs.
    pub(crate) fn n(&self) -> usize {
        match self {
            Self::Plain(w) => w.n(),
            Self::Int8(w) => w.n(),
        }
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        match self {
            Self::Plain(w) => w.k(),
            Self::Int8(w) => w.k(),
        }
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Plain(w) => w.bytes(),
            Self::Int8(w) => w.bytes(),
        }
    }

    /// A matrix that was loaded in [`crate::WeightFormat::Full`].
    ///
    /// # Panics
    /// When it was not.
    pub(crate) fn expect_plain(&self) -> &PackedMatrix<T> {
        match self {
            Self::Plain(w) => w,
            Self::Int8(_) => panic!("adapters are not brought to eight bits"),
        }
    }

    /// Row `n` as f32.
    pub(crate) fn row(&self, n: usize, out: &mut [f32]) {
        match self {
            Self::Plain(w) => w.row(n, out),
            Self::Int8(w) => w.row(n, out),
        }
    }
}

/// A weight matrix `[n, k]`: `y[n] = Σ_k x[k] · w[n, k]`.
///
/// ```text
/// panel 0: rows 0..16      step 0: row 0 [k0 k1] row 1 [k0 k1] … row 15 [k0 k1]     = one 64-byte register
///                          step 1: row 0 [k2 k3] …
/// panel 1: rows 16..32     …
/// ```
/// shown for bf16 (groups of two); f32 has groups of one. Rows are padded with zeros to whole panels.
pub(crate) struct PackedMatrix<T> {
    n: usize,
    k: usize,
    data: Buffer<T>,
}

impl<T: Element> PackedMatrix<T> {
    /// Zeros, to be filled by panel.
    pub(crate) fn zeroed(n: usize, k: usize) -> std::io::Result<Self> {
        assert_eq!(k % T::GROUP, 0, "whole groups; odd widths are refused with the configuration");
        let data = Buffer::zeroed(n.div_ceil(LANES) * LANES * k)?;
        Ok(Self { n, k, data })
    }

    /// Outputs.
    pub(crate) fn n(&self) -> usize {
        self.n
    }

    /// Inputs.
    pub(crate) fn k(&self) -> usize {
        self.k
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.data.len() * size_of::<T>()
    }

    /// Elements of a panel.
    pub(crate) fn panel_len(&self) -> usize {
        LANES * self.k
    }

    /// Panels that hold at least one row.
    pub(crate) fn panels(&self) -> usize {
        self.n.div_ceil(LANES)
    }

    /// All panels, one after the other.
    pub(crate) fn all_panels(&self) -> &[T] {
        &self.data
    }

    /// One panel.
    pub(super) fn panel(&self, panel: usize) -> &[T] {
        &self.data[panel * self.panel_len()..][..self.panel_len()]
    }

    /// All panels, to fill them in parallel: chunk `i` of [`Self::panel_len`] elements is panel `i`.
    pub(crate) fn panels_mut(&mut self) -> (&mut [T], usize) {
        let len = self.panel_len();
        (&mut self.data, len)
    }

    /// Writes `row` as lane `lane` of `panel`.
    pub(crate) fn pack_row(panel: &mut [T], lane: usize, row: &[T]) {
        let steps = panel.chunks_exact_mut(LANES * T::GROUP);
        for (step, group) in steps.zip(row.chunks_exact(T::GROUP)) {
            for (within, x) in group.iter().enumerate() {
                step[lane * T::GROUP + within] = *x;
            }
        }
    }

    /// Row `n` as f32.
    pub(crate) fn row(&self, n: usize, out: &mut [f32]) {
        let panel = self.panel(n / LANES);
        for (k, out) in out.iter_mut().enumerate() {
            *out = panel[(k / T::GROUP) * LANES * T::GROUP + (n % LANES) * T::GROUP + k % T::GROUP].to_f32();
        }
    }
}
