//! The CPU with a clock on each operation: what [`crate::roofline`] is made of.
//!
//! Costs are what an operation cannot do without: its weights and its share of the KV cache once, its activations once each
//! way, and the arithmetic of the plainest form.

use std::{
    collections::BTreeMap,
    io,
    time::{Duration, Instant},
};

use super::{Cpu, Device, HeadRules, Place, WeightFormat};
use crate::{
    Isa,
    kernels::{
        Batch, Element, Gate, HeadShape, LowRankRows, Operands, Packed, PackedExperts, Routes, Routing, Rows,
        Unit,
    },
    kv::Dtype,
    model::{StoredExperts, StoredMatrix},
};

/// Bytes of an f32.
const FLOAT: usize = size_of::<f32>();

/// Computes as [`Cpu`] does, and notes what it took.
pub(crate) struct Metered<T: Element> {
    cpu: Cpu<T>,
    notes: BTreeMap<String, Note>,
}

/// What the calls of one operator came to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Note {
    pub(crate) calls: u64,
    pub(crate) time: Duration,
    pub(crate) cost: Cost,
}

/// What calls must move and compute.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub(crate) bytes: u64,
    pub(crate) operations: u64,
    pub(crate) unit: Unit,
}

impl<T: Element> Metered<T> {
    /// What was noted since the last call.
    pub(crate) fn take(&mut self) -> BTreeMap<String, Note> {
        std::mem::take(&mut self.notes)
    }

    fn note(&mut self, operator: String, start: Instant, cost: Cost) {
        let note = self.notes.entry(operator).or_default();
        note.time += start.elapsed();
        note.calls += 1;
        note.cost.bytes += cost.bytes;
        note.cost.operations += cost.operations;
        note.cost.unit = cost.unit;
    }

    /// An operation that does little more than move its rows.
    fn note_moved(&mut self, operator: &str, start: Instant, bytes: usize) {
        let cost = Cost { bytes: bytes as u64, operations: 0, unit: Unit::Fma };
        self.note(operator.to_owned(), start, cost);
    }

    /// A product whose result is `moved` bytes, read or written; `then` is what is done to it in the same call.
    fn note_product(&mut self, w: &Packed<T>, (rows, moved): (usize, usize), start: Instant, then: &str) {
        let (n, k) = (w.n(), w.k());
        let unit = if matches!(w, Packed::Int8(_)) { Unit::Int8Dot } else { unit_of::<T>() };
        let bytes = w.bytes() + rows * k * size_of::<T>() + moved;
        let cost = Cost { bytes: bytes as u64, operations: (2 * rows * n * k) as u64, unit };
        self.note(format!("product {n} x {k}{then}"), start, cost);
    }
}

/// What computes products of elements of type `T`.
fn unit_of<T: Element>() -> Unit {
    match T::DTYPE {
        Dtype::Bf16 => Unit::Bf16Dot,
        Dtype::F32 => Unit::Fma,
    }
}

impl<T: Element> Device for Metered<T> {
    const DTYPE: Dtype = T::DTYPE;

    type Vector = Vec<f32>;
    type Matrix = Packed<T>;
    type Experts = PackedExperts<T>;
    type Floats = Rows<f32>;
    type Operands = Operands<T>;
    type Step = <Cpu<T> as Device>::Step;
    type Routes = Routes;

    fn open(isa: Isa, threads: usize) -> Self {
        Self { cpu: Cpu::open(isa, threads), notes: BTreeMap::new() }
    }

    fn threads(&self) -> usize {
        self.cpu.threads()
    }

    fn vector(&mut self, values: &[f32]) -> Vec<f32> {
        self.cpu.vector(values)
    }

    fn matrix(&mut self, stored: &StoredMatrix<'_>, format: WeightFormat) -> io::Result<Packed<T>> {
        self.cpu.matrix(stored, format)
    }

    fn experts(&mut self, stored: &StoredExperts<'_>, format: WeightFormat) -> io::Result<PackedExperts<T>> {
        self.cpu.experts(stored, format)
    }

    fn matrix_bytes(matrix: &Packed<T>) -> usize {
        Cpu::<T>::matrix_bytes(matrix)
    }

    fn experts_bytes(experts: &PackedExperts<T>) -> usize {
        Cpu::<T>::experts_bytes(experts)
    }

    fn plan(&mut self, batch: Batch, shape: HeadShape) -> Self::Step {
        let start = Instant::now();
        let step = self.cpu.plan(batch, shape);
        self.note_moved("plan", start, 0);
        step
    }

    fn embed(&mut self, step: &Self::Step, table: &Packed<T>, out: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.embed(step, table, out);
        self.note_moved("embed", start, out.len() * (size_of::<T>() + FLOAT));
    }

    fn rope_table(&mut self, step: &Self::Step, frequencies: &Vec<f32>, scale: f32, out: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.rope_table(step, frequencies, scale, out);
        self.note_moved("rope table", start, out.len() * FLOAT);
    }

    fn rms_norm(&mut self, x: &Rows<f32>, weight: &Vec<f32>, eps: f32, out: &mut Operands<T>) {
        let start = Instant::now();
        self.cpu.rms_norm(x, weight, eps, out);
        self.note_moved("norm", start, x.len() * (FLOAT + size_of::<T>()));
    }

    fn linear(&mut self, x: &Operands<T>, w: &Packed<T>, bias: Option<&Vec<f32>>, y: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.linear(x, w, bias, y);
        self.note_product(w, (x.rows(), y.len() * FLOAT), start, "");
    }

    fn linear_add(&mut self, x: &Operands<T>, w: &Packed<T>, bias: Option<&Vec<f32>>, y: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.linear_add(x, w, bias, y);
        self.note_product(w, (x.rows(), 2 * y.len() * FLOAT), start, "");
    }

    fn add_low_rank(&mut self, x: &Operands<T>, changes: &[LowRankRows<'_, Packed<T>>], y: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.add_low_rank(x, changes, y);
        let (mut bytes, mut operations) = (0, 0);
        for LowRankRows { rows, a, b, .. } in changes {
            let rows = rows.len();
            bytes += a.bytes() + b.bytes() + rows * (a.k() * size_of::<T>() + 2 * b.n() * FLOAT);
            operations += 2 * rows * a.n() * (a.k() + b.n());
        }
        let cost = Cost { bytes: bytes as u64, operations: operations as u64, unit: unit_of::<T>() };
        self.note("adapters".to_owned(), start, cost);
    }

    fn split_heads(
        &mut self,
        place: &Place<'_, Self::Step>,
        rules: &HeadRules<'_, Vec<f32>, Rows<f32>>,
        qkv: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        let start = Instant::now();
        self.cpu.split_heads(place, rules, qkv, out);
        self.note_moved("split heads", start, qkv.len() * (FLOAT + size_of::<T>()));
    }

    fn linear_heads(
        &mut self,
        place: &Place<'_, Self::Step>,
        x: &Operands<T>,
        (w, bias): (&Packed<T>, Option<&Vec<f32>>),
        rules: &HeadRules<'_, Vec<f32>, Rows<f32>>,
        qkv: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        let start = Instant::now();
        self.cpu.linear_heads(place, x, (w, bias), rules, qkv, out);
        let moved = x.rows() * w.n() * size_of::<T>();
        self.note_product(w, (x.rows(), moved), start, ", heads split");
    }

    fn attention(
        &mut self,
        place: &Place<'_, Self::Step>,
        window: Option<usize>,
        sinks: Option<&Vec<f32>>,
        queries: &Operands<T>,
        out: &mut Operands<T>,
    ) {
        let start = Instant::now();
        self.cpu.attention(place, window, sinks, queries, out);
        let (shape, most) = (place.step.shape(), window.unwrap_or(usize::MAX));
        let (mut seen, mut cached) = (0, 0);
        for sequence in &place.step.batch().sequences {
            let (first, end) = (sequence.position, sequence.position + sequence.rows);
            seen += (first..end).map(|position| most.min(position + 1)).sum::<usize>();
            cached += end.min(sequence.rows.saturating_add(most));
        }
        let bytes = 2 * queries.bytes() + 2 * cached * shape.kv_heads * shape.head_dim * size_of::<T>();
        // Two products, of two operations an element.
        let operations = 4 * seen * shape.heads * shape.head_dim;
        let cost = Cost { bytes: bytes as u64, operations: operations as u64, unit: unit_of::<T>() };
        self.note("attention".to_owned(), start, cost);
    }

    fn gate(&mut self, gate: Gate, gate_up: &Rows<f32>, out: &mut Operands<T>) {
        let start = Instant::now();
        self.cpu.gate(gate, gate_up, out);
        self.note_moved("gate", start, gate_up.len() * FLOAT + out.bytes());
    }

    fn gated_linear(
        &mut self,
        x: &Operands<T>,
        (w, bias): (&Packed<T>, Option<&Vec<f32>>),
        gate: Gate,
        wide: &mut Rows<f32>,
        out: &mut Operands<T>,
    ) {
        let start = Instant::now();
        self.cpu.gated_linear(x, (w, bias), gate, wide, out);
        self.note_product(w, (x.rows(), out.bytes()), start, ", gated");
    }

    fn route(&mut self, logits: &Rows<f32>, routing: Routing, routes: &mut Routes) {
        let start = Instant::now();
        self.cpu.route(logits, routing, routes);
        self.note_moved("route", start, logits.len() * FLOAT);
    }

    fn gather(&mut self, x: &Operands<T>, routes: &Routes, out: &mut Operands<T>) {
        let start = Instant::now();
        self.cpu.gather(x, routes, out);
        self.note_moved("gather", start, 2 * out.bytes());
    }

    fn expert_linear(
        &mut self,
        x: &Operands<T>,
        experts: &PackedExperts<T>,
        bias: Option<&Vec<f32>>,
        routes: &Routes,
        y: &mut Rows<f32>,
    ) {
        let start = Instant::now();
        self.cpu.expert_linear(x, experts, bias, routes, y);
        let (n, k) = experts.shape();
        let used = experts.bytes() * routes.segments.len() / experts.count();
        let unit = if experts.are_int8() { Unit::Int8Dot } else { unit_of::<T>() };
        let bytes = used + x.bytes() + y.len() * FLOAT;
        let cost = Cost { bytes: bytes as u64, operations: (2 * x.rows() * n * k) as u64, unit };
        self.note(format!("experts {n} x {k}"), start, cost);
    }

    fn combine(&mut self, y: &Rows<f32>, routes: &Routes, out: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.combine(y, routes, out);
        self.note_moved("combine", start, (y.len() + 2 * out.len()) * FLOAT);
    }

    fn take_rows(&mut self, rows: &[usize], x: &Rows<f32>, out: &mut Rows<f32>) {
        let start = Instant::now();
        self.cpu.take_rows(rows, x, out);
        self.note_moved("take rows", start, 2 * out.len() * FLOAT);
    }

    fn take_operand_rows(&mut self, rows: &[usize], x: &Operands<T>, out: &mut Operands<T>) {
        let start = Instant::now();
        self.cpu.take_operand_rows(rows, x, out);
        self.note_moved("take rows", start, 2 * out.bytes());
    }

    fn read<'a>(&'a mut self, x: &'a Rows<f32>) -> &'a [f32] {
        self.cpu.read(x)
    }
}
