//! What accelerators and models are like, by their makers' data sheets and configurations.

/// An accelerator, and its share of the machine's network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Accelerator {
    /// The machine's name at its cloud.
    pub name: &'static str,
    /// What it is.
    pub what: &'static str,
    /// Dense bf16, FLOP/s.
    pub flops: f64,
    /// Memory, bytes/s.
    pub memory_bytes_per_second: f64,
    /// Memory, bytes.
    pub memory_bytes: f64,
    /// EFA, bytes/s: the machine's by its number of accelerators.
    pub network_bytes_per_second: f64,
}

/// A dense decoder in bf16.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ModelShape {
    /// Its name.
    pub name: &'static str,
    /// Parameters.
    pub parameters: f64,
    /// Layers.
    pub layers: u32,
    /// Heads of queries.
    pub heads: u32,
    /// Heads of keys and values.
    pub kv_heads: u32,
    /// Of a head.
    pub head_dim: u32,
}

/// Machines of AWS with eight accelerators and 3,200 Gb/s of EFA each. Sources: AWS's pages of the instance types, NVIDIA's data sheets (half of the FLOP/s
/// that are given with sparsity).
pub const ACCELERATORS: [Accelerator; 3] = [
    Accelerator {
        name: "p5",
        what: "H100 SXM, 80 GB",
        flops: 989e12,
        memory_bytes_per_second: 3.35e12,
        memory_bytes: 80e9,
        network_bytes_per_second: 50e9,
    },
    Accelerator {
        name: "p5en",
        what: "H200 SXM, 141 GB",
        flops: 989e12,
        memory_bytes_per_second: 4.8e12,
        memory_bytes: 141e9,
        network_bytes_per_second: 50e9,
    },
    Accelerator {
        name: "p6-b200",
        what: "B200, 179 GB",
        flops: 2.25e15,
        memory_bytes_per_second: 7.7e12,
        memory_bytes: 179e9,
        network_bytes_per_second: 50e9,
    },
];

/// Models, by their `config.json`.
pub const MODELS: [ModelShape; 3] = [
    ModelShape {
        name: "llama-3.1-8b",
        parameters: 8.03e9,
        layers: 32,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
    },
    ModelShape {
        name: "llama-3.1-70b",
        parameters: 70.6e9,
        layers: 80,
        heads: 64,
        kv_heads: 8,
        head_dim: 128,
    },
    ModelShape { name: "qwen3-32b", parameters: 32.8e9, layers: 64, heads: 64, kv_heads: 8, head_dim: 128 },
];

impl Accelerator {
    /// By the machine's name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        ACCELERATORS.into_iter().find(|accelerator| accelerator.name.eq_ignore_ascii_case(name))
    }
}

impl ModelShape {
    /// By name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        MODELS.into_iter().find(|model| model.name.eq_ignore_ascii_case(name))
    }

    /// Bytes of its weights, bf16.
    #[must_use]
    pub fn weight_bytes(&self) -> f64 {
        2.0 * self.parameters
    }

    /// Bytes of one token's keys and values over all layers, bf16.
    #[must_use]
    pub fn kv_bytes_per_token(&self) -> f64 {
        2.0 * 2.0 * f64::from(self.layers) * f64::from(self.kv_heads) * f64::from(self.head_dim)
    }

    /// FLOP of one token without attention: a multiplication and an addition for each parameter.
    #[must_use]
    pub fn flop_per_token(&self) -> f64 {
        2.0 * self.parameters
    }

    /// FLOP of one pair of a new token and one before it: scores and sums, in each head of each layer.
    #[must_use]
    pub fn flop_per_pair(&self) -> f64 {
        4.0 * f64::from(self.layers) * f64::from(self.heads) * f64::from(self.head_dim)
    }
}
