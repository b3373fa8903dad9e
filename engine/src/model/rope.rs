//! Rotary position embedding: the frequency of each pair of head elements.

use serde_json::Value;

use super::{
    LoadError,
    config::{config, positive},
};

/// How frequencies are changed for contexts longer than the model was first trained on.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum RopeScaling {
    /// Not at all.
    None,
    /// Positions divided by a factor.
    Linear { factor: f64 },
    /// Llama 3.1's: long wavelengths divided by a factor, short ones kept, a ramp between.
    Llama3 { factor: f64, low_freq_factor: f64, high_freq_factor: f64, original_max_position: f64 },
}

impl RopeScaling {
    /// From the object `rope_parameters` or `rope_scaling` of `config.json`.
    pub(super) fn parse(rope: &Value) -> Result<Self, LoadError> {
        let kind =
            [&rope["rope_type"], &rope["type"]].into_iter().find_map(Value::as_str).unwrap_or("default");
        let needed = |field: &'static str| match &rope[field] {
            Value::Null => Err(config(field, format!("is missing from the rope settings of type {kind}"))),
            value => positive(value, field, 0.0),
        };
        match kind {
            "default" => Ok(Self::None),
            "linear" => Ok(Self::Linear { factor: needed("factor")? }),
            "llama3" => Ok(Self::Llama3 {
                factor: needed("factor")?,
                low_freq_factor: needed("low_freq_factor")?,
                high_freq_factor: needed("high_freq_factor")?,
                original_max_position: needed("original_max_position_embeddings")?,
            }),
            other => Err(LoadError::UnsupportedSetting {
                field: "rope_type",
                found: other.to_owned(),
                supported: "default, linear, llama3",
            }),
        }
    }

    /// Radians per token of each pair, `[head_dim / 2]`.
    ///
    /// Formula and precision (single, as transformers computes it) after `modeling_rope_utils.py` of transformers.
    pub(super) fn frequencies(self, theta: f64, head_dim: usize) -> Vec<f32> {
        let plain = (0..head_dim / 2).map(|i| {
            let exponent = (2 * i) as f32 / head_dim as f32;
            1.0 / (theta as f32).powf(exponent)
        });
        plain.map(|f| self.scale(f)).collect()
    }

    fn scale(self, frequency: f32) -> f32 {
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
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llama3_keeps_short_wavelengths_and_divides_long_ones() {
        let rope = serde_json::json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let plain = RopeScaling::None.frequencies(500_000.0, 128);
        let scaled = RopeScaling::parse(&rope).unwrap().frequencies(500_000.0, 128);
        assert_eq!(plain[0], scaled[0]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(scaled.windows(2).all(|w| w[1] < w[0]), "no jump in the ramp");
    }
}
