//! Where prompts are cut into pieces.
//!
//! Prompts share whole pieces only, so what they share is told to within an eighth of its length: pieces have 64 tokens up to the 1,024th, then 128 up to the
//! 2,048th, 256 up to the 4,096th, and 512 from there on. That is 40 pieces for 8,192 tokens and 219 for 100,000.

/// The shortest piece, where blocks allow it.
const LEAST: u32 = 64;
/// The longest.
const MOST: u32 = 512;

/// Ends of the pieces of a prompt of `tokens` whose beginning is known up to each multiple of `block`: those multiples that are nearest.
pub(super) fn ends(block: u32, tokens: u32) -> impl Iterator<Item = u32> {
    let next = move |&end: &u32| {
        let step = (end / 8).clamp(LEAST, MOST);
        let power = 1 << step.ilog2();
        end.checked_add(u32::next_multiple_of(power, block))
    };
    std::iter::successors(next(&0), next).take_while(move |&end| end <= tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shared_is_told_to_within_an_eighth() {
        for block in [1, 16, 48, 64, 128, 1_024] {
            let all: Vec<u32> = ends(block, 200_000).collect();
            let mut before = 0;
            for end in &all {
                assert_eq!(end % block, 0);
                let length = end - before;
                assert!(length <= (before / 8).max(LEAST).next_multiple_of(block), "{before} to {end}");
                assert!(length <= MOST.next_multiple_of(block));
                before = *end;
            }
            let shorter: Vec<u32> = ends(block, 5_000).collect();
            assert_eq!(shorter[..], all[..shorter.len()], "a longer prompt is cut alike");
        }
        assert_eq!((ends(16, 8_192).count(), ends(16, 100_000).count()), (40, 219));
        assert_eq!(ends(16, 63).count(), 0);
    }
}
