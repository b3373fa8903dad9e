//! A model's weights, read from a checkpoint and packed for the kernels.

use super::{Architecture, LoadError, ModelConfig, checkpoint::Checkpoint, load::LoadProgress};
use crate::kernels::{Element, HeadShape, LANES, PackedMatrix, Threads};

/// All weights of a model.
pub(crate) struct Weights<T> {
    pub(crate) embedding: PackedMatrix<T>,
    pub(crate) layers: Vec<LayerWeights<T>>,
    pub(crate) final_norm: Vec<f32>,
    /// None: the embedding table is also the output projection.
    output: Option<PackedMatrix<T>>,
}

/// Weights of one transformer layer. Vectors that the architecture lacks are empty.
pub(crate) struct LayerWeights<T> {
    pub(crate) input_norm: Vec<f32>,
    /// Query, key and value projections, one below the other.
    pub(crate) qkv: PackedMatrix<T>,
    pub(crate) qkv_bias: Vec<f32>,
    pub(crate) q_norm: Vec<f32>,
    pub(crate) k_norm: Vec<f32>,
    pub(crate) attention_output: PackedMatrix<T>,
    pub(crate) post_attention_norm: Vec<f32>,
    /// Gate and up projections, one below the other.
    pub(crate) gate_up: PackedMatrix<T>,
    pub(crate) down: PackedMatrix<T>,
}

impl ModelConfig {
    pub(crate) fn head_shape(&self) -> HeadShape {
        HeadShape { heads: self.heads, kv_heads: self.kv_heads, head_dim: self.head_dim }
    }

    /// Elements of all weight matrices.
    fn matrix_elements(&self) -> usize {
        let shape = self.head_shape();
        let attention = self.hidden * (shape.qkv_width() + shape.q_width());
        let embeddings = if self.tied_embeddings { 1 } else { 2 } * self.vocab * self.hidden;
        embeddings + self.layers * (attention + 3 * self.hidden * self.intermediate)
    }
}

impl<T: Element> Weights<T> {
    /// The output projection, `[vocab, hidden]`.
    pub(crate) fn output(&self) -> &PackedMatrix<T> {
        self.output.as_ref().unwrap_or(&self.embedding)
    }

    /// Bytes of all matrices in memory.
    pub(crate) fn bytes(&self) -> usize {
        let layers = self
            .layers
            .iter()
            .map(|l| l.qkv.bytes() + l.attention_output.bytes() + l.gate_up.bytes() + l.down.bytes());
        self.embedding.bytes() + self.output.as_ref().map_or(0, PackedMatrix::bytes) + layers.sum::<usize>()
    }

    pub(super) fn load(config: &ModelConfig, packer: &mut Packer<'_>) -> Result<Self, LoadError> {
        packer.total = config.matrix_elements();
        let embedding = packer.matrix(config.hidden, &[("model.embed_tokens.weight", config.vocab)])?;
        let layers =
            (0..config.layers).map(|l| LayerWeights::load(config, l, packer)).collect::<Result<_, _>>()?;
        let final_norm = packer.vector(&[("model.norm.weight", config.hidden)])?;
        let output = if config.tied_embeddings {
            None
        } else {
            Some(packer.matrix(config.hidden, &[("lm_head.weight", config.vocab)])?)
        };
        Ok(Self { embedding, layers, final_norm, output })
    }
}

impl<T: Element> LayerWeights<T> {
    fn load(config: &ModelConfig, layer: usize, packer: &mut Packer<'_>) -> Result<Self, LoadError> {
        let shape = config.head_shape();
        let (hidden, dim) = (config.hidden, config.head_dim);
        let kv_width = shape.kv_heads * dim;
        let name = |rest: &str| format!("model.layers.{layer}.{rest}");
        let attention = |part: &str| name(&format!("self_attn.{part}"));
        let [q, k, v] = ["q", "k", "v"].map(|p| attention(&format!("{p}_proj.weight")));
        let [q_bias, k_bias, v_bias] = ["q", "k", "v"].map(|p| attention(&format!("{p}_proj.bias")));
        let architecture: Architecture = config.architecture;
        let head_norm = |packer: &mut Packer<'_>, part: &str| match architecture.qk_norm() {
            true => packer.vector(&[(&attention(part), dim)]),
            false => Ok(Vec::new()),
        };
        Ok(Self {
            input_norm: packer.vector(&[(&name("input_layernorm.weight"), hidden)])?,
            qkv: packer.matrix(hidden, &[(&q, shape.q_width()), (&k, kv_width), (&v, kv_width)])?,
            qkv_bias: match architecture.qkv_bias() {
                true => {
                    packer.vector(&[(&q_bias, shape.q_width()), (&k_bias, kv_width), (&v_bias, kv_width)])?
                }
                false => Vec::new(),
            },
            q_norm: head_norm(packer, "q_norm.weight")?,
            k_norm: head_norm(packer, "k_norm.weight")?,
            attention_output: packer.matrix(shape.q_width(), &[(&attention("o_proj.weight"), hidden)])?,
            post_attention_norm: packer.vector(&[(&name("post_attention_layernorm.weight"), hidden)])?,
            gate_up: packer.matrix(
                hidden,
                &[
                    (&name("mlp.gate_proj.weight"), config.intermediate),
                    (&name("mlp.up_proj.weight"), config.intermediate),
                ],
            )?,
            down: packer.matrix(config.intermediate, &[(&name("mlp.down_proj.weight"), hidden)])?,
        })
    }
}

/// Reads tensors, packs them on all threads and reports how far it is.
pub(super) struct Packer<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) threads: Threads,
    pub(super) progress: Option<&'a (dyn Fn(LoadProgress) + Sync)>,
    pub(super) done: usize,
    pub(super) total: usize,
}

impl Packer<'_> {
    /// The matrix `[Σ rows, columns]` of `parts` (tensor, rows), one below the other.
    fn matrix<T: Element>(
        &mut self,
        columns: usize,
        parts: &[(&str, usize)],
    ) -> Result<PackedMatrix<T>, LoadError> {
        let mut rows_of = Vec::new();
        for (name, rows) in parts {
            let tensor = self.checkpoint.tensor(name, &[*rows, columns])?;
            rows_of.extend((0..*rows).map(|row| (tensor, row)));
        }
        let rows = rows_of.len();
        let mut matrix = PackedMatrix::<T>::zeroed(rows, columns)
            .map_err(|source| LoadError::OutOfMemory { bytes: rows * columns * size_of::<T>(), source })?;
        let (panels, panel_len) = matrix.panels_mut();
        self.threads.for_chunks(panels, panel_len, |index, panel| {
            let mut row = vec![T::default(); columns];
            for (lane, (tensor, number)) in rows_of.iter().skip(index * LANES).take(LANES).enumerate() {
                T::read(tensor, number * columns, &mut row);
                PackedMatrix::pack_row(panel, lane, &row);
            }
        });
        self.done += rows * columns;
        if let Some(progress) = self.progress {
            progress(LoadProgress { done: self.done, total: self.total });
        }
        Ok(matrix)
    }

    /// The vector of `parts` (tensor, length), one after the other.
    fn vector(&mut self, parts: &[(&str, usize)]) -> Result<Vec<f32>, LoadError> {
        let mut out = Vec::new();
        for (name, len) in parts {
            let start = out.len();
            out.resize(start + len, 0.0);
            self.checkpoint.tensor(name, &[*len])?.read_f32(0, &mut out[start..]);
        }
        Ok(out)
    }
}
