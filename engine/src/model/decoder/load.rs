//! A decoder's weights, from the checkpoint onto a device.
//!
//! Names that all families share are here; where families differ, [`ModelConfig`] has the name from the family's file.

use super::{ExpertLinear, FeedForwardWeights, LayerWeights, Linear, Weights};
use crate::{
    device::{Device, WeightFormat},
    kernels::mxfp4,
    model::{
        LoadError, ModelConfig, StoredExperts, StoredMatrix, StoredMxfp4,
        checkpoint::Checkpoint,
        config::{ExpertWeights, Experts, FeedForward, Layer},
        load::{LoadOptions, LoadProgress},
        stored::deinterleaved,
    },
};

/// Reads tensors, hands them to the device and reports how far it is.
pub(crate) struct Loader<'a, D> {
    checkpoint: &'a Checkpoint,
    device: D,
    format: WeightFormat,
    progress: Option<&'a (dyn Fn(LoadProgress) + Sync)>,
    done: usize,
    total: usize,
}

impl ModelConfig {
    /// Elements of all weight matrices.
    fn matrix_elements(&self) -> usize {
        let shape = self.head_shape();
        let attention = self.hidden * (shape.qkv_width() + shape.q_width());
        let embeddings = if self.tied_embeddings { 1 } else { 2 } * self.vocab * self.hidden;
        let feed_forward = |layer: &Layer| match &layer.feed_forward {
            FeedForward::Dense { width } => 3 * self.hidden * width,
            FeedForward::Experts(e) => e.routing.experts * self.hidden * (3 * e.width + 1),
        };
        embeddings + self.layers.iter().map(|layer| attention + feed_forward(layer)).sum::<usize>()
    }
}

impl<'a, D: Device> Loader<'a, D> {
    /// From `checkpoint` onto `device`.
    pub(crate) fn new(checkpoint: &'a Checkpoint, device: D, options: &LoadOptions<'a>) -> Self {
        let (format, progress) = (options.weights, options.progress);
        Self { checkpoint, device, format, progress, done: 0, total: 0 }
    }

    /// All weights of the model.
    pub(crate) fn load(mut self, config: &ModelConfig) -> Result<Weights<D>, LoadError> {
        self.total = config.matrix_elements();
        let embedding = self.matrix(config.hidden, &[("model.embed_tokens.weight", config.vocab)])?;
        let layers = config.layers.iter().enumerate();
        let layers =
            layers.map(|(index, layer)| self.layer(config, index, layer)).collect::<Result<_, _>>()?;
        let final_norm = self.vector(&[("model.norm.weight", config.hidden)])?;
        let output = match config.tied_embeddings {
            true => None,
            false => Some(self.matrix(config.hidden, &[("lm_head.weight", config.vocab)])?),
        };
        Ok(Weights { embedding, layers, final_norm, output })
    }

    fn layer(
        &mut self,
        config: &ModelConfig,
        index: usize,
        layer: &Layer,
    ) -> Result<LayerWeights<D>, LoadError> {
        let (shape, hidden) = (config.head_shape(), config.hidden);
        let (q_width, kv_width) = (shape.q_width(), shape.kv_heads * shape.head_dim);
        let name = |rest: &str| format!("model.layers.{index}.{rest}");
        let [q, k, v, o] = ["q", "k", "v", "o"].map(|p| name(&format!("self_attn.{p}_proj")));
        let attention = &layer.attention;
        let qkv = [(&*q, q_width), (&k, kv_width), (&v, kv_width)];
        let input_norm = self.vector(&[(&name("input_layernorm.weight"), hidden)])?;
        let qkv = self.linear(hidden, &qkv, attention.qkv_bias)?;
        let head_norms = match attention.head_norms {
            true => {
                let mut norm = |part| self.vector(&[(&name(part), shape.head_dim)]);
                Some((norm("self_attn.q_norm.weight")?, norm("self_attn.k_norm.weight")?))
            }
            false => None,
        };
        let sinks = match attention.sinks {
            true => Some(self.vector(&[(&name("self_attn.sinks"), shape.heads)])?),
            false => None,
        };
        let attention_output = self.linear(q_width, &[(&o, hidden)], attention.output_bias)?;
        let post_attention_norm = self.vector(&[(&name("post_attention_layernorm.weight"), hidden)])?;
        let feed_forward = match &layer.feed_forward {
            FeedForward::Dense { width } => {
                let [gate, up, down] = ["gate", "up", "down"].map(|p| name(&format!("mlp.{p}_proj")));
                let gate_up = self.linear(hidden, &[(&gate, *width), (&up, *width)], false)?;
                FeedForwardWeights::Dense { gate_up, down: self.linear(*width, &[(&down, hidden)], false)? }
            }
            FeedForward::Experts(experts) => self.experts(hidden, &name, experts)?,
        };
        Ok(LayerWeights {
            input_norm,
            qkv,
            head_norms,
            sinks,
            attention_output,
            post_attention_norm,
            feed_forward,
        })
    }

    fn experts(
        &mut self,
        hidden: usize,
        name: &dyn Fn(&str) -> String,
        experts: &Experts,
    ) -> Result<FeedForwardWeights<D>, LoadError> {
        let (count, width) = (experts.routing.experts, experts.width);
        // Small, and a wrong choice of expert costs more than a rounded product.
        let router = self.linear_as(
            WeightFormat::Full,
            hidden,
            &[(&name(experts.router), count)],
            experts.router_bias,
        )?;
        let (gate_up, down) = match experts.weights {
            ExpertWeights::Each { folder } => {
                let part = |e: usize, p: &str| name(&format!("{folder}.{e}.{p}_proj.weight"));
                let gate_up = (0..count)
                    .map(|e| self.stored(hidden, &[(&part(e, "gate"), width), (&part(e, "up"), width)]));
                let gate_up = StoredExperts::Plain(gate_up.collect::<Result<_, _>>()?);
                let down = (0..count).map(|e| self.stored(width, &[(&part(e, "down"), hidden)]));
                let down = StoredExperts::Plain(down.collect::<Result<_, _>>()?);
                (self.expert_linear(&gate_up, None)?, self.expert_linear(&down, None)?)
            }
            ExpertWeights::Mxfp4 { folder } => {
                let stack = |part: &str| name(&format!("{folder}.{part}_proj"));
                let gate_up = self.mxfp4(&stack("gate_up"), [count, 2 * width, hidden], true)?;
                (gate_up, self.mxfp4(&stack("down"), [count, hidden, width], false)?)
            }
        };
        let Experts { routing, gate, .. } = *experts;
        Ok(FeedForwardWeights::Experts { router, routing, gate, gate_up, down })
    }

    /// A stack of matrices in MXFP4, with its bias.
    fn mxfp4(
        &mut self,
        name: &str,
        [experts, rows, columns]: [usize; 3],
        interleaved: bool,
    ) -> Result<ExpertLinear<D>, LoadError> {
        let (blocks, block_bytes) = (columns / mxfp4::BLOCK, mxfp4::BLOCK / 2);
        let stored = StoredMxfp4 {
            experts,
            rows,
            columns,
            blocks: self
                .checkpoint
                .bytes_of(&format!("{name}_blocks"), &[experts, rows, blocks, block_bytes])?,
            scales: self.checkpoint.bytes_of(&format!("{name}_scales"), &[experts, rows, blocks])?,
            interleaved,
        };
        let mut bias = vec![0.0; experts * rows];
        self.checkpoint.tensor(&format!("{name}_bias"), &[experts, rows])?.read_f32(0, &mut bias);
        if interleaved {
            let stored = bias.clone();
            for (at, bias) in bias.iter_mut().enumerate() {
                *bias = stored[at / rows * rows + deinterleaved(at % rows, rows)];
            }
        }
        self.expert_linear(&StoredExperts::Mxfp4(stored), Some(&bias))
    }

    fn expert_linear(
        &mut self,
        stored: &StoredExperts<'_>,
        bias: Option<&[f32]>,
    ) -> Result<ExpertLinear<D>, LoadError> {
        let matrices = self
            .device
            .experts(stored, self.format)
            .map_err(|source| out_of_memory::<D>(stored.elements(), source))?;
        self.report(stored.elements());
        Ok(ExpertLinear { matrices, bias: bias.map(|bias| self.device.vector(bias)) })
    }

    /// The projection `[Σ rows, columns]` of `parts` (name, rows), one below the other.
    fn linear(
        &mut self,
        columns: usize,
        parts: &[(&str, usize)],
        has_bias: bool,
    ) -> Result<Linear<D>, LoadError> {
        self.linear_as(self.format, columns, parts, has_bias)
    }

    fn linear_as(
        &mut self,
        format: WeightFormat,
        columns: usize,
        parts: &[(&str, usize)],
        has_bias: bool,
    ) -> Result<Linear<D>, LoadError> {
        let of_parts = |what: &str| -> Vec<(String, usize)> {
            parts.iter().map(|(name, rows)| (format!("{name}.{what}"), *rows)).collect()
        };
        let matrix = self.matrix_as(format, columns, &borrowed(&of_parts("weight")))?;
        let bias = if has_bias { Some(self.vector(&borrowed(&of_parts("bias")))?) } else { None };
        Ok(Linear { matrix, bias })
    }

    /// The matrix `[Σ rows, columns]` of `parts` (tensor, rows), one below the other.
    fn matrix(&mut self, columns: usize, parts: &[(&str, usize)]) -> Result<D::Matrix, LoadError> {
        self.matrix_as(self.format, columns, parts)
    }

    fn matrix_as(
        &mut self,
        format: WeightFormat,
        columns: usize,
        parts: &[(&str, usize)],
    ) -> Result<D::Matrix, LoadError> {
        let stored = self.stored(columns, parts)?;
        let elements = stored.rows() * columns;
        let matrix = self.device.matrix(&stored, format);
        let matrix = matrix.map_err(|source| out_of_memory::<D>(elements, source))?;
        self.report(elements);
        Ok(matrix)
    }

    fn stored(&self, columns: usize, parts: &[(&str, usize)]) -> Result<StoredMatrix<'a>, LoadError> {
        let tensor =
            |(name, rows): &(&str, usize)| Ok((self.checkpoint.tensor(name, &[*rows, columns])?, *rows));
        Ok(StoredMatrix::new(columns, &parts.iter().map(tensor).collect::<Result<Vec<_>, LoadError>>()?))
    }

    /// The vector of `parts` (tensor, length), one after the other.
    fn vector(&mut self, parts: &[(&str, usize)]) -> Result<D::Vector, LoadError> {
        let mut out = Vec::new();
        for (name, len) in parts {
            let start = out.len();
            out.resize(start + len, 0.0);
            self.checkpoint.tensor(name, &[*len])?.read_f32(0, &mut out[start..]);
        }
        Ok(self.device.vector(&out))
    }

    fn report(&mut self, elements: usize) {
        self.done += elements;
        if let Some(progress) = self.progress {
            progress(LoadProgress { done: self.done, total: self.total });
        }
    }
}

fn borrowed(parts: &[(String, usize)]) -> Vec<(&str, usize)> {
    parts.iter().map(|(name, rows)| (&**name, *rows)).collect()
}

fn out_of_memory<D: Device>(elements: usize, source: std::io::Error) -> LoadError {
    LoadError::OutOfMemory { bytes: elements * D::DTYPE.bytes(), source }
}
