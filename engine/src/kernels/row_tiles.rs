//! Rows cut into tiles whose sums fit into the registers.

/// `(first row, height)` of the fewest tiles of at most `max` rows, all of nearly the same height.
#[inline]
pub(super) fn row_tiles(rows: usize, max: usize) -> impl ExactSizeIterator<Item = (usize, usize)> {
    let tiles = rows.div_ceil(max);
    (0..tiles).map(move |tile| {
        let first = tile * rows / tiles;
        (first, (tile + 1) * rows / tiles - first)
    })
}

#[cfg(test)]
mod tests {
    use super::row_tiles;

    #[test]
    fn tiles_cover_the_rows_and_differ_by_one_at_most() {
        for (rows, max) in (0..100).flat_map(|rows| [(rows, 6), (rows, 12), (rows, 1)]) {
            let tiles: Vec<_> = row_tiles(rows, max).collect();
            let next = tiles.iter().fold(0, |next, (first, height)| {
                assert_eq!(*first, next);
                next + height
            });
            assert_eq!((next, tiles.len()), (rows, rows.div_ceil(max)));
            let heights = tiles.iter().map(|(_, height)| *height);
            let (least, most) = (heights.clone().min(), heights.max());
            assert!(most <= Some(max) && most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{tiles:?}");
        }
    }
}
