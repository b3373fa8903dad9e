//! The bytes that each token stands for, when the vocabulary is a byte-level one.

/// Bytes of every token id, in one allocation.
///
/// Byte-level BPE (GPT-2, Llama 3, Qwen) writes each byte as one printable character, so a token's bytes do not depend
/// on its neighbours, and text is assembled from bytes without asking the tokenizer again.
#[derive(Debug)]
pub(crate) struct TokenBytes {
    bytes: Vec<u8>,
    // ends[id] = end of the token's bytes; its start is the end of the one before.
    ends: Vec<u32>,
}

impl TokenBytes {
    /// From the vocabulary's own spelling of each token; `None` where an id has no token.
    pub(crate) fn new(spellings: impl Iterator<Item = Option<String>>) -> Self {
        let mut table = Self { bytes: Vec::new(), ends: Vec::new() };
        for spelling in spellings {
            if let Some(spelling) = spelling {
                push_token(&spelling, &mut table.bytes);
            }
            table.ends.push(u32::try_from(table.bytes.len()).unwrap_or(u32::MAX));
        }
        table
    }

    /// Bytes of `id`; none for an id outside the vocabulary.
    pub(crate) fn get(&self, id: u32) -> &[u8] {
        let Some(&end) = self.ends.get(id as usize) else { return &[] };
        let start = if id == 0 { 0 } else { self.ends[id as usize - 1] };
        &self.bytes[start as usize..end as usize]
    }
}

/// An added token may hold characters outside the alphabet: then its spelling is its text.
fn push_token(spelling: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in spelling.chars() {
        if let Some(byte) = byte_of(c) {
            out.push(byte);
        } else {
            out.truncate(start);
            out.extend_from_slice(spelling.as_bytes());
            return;
        }
    }
}

/// GPT-2's alphabet (`bytes_to_unicode` in openai/gpt-2 `encoder.py`): printable Latin-1 stands for itself, and the other
/// 68 bytes, in order, are U+0100 upward.
fn byte_of(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(), // 0x00..=0x20
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7F).ok(), // 0x7F..=0xA0
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_has_each_byte_once() {
        let mut bytes: Vec<u8> = (0..0x200).filter_map(char::from_u32).filter_map(byte_of).collect();
        bytes.sort_unstable();
        assert_eq!(bytes, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn a_token_outside_the_alphabet_is_its_own_text() {
        let table = TokenBytes::new([Some("Ġa".to_owned()), None, Some("<| |>".to_owned())].into_iter());
        assert_eq!(table.get(0), b" a");
        assert_eq!(table.get(1), b"");
        assert_eq!(table.get(2), b"<| |>");
        assert_eq!(table.get(99), b"");
    }
}
