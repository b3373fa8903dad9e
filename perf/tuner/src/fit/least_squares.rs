//! Least squares with three coefficients that are not negative.

use baton_results::{Sorted, Stats};
use serde::Serialize;

use super::FitError;

/// A measurement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    /// What pieces are cut by.
    pub(super) size: u64,
    pub(super) features: [f64; 3],
    /// ms.
    pub(super) value: f64,
}

/// How far what was fitted is from what was measured, as shares of what was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Residuals {
    /// Records.
    pub records: usize,
    /// Mean of the absolute errors.
    pub mean: f64,
    /// Of nine in ten records, the largest absolute error.
    pub p90: f64,
    /// The largest absolute error.
    pub worst: f64,
}

/// Pieces by their ends, and what they leave.
pub(super) struct Fitted {
    pub(super) pieces: Vec<(Option<u64>, [f64; 3])>,
    pub(super) residuals: Residuals,
}

/// A piece has at least so many records.
const LEAST_ROWS: usize = 4;
/// Two pieces must leave at most this share of the squares that one leaves.
const WORTH: f64 = 0.6;
/// Cuts of a piece, one within the other.
const MOST_SPLITS: u32 = 2;

/// In one piece.
pub(super) fn single(what: &'static str, rows: &[Row]) -> Result<Fitted, FitError> {
    check(what, rows)?;
    let coefficients = solve(rows);
    Ok(Fitted { residuals: residuals(rows, |_| coefficients), pieces: vec![(None, coefficients)] })
}

/// In as few pieces as explain it.
pub(super) fn in_pieces(what: &'static str, rows: &[Row]) -> Result<Fitted, FitError> {
    check(what, rows)?;
    let mut rows = rows.to_vec();
    rows.sort_by_key(|row| row.size);
    let pieces = split(&rows, MOST_SPLITS);
    let of = |row: &Row| {
        let has = |end: Option<u64>| end.is_none_or(|end| row.size <= end);
        pieces.iter().find(|(end, _)| has(*end)).map_or([0.0; 3], |(_, coefficients)| *coefficients)
    };
    Ok(Fitted { residuals: residuals(&rows, of), pieces })
}

/// Cut in two where that leaves least, if it is worth it, and each part again. `rows` are in order of their sizes.
fn split(rows: &[Row], most: u32) -> Vec<(Option<u64>, [f64; 3])> {
    let all = solve(rows);
    let of_one = squares(rows, &all);
    // What one piece explains to a thousandth needs no other.
    let is_explained = of_one / rows.len() as f64 <= 1e-6;
    let mut best: Option<(f64, usize)> = None;
    for at in LEAST_ROWS..rows.len().saturating_sub(LEAST_ROWS - 1) {
        let (low, high) = rows.split_at(at);
        if low[at - 1].size == high[0].size || most == 0 || is_explained {
            continue;
        }
        let sum = squares(low, &solve(low)) + squares(high, &solve(high));
        if sum < best.map_or(of_one * WORTH, |best| best.0) {
            best = Some((sum, at));
        }
    }
    let Some((_, at)) = best else { return vec![(None, all)] };
    let (low, high) = rows.split_at(at);
    let mut pieces = split(low, most - 1);
    if let Some((end, _)) = pieces.last_mut() {
        *end = Some(low[at - 1].size);
    }
    pieces.extend(split(high, most - 1));
    pieces
}

fn check(what: &'static str, rows: &[Row]) -> Result<(), FitError> {
    if let Some(at) = rows.iter().position(|row| !row.value.is_finite() || row.value <= 0.0) {
        return Err(FitError::Time { what, record: at + 1, seconds: rows[at].value / 1e3 });
    }
    let mut sizes: Vec<u64> = rows.iter().map(|row| row.size).collect();
    sizes.sort_unstable();
    sizes.dedup();
    let usable = rows.len().min(if sizes.len() < 2 { sizes.len() } else { rows.len() });
    if usable < LEAST_ROWS {
        return Err(FitError::TooFew { what, usable, needed: LEAST_ROWS });
    }
    Ok(())
}

/// Of all sets of coefficients that are not zero, the one with the least squares in which none is negative: three make seven.
fn solve(rows: &[Row]) -> [f64; 3] {
    let (mut best, mut least) = ([0.0; 3], f64::INFINITY);
    for set in 1..8_u8 {
        let Some(solved) = solve_set(rows, set) else { continue };
        let sum = squares(rows, &solved);
        if solved.iter().all(|&value| value >= 0.0) && sum < least {
            (best, least) = (solved, sum);
        }
    }
    best
}

fn squares(rows: &[Row], coefficients: &[f64; 3]) -> f64 {
    rows.iter().map(|row| error(row, coefficients).powi(2)).sum()
}

fn error(row: &Row, coefficients: &[f64; 3]) -> f64 {
    let fitted: f64 = row.features.iter().zip(coefficients).map(|(feature, value)| feature * value).sum();
    (fitted - row.value) / row.value
}

fn residuals(rows: &[Row], coefficients: impl Fn(&Row) -> [f64; 3]) -> Residuals {
    let errors = rows.iter().map(|row| error(row, &coefficients(row)).abs());
    Residuals::new(errors.collect()).unwrap_or_default()
}

impl Residuals {
    /// Of absolute errors; none of none.
    pub(super) fn new(errors: Vec<f64>) -> Option<Self> {
        let sorted = Sorted::new(errors);
        let Stats { count, mean, p90, max, .. } = sorted.stats()?;
        Some(Self { records: count as usize, mean, p90, worst: max })
    }
}

// Normal equations of the columns in `set`, each scaled to 1 at most; errors are relative.
fn solve_set(rows: &[Row], set: u8) -> Option<[f64; 3]> {
    let columns: Vec<usize> = (0..3).filter(|column| set >> column & 1 == 1).collect();
    let scaled = |row: &Row, column: usize| row.features[column] / row.value;
    let scale: Vec<f64> = columns
        .iter()
        .map(|&column| rows.iter().map(|row| scaled(row, column).abs()).fold(0.0, f64::max))
        .collect();
    if scale.iter().any(|&scale| scale <= 0.0) {
        return None;
    }
    let count = columns.len();
    let mut matrix = vec![vec![0.0; count + 1]; count];
    for row in rows {
        let values: Vec<f64> =
            columns.iter().zip(&scale).map(|(&column, scale)| scaled(row, column) / scale).collect();
        for (a, line) in matrix.iter_mut().enumerate() {
            for (b, value) in values.iter().enumerate() {
                line[b] += values[a] * value;
            }
            line[count] += values[a];
        }
    }
    for pivot in 0..count {
        let largest =
            (pivot..count).max_by(|&a, &b| matrix[a][pivot].abs().total_cmp(&matrix[b][pivot].abs()))?;
        matrix.swap(pivot, largest);
        // Columns that say the same.
        if matrix[pivot][pivot].abs() < 1e-9 * rows.len() as f64 * 1e-3 {
            return None;
        }
        let above = matrix[pivot].clone();
        for (_, line) in matrix.iter_mut().enumerate().filter(|(line, _)| *line != pivot) {
            let factor = line[pivot] / above[pivot];
            line.iter_mut().zip(&above).for_each(|(value, above)| *value -= factor * above);
        }
    }
    let mut solved = [0.0; 3];
    for (at, (&column, scale)) in columns.iter().zip(&scale).enumerate() {
        solved[column] = matrix[at][count] / matrix[at][at] / scale;
    }
    Some(solved)
}
