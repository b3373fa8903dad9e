//! The CPU: packed weights, a pool of threads, and kernels compiled for the instruction set that it has.

use std::{io, sync::Mutex};

use super::{Device, HeadRules, Place, WeightFormat, or_empty};
use crate::{
    Isa,
    kernels::{
        AttentionParams, Batch, Buffer, Element, Gate, HeadParams, HeadShape, Heads, Int8Matrix, Int8Rows,
        Kernels, LANES, LowRankRows, Operands, Output, Packed, PackedExperts, PackedMatrix, PackedMxfp4,
        Routes, Routing, Rows, Threads, attention, embed, experts, gate, gemm, heads, int8, low_rank, rope,
        routing,
    },
    kv::Dtype,
    model::{StoredExperts, StoredMatrix, StoredMxfp4},
};

/// Computes with elements of type `T` and sums in f32.
pub(crate) struct Cpu<T: Element> {
    kernels: Kernels<T>,
    threads: Threads,
    /// Of each thread.
    scratch: Vec<Mutex<attention::Scratch>>,
    /// Pieces of products, of each thread.
    pieces: Vec<Mutex<Buffer<f32>>>,
    /// Panels of experts that a thread unpacked.
    unpacked: Vec<Mutex<Buffer<T>>>,
    /// Operands of a product with weights in eight bits.
    quantised: Int8Rows,
    /// What lies between the two products of an adapter.
    low_rank: Buffer<T>,
}

/// A step's batch, and how attention is cut into tasks.
pub(crate) struct Step {
    batch: Batch,
    shape: HeadShape,
    tiles: Vec<attention::Tile>,
}

impl Step {
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(super) fn shape(&self) -> HeadShape {
        self.shape
    }
}

impl<T: Element> Cpu<T> {
    fn plain(&mut self, stored: &StoredMatrix<'_>) -> io::Result<PackedMatrix<T>> {
        let columns = stored.columns();
        let mut matrix = PackedMatrix::<T>::zeroed(stored.rows(), columns)?;
        let (panels, panel_len) = matrix.panels_mut();
        self.threads.for_chunks(panels, panel_len, |index, panel| {
            let mut row = vec![T::default(); columns];
            for (lane, number) in (index * LANES..stored.rows()).take(LANES).enumerate() {
                stored.read(number, &mut row);
                PackedMatrix::pack_row(panel, lane, &row);
            }
        });
        Ok(matrix)
    }

    fn int8(&mut self, stored: &StoredMatrix<'_>) -> io::Result<Int8Matrix> {
        let mut matrix = Int8Matrix::zeroed(stored.rows(), stored.columns())?;
        matrix.fill(&mut self.threads, |row, out| stored.read(row, out));
        Ok(matrix)
    }

    fn product(&mut self, x: &Operands<T>, w: &Packed<T>, bias: Option<&Vec<f32>>, output: Output<'_>) {
        match w {
            Packed::Plain(w) => {
                gemm::linear(self.kernels.gemm, &mut self.threads, x, w, or_empty(bias), output);
            }
            Packed::Int8(w) => {
                self.quantised.quantise(self.kernels.quantise, &mut self.threads, x);
                let (kernel, x, rows) = (self.kernels.int8, &self.quantised, x.rows());
                int8::linear(kernel, &mut self.threads, x, rows, w, or_empty(bias), output);
            }
        }
    }

    fn mxfp4(&mut self, stored: &StoredMxfp4<'_>) -> io::Result<PackedMxfp4> {
        let mut packed = PackedMxfp4::zeroed(stored.experts, stored.rows, stored.columns)?;
        packed.fill(&mut self.threads, |expert, panel, nibbles, scales| {
            for (lane, row) in (panel * LANES..stored.rows).take(LANES).enumerate() {
                let (row, row_scales) = stored.row(expert, row);
                PackedMxfp4::pack_row(nibbles, lane, row);
                PackedMxfp4::pack_row(scales, lane, row_scales);
            }
        });
        Ok(packed)
    }
}

/// As the kernels take it.
fn heads_of<'a>(
    &Place { step, pool, layer }: &Place<'a, Step>,
    &HeadRules { norms, eps, rope }: &HeadRules<'a, Vec<f32>, Rows<f32>>,
) -> Heads<'a> {
    let params = HeadParams {
        shape: step.shape,
        q_norm: or_empty(norms.map(|(q, _)| q)),
        k_norm: or_empty(norms.map(|(_, k)| k)),
        eps,
    };
    Heads { params, batch: &step.batch, pool, layer, rope }
}

impl<T: Element> Device for Cpu<T> {
    const DTYPE: Dtype = T::DTYPE;

    type Vector = Vec<f32>;
    type Matrix = Packed<T>;
    type Experts = PackedExperts<T>;
    type Floats = Rows<f32>;
    type Operands = Operands<T>;
    type Step = Step;
    type Routes = Routes;

    fn open(isa: Isa, threads: usize) -> Self {
        let threads = Threads::new(threads);
        Self {
            kernels: Kernels::of(isa),
            scratch: (0..threads.count()).map(|_| Mutex::default()).collect(),
            pieces: (0..threads.count()).map(|_| Mutex::new(Buffer::new())).collect(),
            unpacked: (0..threads.count()).map(|_| Mutex::new(Buffer::new())).collect(),
            threads,
            quantised: Int8Rows::default(),
            low_rank: Buffer::new(),
        }
    }

    fn threads(&self) -> usize {
        self.threads.count()
    }

    fn vector(&mut self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn matrix(&mut self, stored: &StoredMatrix<'_>, format: WeightFormat) -> io::Result<Packed<T>> {
        Ok(match format {
            WeightFormat::Full => Packed::Plain(self.plain(stored)?),
            WeightFormat::Int8 => Packed::Int8(self.int8(stored)?),
        })
    }

    fn experts(&mut self, stored: &StoredExperts<'_>, format: WeightFormat) -> io::Result<PackedExperts<T>> {
        Ok(match stored {
            StoredExperts::Plain(experts) => {
                let experts = experts.iter().map(|expert| self.matrix(expert, format));
                PackedExperts::Each(experts.collect::<io::Result<_>>()?)
            }
            StoredExperts::Mxfp4(stored) => PackedExperts::Mxfp4(self.mxfp4(stored)?),
        })
    }

    fn matrix_bytes(matrix: &Packed<T>) -> usize {
        matrix.bytes()
    }

    fn experts_bytes(experts: &PackedExperts<T>) -> usize {
        experts.bytes()
    }

    fn plan(&mut self, batch: Batch, shape: HeadShape) -> Step {
        let tiles = attention::plan(shape, &batch);
        Step { batch, shape, tiles }
    }

    fn embed(&mut self, step: &Step, table: &Packed<T>, out: &mut Rows<f32>) {
        embed::embed(&mut self.threads, table, &step.batch.tokens, out);
    }

    fn rope_table(&mut self, step: &Step, frequencies: &Vec<f32>, scale: f32, out: &mut Rows<f32>) {
        let (positions, width) = (&step.batch.positions, 2 * frequencies.len());
        let out = out.shape(positions.len(), width);
        self.threads.for_chunks(out, width, |row, out| {
            rope::rope_row(frequencies, scale, positions[row], out);
        });
    }

    fn rms_norm(&mut self, x: &Rows<f32>, weight: &Vec<f32>, eps: f32, out: &mut Operands<T>) {
        let kernel = self.kernels.rms_norm;
        out.fill(&mut self.threads, (x.rows(), x.width()), |row, out| kernel(x.row(row), weight, eps, out));
    }

    fn linear(&mut self, x: &Operands<T>, w: &Packed<T>, bias: Option<&Vec<f32>>, y: &mut Rows<f32>) {
        self.product(x, w, bias, Output::Store(y.shape(x.rows(), w.n())));
    }

    fn linear_add(&mut self, x: &Operands<T>, w: &Packed<T>, bias: Option<&Vec<f32>>, y: &mut Rows<f32>) {
        self.product(x, w, bias, Output::Add(y));
    }

    fn add_low_rank(&mut self, x: &Operands<T>, changes: &[LowRankRows<'_, Packed<T>>], y: &mut Rows<f32>) {
        let changes: Vec<_> = changes
            .iter()
            .map(|LowRankRows { rows, a, b, first_column }| LowRankRows {
                rows: rows.clone(),
                a: a.expect_plain(),
                b: b.expect_plain(),
                first_column: *first_column,
            })
            .collect();
        low_rank::add(self.kernels.gemm, &mut self.threads, x, &changes, &mut self.low_rank, y);
    }

    fn split_heads(
        &mut self,
        place: &Place<'_, Step>,
        rules: &HeadRules<'_, Vec<f32>, Rows<f32>>,
        qkv: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        heads::split(self.kernels.split_heads, &mut self.threads, &heads_of(place, rules), qkv, out);
    }

    fn linear_heads(
        &mut self,
        place: &Place<'_, Step>,
        x: &Operands<T>,
        (w, bias): (&Packed<T>, Option<&Vec<f32>>),
        rules: &HeadRules<'_, Vec<f32>, Rows<f32>>,
        qkv: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        match w {
            Packed::Plain(w) if heads::fuses(x.rows(), place.step.shape) => {
                let workers = (&mut self.threads, &self.pieces[..]);
                heads::project(&self.kernels, workers, x, (w, or_empty(bias)), &heads_of(place, rules), out);
            }
            _ => {
                self.linear(x, w, bias, qkv);
                self.split_heads(place, rules, qkv, out);
            }
        }
    }

    fn attention(
        &mut self,
        &Place { step, pool, layer }: &Place<'_, Step>,
        window: Option<usize>,
        sinks: Option<&Vec<f32>>,
        queries: &Operands<T>,
        out: &mut Operands<T>,
    ) {
        let params = AttentionParams { shape: step.shape, window, sinks: or_empty(sinks) };
        let job = attention::Job::new(params, &step.batch, (pool, layer), queries, out);
        attention::run(self.kernels.attention, &mut self.threads, &self.scratch, &step.tiles, &job);
    }

    fn gate(&mut self, gate: Gate, gate_up: &Rows<f32>, out: &mut Operands<T>) {
        let (rows, width, kernel) = (gate_up.rows(), gate_up.width() / 2, self.kernels.gate);
        out.fill(&mut self.threads, (rows, width), |row, out| kernel(gate, gate_up.row(row), out));
    }

    fn gated_linear(
        &mut self,
        x: &Operands<T>,
        (w, bias): (&Packed<T>, Option<&Vec<f32>>),
        gate: Gate,
        wide: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        match w {
            Packed::Plain(w) if gate::fuses(x.rows(), w.n()) => {
                let workers = (&mut self.threads, &self.pieces[..]);
                gate::gated_linear(&self.kernels, workers, x, (w, or_empty(bias)), gate, out);
            }
            _ => {
                self.linear(x, w, bias, wide);
                self.gate(gate, wide, out);
            }
        }
    }

    fn route(&mut self, logits: &Rows<f32>, routing: Routing, routes: &mut Routes) {
        routing::route(&mut self.threads, logits, routing, routes);
    }

    fn gather(&mut self, x: &Operands<T>, routes: &Routes, out: &mut Operands<T>) {
        experts::gather(&mut self.threads, x, routes, out);
    }

    fn expert_linear(
        &mut self,
        x: &Operands<T>,
        experts: &PackedExperts<T>,
        bias: Option<&Vec<f32>>,
        routes: &Routes,
        y: &mut Rows<f32>,
    ) {
        if experts.are_int8() {
            self.quantised.quantise(self.kernels.quantise, &mut self.threads, x);
        }
        let scratch = (&self.unpacked[..], &self.quantised);
        let experts = (experts, or_empty(bias));
        experts::linear(&self.kernels, &mut self.threads, scratch, routes, x, experts, y);
    }

    fn combine(&mut self, y: &Rows<f32>, routes: &Routes, out: &mut Rows<f32>) {
        experts::combine(&mut self.threads, y, routes, out);
    }

    fn take_rows(&mut self, rows: &[usize], x: &Rows<f32>, out: &mut Rows<f32>) {
        let width = x.width();
        for (row, out) in rows.iter().zip(out.shape(rows.len(), width).chunks_exact_mut(width)) {
            out.copy_from_slice(x.row(*row));
        }
    }

    fn take_operand_rows(&mut self, rows: &[usize], x: &Operands<T>, out: &mut Operands<T>) {
        out.fill(&mut self.threads, (rows.len(), x.width()), |row, out| {
            out.copy_from_slice(x.row(rows[row]))
        });
    }

    fn read<'a>(&'a mut self, x: &'a Rows<f32>) -> &'a [f32] {
        x
    }
}
