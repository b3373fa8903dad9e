//! All tokens by their bytes, whatever kind of vocabulary it is; grammars need to know them.

use serde_json::Value;

use crate::Tokenizer;

/// One token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VocabularyToken {
    /// What it stands for in the middle of a text; empty for an id that has no token.
    pub bytes: Vec<u8>,
    /// Whether it is a control token, which has no text of its own.
    pub is_special: bool,
}

/// How a vocabulary that is not byte-level spells its tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Spelling {
    /// `▁` is a space.
    has_word_marks: bool,
    /// `<0x0A>` is a byte.
    has_byte_tokens: bool,
}

impl Tokenizer {
    /// All tokens, by id; `None` for a kind of vocabulary whose tokens have no bytes of their own.
    pub fn vocabulary(&self) -> Option<Vec<VocabularyToken>> {
        let ids = 0..self.vocab_size();
        let is_special = |id| self.is_special(id);
        if self.bytes_of(0).is_some() {
            let bytes = |id| self.bytes_of(id).unwrap_or_default().to_vec();
            return Some(
                ids.map(|id| VocabularyToken { bytes: bytes(id), is_special: is_special(id) }).collect(),
            );
        }
        let spelling = Spelling::of(&self.decoder()?)?;
        let bytes = |id| self.spelling(id).map_or_else(Vec::new, |text| spelling.bytes(&text));
        Some(ids.map(|id| VocabularyToken { bytes: bytes(id), is_special: is_special(id) }).collect())
    }

    /// The id of the token that stands for exactly `text`, if it is one that the tokenizer never splits.
    pub fn added_token(&self, text: &str) -> Option<u32> {
        self.added().get(text).copied()
    }
}

impl Spelling {
    /// Read off the tokenizer's decoder, as its file writes it; `None` for decoders that do more than that.
    fn of(decoder: &Value) -> Option<Self> {
        match decoder["type"].as_str()? {
            "Sequence" => {
                let mut parts = decoder["decoders"].as_array()?.iter().map(Self::of);
                parts.try_fold(Self::default(), |all, part| {
                    let part = part?;
                    Some(Self {
                        has_word_marks: all.has_word_marks | part.has_word_marks,
                        has_byte_tokens: all.has_byte_tokens | part.has_byte_tokens,
                    })
                })
            }
            "Metaspace" => Some(Self { has_word_marks: true, ..Self::default() }),
            "Replace" if decoder["pattern"]["String"] == WORD_MARK && decoder["content"] == " " => {
                Some(Self { has_word_marks: true, ..Self::default() })
            }
            "ByteFallback" => Some(Self { has_byte_tokens: true, ..Self::default() }),
            "Fuse" | "Strip" => Some(Self::default()),
            _ => None,
        }
    }

    fn bytes(self, spelling: &str) -> Vec<u8> {
        if self.has_byte_tokens
            && let Some(byte) = byte_token(spelling)
        {
            return vec![byte];
        }
        if self.has_word_marks {
            return spelling.replace(WORD_MARK, " ").into_bytes();
        }
        spelling.as_bytes().to_vec()
    }
}

const WORD_MARK: &str = "▁";

fn byte_token(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn llamas_older_spelling_is_read_off_its_decoder() {
        let decoder = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]});
        let spelling = Spelling::of(&decoder).unwrap();
        assert_eq!(spelling.bytes("▁a▁"), b" a ");
        assert_eq!(spelling.bytes("<0x0A>"), b"\n");
        assert_eq!(spelling.bytes("<0x0A"), b"<0x0A");
        assert_eq!(Spelling::of(&json!({"type": "WordPiece"})), None);
    }
}
