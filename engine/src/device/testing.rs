//! The devices that kernels' tests run on, and a look into their buffers.
//!
//! A new device is added to [`on_each_device`] and gets a [`Probe`]; then every test in `kernels/` holds it to the same
//! formulas and the same invariances as the others.

use super::{Cpu, Device, Reference, WeightFormat, reference::Table};
use crate::{
    kernels::{Element, Operands, Packed, PackedExperts, Routes, Rows, Threads},
    kv::Dtype,
    model::{StoredExperts, StoredMatrix},
};

/// A device whose buffers tests may fill and look into.
pub(crate) trait Probe: Device {
    /// What its KV cache and its operands are made of.
    type Element: Element;

    /// With weights in eight bits, activations are too.
    const QUANTISES_ROWS: bool;
    /// Relative error of one value rounded to the device's type.
    const ROUNDING: f64 = match Self::DTYPE {
        Dtype::F32 => 1e-7,
        Dtype::Bf16 => 1.0 / 256.0,
    };

    /// Puts `[rows, width]` on the device.
    fn floats(&mut self, values: &[f32], width: usize) -> Self::Floats;

    /// Puts `[rows, width]` on the device, rounded to its type.
    fn operands(&mut self, values: &[f32], width: usize) -> Self::Operands;

    fn float_values(&mut self, x: &Self::Floats) -> Vec<f32>;

    fn operand_values(&mut self, x: &Self::Operands) -> Vec<f32>;

    /// Experts and weights of each row's choices.
    fn chosen(&mut self, routes: &Self::Routes) -> (Vec<u32>, Vec<f32>);

    /// `values` rounded to the device's type.
    fn rounded(values: &[f32]) -> Vec<f32> {
        values.iter().map(|x| Self::Element::from_f32(*x).to_f32()).collect()
    }

    /// The matrix `values`, `[n, width]`.
    fn weights(&mut self, values: &[f32], width: usize) -> Self::Matrix {
        self.weights_as(values, width, WeightFormat::Full)
    }

    /// The same in some format.
    fn weights_as(&mut self, values: &[f32], width: usize, format: WeightFormat) -> Self::Matrix {
        self.matrix(&StoredMatrix::of_values(&bytes(values), values.len() / width, width), format).unwrap()
    }

    /// `count` matrices, one after the other in `values`.
    fn each_expert(
        &mut self,
        values: &[f32],
        count: usize,
        width: usize,
        format: WeightFormat,
    ) -> Self::Experts {
        let bytes: Vec<_> = values.chunks_exact(values.len() / count).map(bytes).collect();
        let rows = values.len() / count / width;
        let experts = bytes.iter().map(|bytes| StoredMatrix::of_values(bytes, rows, width)).collect();
        self.experts(&StoredExperts::Plain(experts), format).unwrap()
    }
}

/// As a weight file holds them.
fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

impl<T: Element> Probe for Cpu<T>
where
    Self: Device<
            Matrix = Packed<T>,
            Experts = PackedExperts<T>,
            Floats = Rows<f32>,
            Operands = Operands<T>,
            Routes = Routes,
        >,
{
    type Element = T;

    const QUANTISES_ROWS: bool = true;

    fn floats(&mut self, values: &[f32], width: usize) -> Rows<f32> {
        let mut rows = Rows::default();
        rows.shape(values.len() / width, width).copy_from_slice(values);
        rows
    }

    fn operands(&mut self, values: &[f32], width: usize) -> Operands<T> {
        let mut operands = Operands::default();
        operands.fill(&mut Threads::new(1), (values.len() / width, width), |row, out| {
            let values = &values[row * width..][..width];
            out.iter_mut().zip(values).for_each(|(out, x)| *out = T::from_f32(*x));
        });
        operands
    }

    fn float_values(&mut self, x: &Rows<f32>) -> Vec<f32> {
        x.to_vec()
    }

    fn operand_values(&mut self, x: &Operands<T>) -> Vec<f32> {
        (0..x.rows()).flat_map(|row| x.row(row)).map(|x| x.to_f32()).collect()
    }

    fn chosen(&mut self, routes: &Routes) -> (Vec<u32>, Vec<f32>) {
        (routes.experts.clone(), routes.weights.clone())
    }
}

impl Probe for Reference {
    type Element = f32;

    const QUANTISES_ROWS: bool = false;

    fn floats(&mut self, values: &[f32], width: usize) -> Table {
        Table { values: values.to_vec(), width }
    }

    fn operands(&mut self, values: &[f32], width: usize) -> Table {
        self.floats(values, width)
    }

    fn float_values(&mut self, x: &Table) -> Vec<f32> {
        x.values.clone()
    }

    fn operand_values(&mut self, x: &Table) -> Vec<f32> {
        x.values.clone()
    }

    fn chosen(&mut self, routes: &Routes) -> (Vec<u32>, Vec<f32>) {
        (routes.experts.clone(), routes.weights.clone())
    }
}

/// Runs each `check(&mut device, label)` on every device that this machine has.
macro_rules! on_each_device {
    ($($check:ident),+ $(,)?) => {
        $(
            $check(&mut <$crate::device::Reference as $crate::device::Device>::open($crate::Isa::Portable, 1), "reference");
            for isa in $crate::Isa::available() {
                use $crate::device::{Cpu, Device};
                $check(&mut Cpu::<f32>::open(isa, 3), &format!("{} f32 {isa}", stringify!($check)));
                $check(&mut Cpu::<half::bf16>::open(isa, 3), &format!("{} bf16 {isa}", stringify!($check)));
            }
        )+
    };
}
pub(crate) use on_each_device;

/// Each value within `tolerance`, relative to it or to 1 if that is larger.
#[track_caller]
pub(crate) fn close(label: &str, got: &[f32], want: &[f32], tolerance: f64) {
    assert_eq!(got.len(), want.len(), "{label}: number of values");
    for (at, (got, want)) in got.iter().zip(want).enumerate() {
        let (got, want) = (f64::from(*got), f64::from(*want));
        assert!((got - want).abs() <= tolerance * want.abs().max(1.0), "{label} at {at}: {got}, not {want}");
    }
}

/// `len` numbers in -1..1, the same for the same seed.
pub(crate) fn random(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}
