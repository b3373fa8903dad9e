//! The plainest device: every operation is its kernel file's `reference`, row by row, on one thread, in f32.

use std::io;

use super::{Device, HeadRules, Place, WeightFormat, or_empty};
use crate::{
    Isa,
    kernels::{
        Batch, Gate, HeadParams, HeadShape, LowRankRows, Routes, Routing, SequenceLayer, attention, embed,
        gate, gemm, heads, int8, low_rank, norm, rope, routing,
    },
    kv::Dtype,
    model::{StoredExperts, StoredMatrix},
};

/// Computes with f32.
pub(crate) struct Reference;

/// `[rows, width]`; a matrix is `[n, k]`.
#[derive(Default)]
pub(crate) struct Table {
    pub(super) values: Vec<f32>,
    pub(super) width: usize,
}

impl Table {
    fn rows(&self) -> impl Iterator<Item = &[f32]> {
        self.values.chunks_exact(self.width)
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }

    fn set(&mut self, width: usize, values: Vec<f32>) {
        *self = Self { values, width };
    }
}

impl Device for Reference {
    const DTYPE: Dtype = Dtype::F32;

    type Vector = Vec<f32>;
    type Matrix = Table;
    type Experts = Vec<Table>;
    type Floats = Table;
    type Operands = Table;
    type Step = (Batch, HeadShape);
    type Routes = Routes;

    fn open(_isa: Isa, _threads: usize) -> Self {
        Self
    }

    fn threads(&self) -> usize {
        1
    }

    fn vector(&mut self, values: &[f32]) -> Vec<f32> {
        values.to_vec()
    }

    fn matrix(&mut self, stored: &StoredMatrix<'_>, format: WeightFormat) -> io::Result<Table> {
        let width = stored.columns();
        let mut values = vec![0.0; stored.rows() * width];
        for (row, out) in values.chunks_exact_mut(width).enumerate() {
            stored.read(row, out);
            if format == WeightFormat::Int8 {
                int8::reference_row(out);
            }
        }
        Ok(Table { values, width })
    }

    fn experts(&mut self, stored: &StoredExperts<'_>, format: WeightFormat) -> io::Result<Vec<Table>> {
        match stored {
            StoredExperts::Plain(experts) => {
                experts.iter().map(|expert| self.matrix(expert, format)).collect()
            }
            StoredExperts::Mxfp4(stored) => {
                let rows = |expert| (0..stored.rows).flat_map(move |row| stored.values(expert, row));
                let table = |expert| Table { values: rows(expert).collect(), width: stored.columns };
                Ok((0..stored.experts).map(table).collect())
            }
        }
    }

    fn matrix_bytes(matrix: &Table) -> usize {
        size_of_val(&matrix.values[..])
    }

    fn experts_bytes(experts: &Vec<Table>) -> usize {
        experts.iter().map(Self::matrix_bytes).sum()
    }

    fn plan(&mut self, batch: Batch, shape: HeadShape) -> (Batch, HeadShape) {
        (batch, shape)
    }

    fn embed(&mut self, (batch, _): &(Batch, HeadShape), table: &Table, out: &mut Table) {
        out.set(table.width, embed::reference(&table.values, table.width, &batch.tokens));
    }

    fn rope_table(
        &mut self,
        (batch, _): &(Batch, HeadShape),
        frequencies: &Vec<f32>,
        scale: f32,
        out: &mut Table,
    ) {
        let width = 2 * frequencies.len();
        out.set(width, vec![0.0; batch.rows() * width]);
        for (position, out) in batch.positions.iter().zip(out.values.chunks_exact_mut(width)) {
            rope::rope_row(frequencies, scale, *position, out);
        }
    }

    fn rms_norm(&mut self, x: &Table, weight: &Vec<f32>, eps: f32, out: &mut Table) {
        out.set(x.width, norm::reference(&x.values, weight, eps));
    }

    fn linear(&mut self, x: &Table, w: &Table, bias: Option<&Vec<f32>>, y: &mut Table) {
        y.set(w.values.len() / w.width, gemm::reference(&x.values, &w.values, w.width, or_empty(bias)));
    }

    fn linear_add(&mut self, x: &Table, w: &Table, bias: Option<&Vec<f32>>, y: &mut Table) {
        let product = gemm::reference(&x.values, &w.values, w.width, or_empty(bias));
        y.values.iter_mut().zip(product).for_each(|(y, product)| *y += product);
    }

    fn add_low_rank(&mut self, x: &Table, changes: &[LowRankRows<'_, Table>], y: &mut Table) {
        for LowRankRows { rows, a, b, first_column } in changes {
            for row in rows.clone() {
                let added = low_rank::reference(x.row(row), &a.values, &b.values);
                let columns = &mut y.values[row * y.width + first_column..][..added.len()];
                columns.iter_mut().zip(added).for_each(|(y, added)| *y += added);
            }
        }
    }

    fn split_heads(
        &mut self,
        &Place { step: (batch, shape), pool, layer }: &Place<'_, Self::Step>,
        &HeadRules { norms, eps, rope }: &HeadRules<'_, Vec<f32>, Table>,
        qkv: &mut Table,
        out: &mut Table,
    ) {
        let HeadShape { heads, kv_heads, head_dim } = *shape;
        let params = HeadParams {
            shape: *shape,
            q_norm: or_empty(norms.map(|(q, _)| q)),
            k_norm: or_empty(norms.map(|(_, k)| k)),
            eps,
        };
        let mut queries = Vec::new();
        for (row, qkv) in qkv.rows().enumerate() {
            let block_table = batch.block_table(batch.sequence_of[row]);
            let cache = SequenceLayer { pool, layer, block_table };
            let done = heads::reference(&params, qkv, rope.row(row));
            let (q, kv) = done.split_at(heads * head_dim);
            queries.extend(q);
            for (head, x) in kv.chunks_exact(head_dim).enumerate() {
                let position = batch.positions[row];
                match head.checked_sub(kv_heads) {
                    None => cache.write_key::<f32>(head, position, x),
                    Some(head) => cache.write_value::<f32>(head, position, x),
                }
            }
        }
        out.set(heads * head_dim, queries);
    }

    fn attention(
        &mut self,
        &Place { step: (batch, shape), pool, layer }: &Place<'_, Self::Step>,
        window: Option<usize>,
        sinks: Option<&Vec<f32>>,
        queries: &Table,
        out: &mut Table,
    ) {
        let HeadShape { heads, kv_heads, head_dim } = *shape;
        let mut results = Vec::new();
        for (row, queries) in queries.rows().enumerate() {
            let position = batch.positions[row];
            let block_table = batch.block_table(batch.sequence_of[row]);
            let cache = SequenceLayer { pool, layer, block_table };
            let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
            for (head, q) in queries.chunks_exact(head_dim).enumerate() {
                let kv_head = head / (heads / kv_heads);
                let seen = first..=position;
                let keys: Vec<f32> = seen.clone().flat_map(|t| cache.read_key::<f32>(kv_head, t)).collect();
                let values: Vec<f32> = seen.flat_map(|t| cache.read_value::<f32>(kv_head, t)).collect();
                results.extend(attention::reference(q, &keys, &values, sinks.map(|sinks| sinks[head])));
            }
        }
        out.set(queries.width, results);
    }

    fn gate(&mut self, gate: Gate, gate_up: &Table, out: &mut Table) {
        let width = gate_up.width / 2;
        out.set(width, gate::reference(gate, &gate_up.values, width));
    }

    fn route(&mut self, logits: &Table, routing: Routing, routes: &mut Routes) {
        routes.clear(logits.rows().count(), routing.per_token);
        (routes.experts, routes.weights) = routing::reference(&logits.values, routing);
    }

    /// Pairs in the order of rows: this device does not bring an expert's together.
    fn gather(&mut self, x: &Table, routes: &Routes, out: &mut Table) {
        let row_of = |pair: usize| pair / routes.per_token;
        out.set(x.width, (0..routes.pairs()).flat_map(|pair| x.row(row_of(pair)).to_vec()).collect());
    }

    fn expert_linear(
        &mut self,
        x: &Table,
        experts: &Vec<Table>,
        bias: Option<&Vec<f32>>,
        routes: &Routes,
        y: &mut Table,
    ) {
        let n = experts[0].values.len() / experts[0].width;
        let product = |(x, expert): (&[f32], &u32)| {
            let expert = *expert as usize;
            let bias = bias.map_or(&[][..], |bias| &bias[expert * n..][..n]);
            gemm::reference(x, &experts[expert].values, experts[expert].width, bias)
        };
        y.set(n, x.rows().zip(&routes.experts).flat_map(product).collect());
    }

    fn combine(&mut self, y: &Table, routes: &Routes, out: &mut Table) {
        for (pair, (y, weight)) in y.rows().zip(&routes.weights).enumerate() {
            let out = &mut out.values[pair / routes.per_token * y.len()..];
            out.iter_mut().zip(y).for_each(|(out, y)| *out += weight * y);
        }
    }

    fn take_rows(&mut self, rows: &[usize], x: &Table, out: &mut Table) {
        out.set(x.width, rows.iter().flat_map(|row| x.row(*row).to_vec()).collect());
    }

    fn take_operand_rows(&mut self, rows: &[usize], x: &Table, out: &mut Table) {
        self.take_rows(rows, x, out);
    }

    fn read<'a>(&'a mut self, x: &'a Table) -> &'a [f32] {
        &x.values
    }
}
