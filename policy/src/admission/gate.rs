//! A switch with hysteresis.

/// Open until a pressure has reached the high mark; then closed until it has fallen to the low one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    low: f64,
    high: f64,
    is_open: bool,
    pressure: f64,
}

impl Gate {
    /// Open. Marks the wrong way round are taken as one.
    #[must_use]
    pub fn new(low: f64, high: f64) -> Self {
        Self { low: low.min(high), high, is_open: true, pressure: 0.0 }
    }

    /// The pressure now.
    pub fn see(&mut self, pressure: f64) {
        self.pressure = pressure;
        if pressure >= self.high {
            self.is_open = false;
        } else if pressure <= self.low {
            self.is_open = true;
        }
    }

    /// The last pressure; 1 is the high mark.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        self.pressure / self.high
    }

    /// Whether something may pass.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.is_open
    }
}
