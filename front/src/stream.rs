//! The answer as server-sent events.

use std::{collections::VecDeque, convert::Infallible, time::Instant};

use axum::{
    body::Body,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};

use crate::{
    api_error::ApiError,
    completion::Piece,
    record::{RequestRecord, Unanswered},
    request::StreamOptions,
    run::{ChoiceEvent, Events},
    wire::{ChunkUsage, Usage, Writer},
};

/// A stream being written. Dropped when the client goes away, and with it the calls to the workers.
pub(crate) struct EventStream {
    pub(crate) events: Events,
    pub(crate) writer: Writer,
    pub(crate) record: RequestRecord,
    pub(crate) options: StreamOptions,
    /// The prompt's text, for completions that begin with it.
    pub(crate) echo: Option<Vec<String>>,
    pub(crate) n: u32,
    pub(crate) opened: Vec<bool>,
    /// Events that came while the status was still open.
    pub(crate) ready: VecDeque<ChoiceEvent>,
}

const DONE: &str = "data: [DONE]\n\n";

impl EventStream {
    /// Waits for the first event: until then an error has a status of its own.
    ///
    /// # Errors
    /// That is an error. Nothing has been shown.
    pub(crate) async fn respond(mut self) -> Result<Response, Unanswered> {
        match self.events.next().await {
            Some(Ok(first)) => self.ready.push_back(first),
            Some(Err(error)) => return Err(Unanswered::new(error, self.record)),
            None => {}
        }
        let body = stream::unfold(Some(self), |state| async move {
            let mut state = state?;
            let (bytes, is_over) = state.next_bytes().await;
            state.record.response_bytes += bytes.len() as u64;
            Some((Ok::<_, Infallible>(bytes), (!is_over).then_some(state)))
        });
        let headers = [(CONTENT_TYPE, "text/event-stream; charset=utf-8"), (CACHE_CONTROL, "no-cache")];
        Ok((headers, Body::from_stream(body)).into_response())
    }

    /// The bytes of the next event, and whether they are the last.
    async fn next_bytes(&mut self) -> (Bytes, bool) {
        let event = match self.ready.pop_front() {
            Some(event) => Some(Ok(event)),
            None => self.events.next().await,
        };
        match event {
            Some(Ok(event)) => (self.write(&event).into(), false),
            Some(Err(error)) => {
                let error = ApiError::from(error);
                self.record.fail(&error, true);
                (error.to_sse().into(), true)
            }
            None => {
                self.record.succeed();
                (self.write_end().into(), true)
            }
        }
    }

    fn write(&mut self, event: &ChoiceEvent) -> String {
        self.record.observe(event, Instant::now());
        let mut out = String::new();
        let index = usize::try_from(event.index).unwrap_or(usize::MAX);
        if !std::mem::replace(&mut self.opened[index], true) {
            self.write_opening(event.index, &mut out);
        }
        let usage = self.chunk_usage();
        if let Some(chunk) = self.writer.chunk(event.index, &event.piece, usage) {
            write_data(&chunk, &mut out);
        }
        out
    }

    fn write_opening(&mut self, index: u32, out: &mut String) {
        let usage = self.chunk_usage();
        if let Some(opening) = self.writer.opening(index, usage) {
            write_data(&opening, out);
        }
        if let Some(echo) = &self.echo {
            let text = echo[usize::try_from(index / self.n).unwrap_or(0)].clone();
            let piece = Piece { text, ..Piece::default() };
            if let Some(chunk) = self.writer.chunk(index, &piece, usage) {
                write_data(&chunk, out);
            }
        }
    }

    fn write_end(&mut self) -> String {
        let mut out = String::new();
        if self.options.include_usage {
            write_data(&self.writer.usage_chunk(self.usage()), &mut out);
        }
        out.push_str(DONE);
        out
    }

    /// OpenAI's chunks have `usage: null` when the last one has the usage.
    fn chunk_usage(&self) -> ChunkUsage {
        if self.options.continuous_usage {
            Some(Some(self.usage()))
        } else if self.options.include_usage {
            Some(None)
        } else {
            None
        }
    }

    fn usage(&self) -> Usage {
        Usage::new(self.record.prompt_tokens, self.record.completion_tokens, self.record.cached_tokens())
    }
}

fn write_data(json: &str, out: &mut String) {
    out.push_str("data: ");
    out.push_str(json);
    out.push_str("\n\n");
}
