//! Mooncake's traces (FAST '25 release).

use super::{
    MOONCAKE_BLOCK_TOKENS, Place, Row, RowOutput, RowPrompt,
    error::FieldError,
    fields::{Fields, missing, short},
};

pub(super) fn row(line: &str, place: Place) -> Result<Row, FieldError> {
    let mut fields = Fields::of_line(line)?;
    let at = fields.milliseconds("timestamp")?.ok_or_else(|| missing("timestamp"))?;
    let tokens = fields.tokens("input_length")?.ok_or_else(|| missing("input_length"))?;
    let output = fields.tokens("output_length")?.ok_or_else(|| missing("output_length"))?;
    let prompt = match fields.list("hash_ids")? {
        None => RowPrompt::Tokens(tokens),
        Some(ids) if ids.is_empty() => RowPrompt::Tokens(tokens),
        Some(ids) => {
            let ids = ids.iter().map(|id| {
                id.as_u64()
                    .ok_or_else(|| FieldError::new("hash_ids", format!("`{}` is not an id", short(id))))
            });
            RowPrompt::Pieces(blocks(ids.collect::<Result<_, _>>()?, tokens)?)
        }
    };
    Ok(Row { at: Some(at), output: Some(RowOutput::Tokens(output)), ..Row::at_place(place, prompt) })
}

/// Each id is 512 tokens, and the last what is left.
fn blocks(ids: Vec<u64>, tokens: u32) -> Result<Vec<(u64, u32)>, FieldError> {
    let needed = tokens.div_ceil(MOONCAKE_BLOCK_TOKENS) as usize;
    if ids.len() != needed {
        let problem = format!(
            "{} ids, but an `input_length` of {tokens} is {needed} blocks of {MOONCAKE_BLOCK_TOKENS} tokens",
            ids.len()
        );
        return Err(FieldError::new("hash_ids", problem));
    }
    let left = tokens - (needed as u32 - 1) * MOONCAKE_BLOCK_TOKENS;
    let mut blocks: Vec<_> = ids.into_iter().map(|id| (id, MOONCAKE_BLOCK_TOKENS)).collect();
    if let Some(last) = blocks.last_mut() {
        last.1 = left;
    }
    Ok(blocks)
}
