//! An answer as it comes, and what is left of it to be recorded.

use crate::{
    chunk::{Chunk, Usage, error_message},
    clock::Stamp,
    http::{Head, Sink},
    sse::SseReader,
};

/// When the client is to hang up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StopAfter {
    /// After so many tokens.
    pub(crate) tokens: Option<u32>,
}

/// All that was seen of one answer.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// When the first byte was about to be sent.
    pub(crate) sent: Option<Stamp>,
    /// When something was read last.
    pub(crate) last_read: Option<Stamp>,
    /// Each event that brought output.
    pub(crate) pieces: Vec<Piece>,
    /// What the model said; of answers whose text is wanted.
    pub(crate) text: String,
    /// Said to itself, or to the user, in the order in which it came; of answers whose tokens the client is to count.
    pub(crate) output: String,
    pub(crate) usage: Option<Usage>,
    /// Every event with output had the server's count.
    pub(crate) is_counted: bool,
    pub(crate) finish_reason: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) status: Option<u16>,
    /// The server said so, or it can't be understood.
    pub(crate) error: Option<String>,
    /// The server said that there is no more.
    pub(crate) is_done: bool,
    /// Enough came.
    pub(crate) is_stopped: bool,
    keeps_text: bool,
    keeps_output: bool,
    stop: StopAfter,
    sse: SseReader,
    is_stream: bool,
    /// Of an answer that is none.
    body: Vec<u8>,
}

/// An event that brought output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) at: Stamp,
    /// By the server's count, or one.
    pub(crate) tokens: u32,
    /// Where it ends in the output, if that is kept.
    pub(crate) output_end: usize,
}

/// Of an answer that is no stream.
const MOST_BODY_BYTES: usize = 64 << 20;

impl Answer {
    pub(crate) fn new(keeps_text: bool, keeps_output: bool, stop: StopAfter) -> Self {
        Self { keeps_text, keeps_output, stop, is_counted: true, ..Self::default() }
    }

    /// It came event by event.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Tokens so far, as far as known.
    pub(crate) fn tokens(&self) -> u32 {
        self.pieces.iter().map(|piece| piece.tokens).sum()
    }

    /// Whether it is whole, now that no more comes; if not, what is wrong.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        if !self.is_stream {
            self.take_body();
        }
        if let Some(error) = &self.error {
            return Err(error.clone());
        }
        match self.is_done || self.finish_reason.is_some() {
            true => Ok(()),
            false => {
                Err("the stream ended before the answer did: there was neither a finish_reason nor [DONE]"
                    .to_owned())
            }
        }
    }

    fn take_body(&mut self) {
        let at = self.last_read.unwrap_or_default();
        let body = std::mem::take(&mut self.body);
        match self.status {
            Some(200..300) => self.take_event(&body, at),
            _ => self.error = Some(error_message(&body)),
        }
        if self.error.is_none() && self.pieces.is_empty() && self.usage.is_none() {
            self.error = Some(format!("this is no answer: {}", error_message(&body)));
        }
    }

    fn take_event(&mut self, data: &[u8], at: Stamp) {
        if data == b"[DONE]" {
            self.is_done = true;
            return;
        }
        let chunk: Chunk<'_> = match serde_json::from_slice(data) {
            Ok(chunk) => chunk,
            Err(error) => {
                let start = String::from_utf8_lossy(&data[..data.len().min(100)]).into_owned();
                self.error = Some(format!("an event can't be read ({error}): {start}"));
                return;
            }
        };
        if let Some((message, status)) = chunk.error() {
            self.error = Some(message);
            self.status = status.or(self.status);
            return;
        }
        if let Some(reason) = chunk.finish_reason() {
            self.finish_reason = Some(reason.to_owned());
        }
        self.take_output(&chunk, at);
        if self.stop.tokens.is_some_and(|most| self.tokens_so_far() >= most) {
            self.is_stopped = true;
        }
    }

    fn take_output(&mut self, chunk: &Chunk<'_>, at: Stamp) {
        let has_output = chunk.has_output();
        if self.keeps_text {
            self.text.push_str(chunk.text());
        }
        if self.keeps_output {
            self.output.push_str(chunk.reasoning());
            self.output.push_str(chunk.text());
        }
        let before = self.usage.map_or(0, |usage| usage.completion_tokens);
        let counted = chunk.usage.map(|usage| usage.completion_tokens.saturating_sub(before));
        self.usage = chunk.usage.or(self.usage);
        // Tokens may come without text, such as the beginning of a character. Those of a usage that stands alone came before.
        let is_event = has_output || (self.is_counted && !chunk.is_bare() && counted.unwrap_or(0) > 0);
        if is_event {
            self.is_counted &= counted.is_some();
            // A count that comes late is of all events: how much of it each brought is not known.
            let tokens = counted.filter(|_| self.is_counted).unwrap_or(1);
            self.pieces.push(Piece { at, tokens, output_end: self.output.len() });
        }
    }

    fn tokens_so_far(&self) -> u32 {
        match (self.is_counted, self.usage) {
            (true, Some(usage)) => usage.completion_tokens,
            _ => u32::try_from(self.pieces.len()).unwrap_or(u32::MAX),
        }
    }
}

impl Sink for Answer {
    fn sent(&mut self, at: Stamp) {
        self.sent.get_or_insert(at);
    }

    fn head(&mut self, head: &Head, at: Stamp) {
        self.last_read = Some(at);
        self.status = Some(head.status);
        self.is_stream = head.is_event_stream && (200..300).contains(&head.status);
        self.request_id.clone_from(&head.request_id);
    }

    fn body(&mut self, bytes: &[u8], at: Stamp) -> bool {
        self.last_read = Some(at);
        if !self.is_stream {
            let room = MOST_BODY_BYTES.saturating_sub(self.body.len());
            self.body.extend_from_slice(&bytes[..bytes.len().min(room)]);
            return true;
        }
        let mut sse = std::mem::take(&mut self.sse);
        let read = sse.read(bytes, &mut |data| {
            if self.error.is_none() && !self.is_stopped {
                self.take_event(data, at);
            }
        });
        self.sse = sse;
        if let Err(error) = read {
            self.error = Some(error.to_string());
        }
        self.error.is_none() && !self.is_stopped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(mut answer: Answer, events: &[(u64, &str)]) -> Answer {
        answer.is_stream = true;
        for (at, data) in events {
            if !answer.body(format!("data: {data}\n\n").as_bytes(), Stamp(*at)) {
                break;
            }
        }
        answer
    }

    fn pieces(answer: &Answer) -> Vec<(u64, u32)> {
        answer.pieces.iter().map(|piece| (piece.at.0, piece.tokens)).collect()
    }

    fn counted(text: &str, tokens: u32) -> String {
        format!(
            r#"{{"choices":[{{"text":"{text}"}}],"usage":{{"prompt_tokens":5,"completion_tokens":{tokens}}}}}"#
        )
    }

    #[test]
    fn tokens_of_each_event_come_from_the_servers_count() {
        let events = [counted("", 0), counted("a b", 8), counted("", 9), counted("c", 12)];
        let mut events: Vec<(u64, &str)> = (1..).zip(events.iter().map(String::as_str)).collect();
        events.push((7, r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":12}}"#));
        events.push((8, "[DONE]"));
        let mut answer = stream(Answer::new(true, false, StopAfter::default()), &events);
        assert_eq!(answer.finish(), Ok(()));
        assert_eq!(pieces(&answer), [(2, 8), (3, 1), (4, 3)]);
        assert!(answer.is_counted && answer.tokens() == 12 && answer.text == "a bc");
    }

    #[test]
    fn a_count_at_the_end_says_nothing_of_events() {
        let text = r#"{"choices":[{"text":"a"}],"usage":null}"#;
        let last = r#"{"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":9}}"#;
        let answer =
            stream(Answer::new(false, true, StopAfter::default()), &[(1, text), (2, text), (3, last)]);
        assert_eq!((pieces(&answer), answer.is_counted), (vec![(1, 1), (2, 1)], false));
        assert_eq!(answer.usage.unwrap().completion_tokens, 9);
        let with_text = r#"{"choices":[{"text":"a"}],"usage":{"prompt_tokens":5,"completion_tokens":9}}"#;
        let late = stream(Answer::new(false, false, StopAfter::default()), &[(1, text), (2, with_text)]);
        assert_eq!((pieces(&late), late.is_counted), (vec![(1, 1), (2, 1)], false));
        assert_eq!((answer.output.as_str(), answer.pieces[0].output_end), ("aa", 1));
    }

    #[test]
    fn an_answer_is_whole_when_the_server_says_so() {
        let text = r#"{"choices":[{"text":"a"}]}"#;
        let end = r#"{"choices":[{"text":"","finish_reason":"length"}]}"#;
        let finish =
            |events: &[(u64, &str)]| stream(Answer::new(false, false, StopAfter::default()), events).finish();
        assert_eq!(finish(&[(1, text), (2, "[DONE]")]), Ok(()));
        assert_eq!(finish(&[(1, text), (2, end)]), Ok(()));
        assert!(finish(&[(1, text)]).unwrap_err().contains("[DONE]"));
        assert!(finish(&[]).is_err());
        assert!(finish(&[(1, text), (2, "{")]).unwrap_err().contains("can't be read"));
        let error = r#"{"error":{"message":"worker lost","code":502}}"#;
        assert_eq!(finish(&[(1, text), (2, error), (3, "[DONE]")]), Err("worker lost".to_owned()));
    }

    #[test]
    fn enough_is_enough() {
        let events = [counted("a", 3), counted("b", 6), counted("c", 9)];
        let events: Vec<(u64, &str)> = (1..).zip(events.iter().map(String::as_str)).collect();
        let answer = stream(Answer::new(false, false, StopAfter { tokens: Some(5) }), &events);
        assert!(answer.is_stopped);
        assert_eq!(pieces(&answer), [(1, 3), (2, 3)]);
    }

    #[test]
    fn answers_in_one_piece_and_errors_are_read_too() {
        let whole = |status: u16, body: &str| {
            let mut answer = Answer::new(true, false, StopAfter::default());
            answer.status = Some(status);
            answer.body(body.as_bytes(), Stamp(5));
            (answer.finish(), pieces(&answer))
        };
        let body = r#"{"choices":[{"message":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":7}}"#;
        assert_eq!(whole(200, body), (Ok(()), vec![(5, 7)]));
        assert_eq!(whole(429, r#"{"error":{"message":"slow down"}}"#).0, Err("slow down".to_owned()));
        assert!(whole(200, "{}").0.is_err());
        assert!(whole(200, "<html>").0.is_err());
    }
}
