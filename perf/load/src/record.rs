//! What is recorded of a request.

use baton_results::{Chunk, Count, CountSource, Micros, Outcome, Record};
use baton_tokenizer::Tokenizer;
use baton_workload::Planned;

use crate::{
    answer::{Answer, Piece},
    call::{Ended, How},
    clock::Stamp,
};

/// Says where tokens end in a text; with a model's tokenizer, it counts what servers do not.
pub trait TokenEnds: Send + Sync {
    /// For each token of `text`, where its text ends, in bytes.
    fn token_ends(&self, text: &str) -> Vec<usize>;
}

impl TokenEnds for Tokenizer {
    fn token_ends(&self, text: &str) -> Vec<usize> {
        // A text that can't be encoded has no tokens that anybody knows of.
        let ids = self.encode(text, false).unwrap_or_default();
        let ends = ids.iter().scan(0, |end, id| {
            *end += self.token_bytes(*id).len();
            Some(*end)
        });
        // Some tokenizers add a space to the beginning.
        ends.map(|end: usize| end.min(text.len())).collect()
    }
}

/// The record of a request of the run that began at `start`.
pub(crate) fn record(
    planned: &Planned,
    ended: Ended,
    start: Stamp,
    request_id: String,
    ends: Option<&dyn TokenEnds>,
) -> Record {
    let Ended { due, how, mut answer, at } = ended;
    let chunk_tokens = count_pieces(&mut answer, ends);
    let since = |stamp: Stamp| Micros::from(stamp.since(start));
    let chunks =
        answer.pieces.iter().map(|piece| Chunk { at: since(piece.at), tokens: piece.tokens }).collect();
    let by_server = |tokens: u32| Count { tokens, source: CountSource::Usage };
    let planned_tokens = u32::try_from(planned.prompt.tokens()).unwrap_or(u32::MAX);
    let output = match (answer.usage, &how) {
        (Some(usage), How::Complete) => by_server(usage.completion_tokens),
        _ => Count { tokens: answer.tokens(), source: chunk_tokens },
    };
    Record {
        index: planned.index,
        session: planned.session,
        turn: planned.turn,
        intended_us: Micros::from(due.intended),
        sent_us: answer.sent.map(since),
        chunks,
        end_us: (how != How::Unfinished).then(|| since(at)),
        input: Some(match answer.usage {
            Some(usage) if usage.prompt_tokens > 0 => by_server(usage.prompt_tokens),
            _ => Count { tokens: planned_tokens, source: CountSource::Plan },
        }),
        cached: answer.usage.and_then(|usage| usage.cached_tokens()).map(by_server),
        output: answer.sent.map(|_| output),
        chunk_tokens,
        outcome: match how {
            How::Complete => Outcome::Complete { finish_reason: answer.finish_reason },
            How::Failed(message) => Outcome::Failed { status: answer.status, message },
            How::Cancelled => Outcome::Cancelled,
            How::Unfinished => Outcome::Unfinished,
        },
        server_id: answer.request_id.or(Some(request_id)),
        phases: None,
    }
}

/// Who counted the tokens of the pieces: the server, or now the client.
fn count_pieces(answer: &mut Answer, ends: Option<&dyn TokenEnds>) -> CountSource {
    if answer.usage.is_some() && answer.is_counted {
        return if answer.is_stream() { CountSource::ContinuousUsage } else { CountSource::Usage };
    }
    let Some(ends) = ends else { return CountSource::Assumed };
    let token_ends = ends.token_ends(&answer.output);
    let mut done = 0;
    for Piece { tokens, output_end, .. } in &mut answer.pieces {
        // A token came when the last of its text did.
        let through = token_ends.partition_point(|end| end <= output_end);
        *tokens = u32::try_from(through - done).unwrap_or(u32::MAX);
        done = through;
    }
    CountSource::Tokenizer
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use baton_workload::{Prompt, Start};

    use super::*;
    use crate::{
        answer::StopAfter,
        chunk::Usage,
        http::{Head, Sink as _},
        schedule::Due,
    };

    /// Four bytes a token.
    struct Fours;

    impl TokenEnds for Fours {
        fn token_ends(&self, text: &str) -> Vec<usize> {
            (4..=text.len()).step_by(4).collect()
        }
    }

    fn recorded(how: How, usage: Option<Usage>, is_counted: bool, ends: Option<&dyn TokenEnds>) -> Record {
        let planned = Planned {
            index: 3,
            start: Start::WhenFree,
            session: Some(1),
            turn: 2,
            prompt: Prompt::default(),
            output_tokens: 9,
            cancel: None,
        };
        let mut answer = Answer::new(false, true, StopAfter::default());
        (answer.usage, answer.is_counted, answer.sent) = (usage, is_counted, Some(Stamp(1_002_000)));
        answer.head(&head(), Stamp(1_003_000));
        answer.output = "0123456789".to_owned();
        answer.pieces = vec![
            Piece { at: Stamp(1_005_000), tokens: 1, output_end: 2 },
            Piece { at: Stamp(1_009_000), tokens: 1, output_end: 10 },
        ];
        let due = Due { index: 3, intended: Duration::from_micros(1), was_held: false };
        record(
            &planned,
            Ended { due, how, answer, at: Stamp(1_009_000) },
            Stamp(1_000_000),
            "id".into(),
            ends,
        )
    }

    fn head() -> Head {
        let text = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        Head::parse(text).unwrap().unwrap().0
    }

    fn tokens(record: &Record) -> Vec<(u64, u32)> {
        record.chunks.iter().map(|chunk| (chunk.at.0, chunk.tokens)).collect()
    }

    #[test]
    fn times_are_since_the_start_and_counts_say_who_counted() {
        let usage = Usage { prompt_tokens: 7, completion_tokens: 3, ..Usage::default() };
        let record = recorded(How::Complete, Some(usage), false, None);
        assert_eq!(
            (record.intended_us, record.sent_us, record.end_us),
            (Micros(1), Some(Micros(2)), Some(Micros(9)))
        );
        assert_eq!((tokens(&record), record.chunk_tokens), (vec![(5, 1), (9, 1)], CountSource::Assumed));
        assert_eq!(record.output, Some(Count { tokens: 3, source: CountSource::Usage }));
        assert_eq!(record.input, Some(Count { tokens: 7, source: CountSource::Usage }));
        assert_eq!((record.session, record.turn, record.server_id.as_deref()), (Some(1), 2, Some("id")));
    }

    #[test]
    fn a_tokenizer_counts_what_the_server_does_not() {
        let record = recorded(How::Complete, None, false, Some(&Fours));
        assert_eq!((tokens(&record), record.chunk_tokens), (vec![(5, 0), (9, 2)], CountSource::Tokenizer));
        assert_eq!(record.output, Some(Count { tokens: 2, source: CountSource::Tokenizer }));
    }

    #[test]
    fn what_was_cut_off_counts_what_came() {
        let usage = Usage { prompt_tokens: 7, completion_tokens: 2, ..Usage::default() };
        let record = recorded(How::Unfinished, Some(usage), true, None);
        assert_eq!(record.output, Some(Count { tokens: 2, source: CountSource::ContinuousUsage }));
        assert_eq!((record.end_us, record.outcome), (None, Outcome::Unfinished));
    }
}
