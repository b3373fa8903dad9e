//! The crate's random numbers: from the system, or from the seed of a simulation.

/// Any number.
pub(crate) fn number() -> u64 {
    #[cfg(test)]
    if let Some(number) = crate::sim::random() {
        return number;
    }
    rand::random()
}
