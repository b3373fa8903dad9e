//! Rotary position embedding: the frequency of each pair of head elements.

use serde_json::Value;

use super::{
    LoadError,
    settings::{Settings, config, positive, unsupported},
};

/// How positions become angles.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Rope {
    theta: f64,
    scaling: Scaling,
}

/// How frequencies are changed for contexts longer than the model was first trained on.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Scaling {
    /// Not at all.
    None,
    /// Positions divided by a factor.
    Linear { factor: f64 },
    /// Llama 3.1's: long wavelengths divided by a factor, short ones kept, a ramp between.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position: f64 },
    /// YaRN's: the same, with the ramp over the pairs' numbers, from the pair that turns `beta_fast` times within the
    /// original context to the one that turns `beta_slow` times; queries and keys grow by `attention_factor`.
    Yarn {
        factor: f64,
        beta_fast: f64,
        beta_slow: f64,
        original_max_position: f64,
        truncate: bool,
        attention_factor: f64,
    },
}

impl Rope {
    /// Newer transformers write one `rope_parameters`; older ones `rope_theta` beside `rope_scaling`.
    pub(super) fn parse(settings: Settings<'_>) -> Result<Self, LoadError> {
        let objects = ["rope_parameters", "rope_scaling"].map(|field| settings.value(field));
        let rope = objects.into_iter().find(|v| v.is_object());
        let theta = rope.map(|r| &r["rope_theta"]).filter(|v| !v.is_null());
        Ok(Self {
            theta: positive(theta.unwrap_or(settings.value("rope_theta")), "rope_theta", 10_000.0)?,
            scaling: Scaling::parse(rope.unwrap_or(&Value::Null))?,
        })
    }

    /// What cosines and sines are multiplied by.
    pub(super) fn attention_factor(self) -> f32 {
        match self.scaling {
            Scaling::Yarn { attention_factor, .. } => attention_factor as f32,
            _ => 1.0,
        }
    }

    /// Radians per token of each pair, `[head_dim / 2]`.
    ///
    /// Formulas and precision (single, as transformers computes it) after `modeling_rope_utils.py` of transformers.
    pub(super) fn frequencies(self, head_dim: usize) -> Vec<f32> {
        let power = |i: usize| (self.theta as f32).powf((2 * i) as f32 / head_dim as f32);
        (0..head_dim / 2).map(|i| self.scaling.frequency(i, power(i), self.theta, head_dim)).collect()
    }
}

impl Scaling {
    /// From the object `rope_parameters` or `rope_scaling` of `config.json`.
    fn parse(rope: &Value) -> Result<Self, LoadError> {
        let kind =
            [&rope["rope_type"], &rope["type"]].into_iter().find_map(Value::as_str).unwrap_or("default");
        let needed = |field: &'static str| match &rope[field] {
            Value::Null => Err(config(field, format!("is missing from the rope settings of type {kind}"))),
            value => positive(value, field, 0.0),
        };
        match &rope["partial_rotary_factor"] {
            part if part.is_null() || part.as_f64() == Some(1.0) => {}
            part => return Err(unsupported("partial_rotary_factor", part.to_string(), "1")),
        }
        match kind {
            "default" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: needed("factor")? }),
            "llama3" => Ok(Self::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_max_position: needed("original_max_position_embeddings")?,
            }),
            "yarn" => {
                // DeepSeek's way of stating the attention factor.
                if let Some(field) = ["mscale", "mscale_all_dim"].into_iter().find(|f| !rope[f].is_null()) {
                    return Err(unsupported(field, rope[field].to_string(), "none"));
                }
                let factor = needed("factor")?;
                let growth = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
                Ok(Self::Yarn {
                    factor,
                    beta_fast: positive(&rope["beta_fast"], "beta_fast", 32.0)?,
                    beta_slow: positive(&rope["beta_slow"], "beta_slow", 1.0)?,
                    original_max_position: needed("original_max_position_embeddings")?,
                    truncate: rope["truncate"].as_bool().unwrap_or(true),
                    attention_factor: positive(&rope["attention_factor"], "attention_factor", growth)?,
                })
            }
            other => Err(unsupported("rope_type", other.to_owned(), "default, linear, llama3, yarn")),
        }
    }

    /// Frequency of pair `pair`, whose wavelength is `power` tokens times 2 pi without scaling.
    fn frequency(self, pair: usize, power: f32, theta: f64, head_dim: usize) -> f32 {
        let frequency = 1.0 / power;
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position } => {
                let wavelength = 2.0 * std::f64::consts::PI / f64::from(frequency);
                if wavelength > original_max_position / low_freq_factor {
                    return frequency / factor as f32;
                }
                if wavelength < original_max_position / high_freq_factor {
                    return frequency;
                }
                let smooth = (original_max_position / wavelength - low_freq_factor)
                    / (high_freq_factor - low_freq_factor);
                let f = f64::from(frequency);
                ((1.0 - smooth) * f / factor + smooth * f) as f32
            }
            Self::Yarn { factor, beta_fast, beta_slow, original_max_position, truncate, .. } => {
                let dim = head_dim as f64;
                // The pair that turns `turns` times within the original context.
                let pair_of = |turns: f64| {
                    let wavelength = original_max_position / turns / (2.0 * std::f64::consts::PI);
                    dim * wavelength.ln() / (2.0 * theta.ln())
                };
                let (mut low, mut high) = (pair_of(beta_fast), pair_of(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                let ramp = ((pair as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
                let kept = 1.0 - ramp;
                1.0 / (factor as f32 * power) * (1.0 - kept) + frequency * kept
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frequencies(rope: &Value) -> Vec<f32> {
        Rope::parse(Settings(&json!({"rope_parameters": rope}))).unwrap().frequencies(128)
    }

    #[test]
    fn llama3_keeps_short_wavelengths_and_divides_long_ones() {
        let plain = frequencies(&json!({"rope_theta": 500_000.0}));
        let scaled = frequencies(&json!({"rope_theta": 500_000.0, "rope_type": "llama3", "factor": 8.0,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}));
        assert_eq!(plain[0], scaled[0]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(scaled.windows(2).all(|w| w[1] < w[0]), "no jump in the ramp");
    }

    #[test]
    fn yarn_keeps_fast_pairs_and_divides_slow_ones() {
        let plain = frequencies(&json!({"rope_theta": 150_000.0}));
        let yarn = json!({"rope_theta": 150_000.0, "rope_type": "yarn", "factor": 32.0,
            "original_max_position_embeddings": 4096, "truncate": false});
        let scaled = frequencies(&yarn);
        assert_eq!(plain[0], scaled[0]);
        assert!((plain[63] / 32.0 / scaled[63] - 1.0).abs() < 1e-6);
        assert!(scaled.windows(2).all(|w| w[1] < w[0]), "no jump in the ramp");
        let factor = Rope::parse(Settings(&json!({"rope_parameters": yarn}))).unwrap().attention_factor();
        assert!((factor - 1.346_573_6).abs() < 1e-6, "0.1 ln 32 + 1, not {factor}");
    }

    /// Pairs 24, 28, 32 and 36 of a head of 128, from transformers 5.23, with the ends of the ramp rounded and not.
    #[test]
    fn yarn_has_the_ramp_of_transformers() {
        let yarn = |truncate: bool| {
            frequencies(&json!({"rope_theta": 1e6, "rope_type": "yarn", "factor": 4.0,
                "original_max_position_embeddings": 32768, "truncate": truncate}))
        };
        for (truncate, want) in [
            (true, [5.375_321_5e-3, 1.848_276_6e-3, 6.029_411_4e-4, 1.798_411_5e-4]),
            (false, [5.517_270_4e-3, 1.883_502_6e-3, 6.074_08e-4, 1.773_442_3e-4]),
        ] {
            for (found, want) in yarn(truncate)[24..].iter().step_by(4).zip(want) {
                assert!((found / want - 1.0).abs() < 2e-6, "{truncate}: {found}, not {want}");
            }
        }
    }
}
