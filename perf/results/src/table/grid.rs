use std::fmt;

/// Rows of cells under each other: the first `left` columns flush left, the others flush right, two spaces between.
pub(super) struct Grid {
    left: usize,
    rows: Vec<Vec<String>>,
}

impl Grid {
    pub(super) fn new<S: Into<String>>(left: usize, header: impl IntoIterator<Item = S>) -> Self {
        let mut grid = Self { left, rows: Vec::new() };
        grid.row(header);
        grid
    }

    pub(super) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Whether it has no row but its header.
    pub(super) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let gap = if column == 0 { "" } else { "  " };
                let width = widths[column];
                line += &match column < self.left {
                    true => format!("{gap}{cell:<width$}"),
                    false => format!("{gap}{cell:>width$}"),
                };
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_characters() {
        let mut grid = Grid::new(1, ["", "p50", "p99"]);
        grid.row(["TTFT é", "1.0", "12.0"]);
        grid.row(["x", "100.0", "-"]);
        assert_eq!(grid.to_string(), "          p50   p99\nTTFT é    1.0  12.0\nx       100.0     -\n");
    }
}
