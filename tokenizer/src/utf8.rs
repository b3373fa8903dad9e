//! UTF-8 that arrives in pieces.

/// Turns bytes into text as soon as characters are whole.
///
/// The text equals [`String::from_utf8_lossy`] of all bytes, whatever the pieces: a byte that can't begin or continue a
/// character becomes U+FFFD at once, the first bytes of a character wait for the rest.
#[derive(Debug, Default)]
pub(crate) struct Utf8Assembler {
    // Never more than the 3 bytes of an unfinished character between calls.
    pending: Vec<u8>,
}

impl Utf8Assembler {
    /// Takes `bytes`, and appends to `out` what has become text.
    pub(crate) fn push(&mut self, bytes: &[u8], out: &mut String) {
        self.pending.extend_from_slice(bytes);
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(text) => {
                    out.push_str(text);
                    done = self.pending.len();
                    break;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    out.push_str(&String::from_utf8_lossy(&self.pending[done..valid]));
                    done = valid;
                    let Some(invalid) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    done += invalid;
                }
            }
        }
        self.pending.drain(..done);
        debug_assert!(self.pending.len() < 4, "an unfinished character has at most 3 bytes");
    }

    /// There are no more bytes: an unfinished character becomes U+FFFD.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assemble(pieces: &[Vec<u8>]) -> String {
        let (mut assembler, mut out) = (Utf8Assembler::default(), String::new());
        for piece in pieces {
            assembler.push(piece, &mut out);
        }
        assembler.finish(&mut out);
        out
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_are_the_lossy_text(pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..5), 0..30)) {
            prop_assert_eq!(assemble(&pieces), String::from_utf8_lossy(&pieces.concat()).into_owned());
        }

        #[test]
        fn text_cut_anywhere_is_that_text(text in "\\PC{0,40}", cut in 1_usize..5) {
            let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(cut).map(<[u8]>::to_vec).collect();
            prop_assert_eq!(assemble(&pieces), text);
        }
    }

    #[test]
    fn the_first_bytes_of_a_character_wait() {
        let (mut assembler, mut out) = (Utf8Assembler::default(), String::new());
        assembler.push(&"é".as_bytes()[..1], &mut out);
        assert_eq!(out, "");
        assembler.push(&"é".as_bytes()[1..], &mut out);
        assert_eq!(out, "é");
    }
}
