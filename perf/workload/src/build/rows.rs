//! A file's rows, gathered into sessions.

use std::{collections::HashMap, ops::ControlFlow, time::Duration};

use super::{MAX_REQUESTS, MAX_TURNS};
use crate::{
    content::CountTokens,
    plan::{Fill, Piece, Text, TextId},
    random::{Purpose, Stream},
    trace::{self, Row, RowOutput, RowPrompt, SessionName, TraceError},
    workload::{Trace, TraceOutput},
};

/// A session, or a request that stands alone.
pub(super) struct Unit {
    pub(super) at: Option<Duration>,
    pub(super) is_session: bool,
    pub(super) turns: Vec<Turn>,
}

pub(super) struct Turn {
    /// What it adds to what was said before.
    pub(super) new: Vec<Piece>,
    pub(super) output_tokens: u32,
    pub(super) think: Duration,
}

pub(super) struct Rows {
    /// In the order of their first rows.
    pub(super) units: Vec<Unit>,
    pub(super) texts: Vec<Text>,
    /// Ids from here on are free.
    pub(super) next_id: u64,
}

/// Reads so much of the file as `limit` requests need.
pub(super) fn read(
    trace: &Trace,
    texts: &dyn CountTokens,
    limit: usize,
    seed: u64,
) -> Result<Rows, TraceError> {
    let mut gather = Gather {
        trace,
        counter: texts,
        seed,
        rows: Rows { units: Vec::new(), texts: Vec::new(), next_id: 0 },
        ids: HashMap::new(),
        known: HashMap::new(),
        sessions: HashMap::new(),
    };
    let mut problem = None;
    trace::read(&trace.path, trace.format, &mut |row| {
        // Where rows have no times and sessions are in one place, what comes first is planned first.
        let is_last_needed = row.at.is_none() && !matches!(row.session, Some(SessionName::Given(_)));
        let place = row.place;
        if let Err(text) = gather.add(row) {
            problem = Some(TraceError { path: trace.path.clone(), place, problem: text });
            return ControlFlow::Break(());
        }
        let units = gather.rows.units.len();
        if (is_last_needed && units > limit) || units > MAX_REQUESTS as usize {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    problem.map_or(Ok(gather.rows), Err)
}

struct Gather<'a> {
    trace: &'a Trace,
    counter: &'a dyn CountTokens,
    seed: u64,
    rows: Rows,
    // Pieces' ids by the file's.
    ids: HashMap<u64, u64>,
    // Texts that were seen before.
    known: HashMap<Text, Piece>,
    sessions: HashMap<SessionName, usize>,
}

impl Gather<'_> {
    fn add(&mut self, row: Row) -> Result<(), String> {
        let first_has_time = self.rows.units.first().map(|unit| unit.at.is_some());
        let known = row.session.as_ref().and_then(|name| self.sessions.get(name)).copied();
        let number = known.unwrap_or(self.rows.units.len());
        let turn = known.map_or(0, |unit| self.rows.units[unit].turns.len());
        if turn >= self.trace.max_turns.get().min(MAX_TURNS) as usize {
            return Ok(());
        }
        match known {
            Some(_) if row.at.is_some() => {
                return Err(
                    "a session's later rows come after answers: say `think_ms`, not `arrival_ms`".into()
                );
            }
            Some(_) => (),
            None if row.think.is_some() => {
                return Err(
                    "`think_ms` is for a session's later rows: there is no answer before this one".into()
                );
            }
            None if first_has_time.is_some_and(|has_time| has_time != row.at.is_some()) => {
                return Err("some rows have a time and some have none: give it to all or to none".into());
            }
            None => {
                self.rows.units.push(Unit {
                    at: row.at,
                    is_session: row.session.is_some(),
                    turns: Vec::new(),
                });
                self.sessions.extend(row.session.map(|name| (name, number)));
            }
        }
        let output_tokens = self.output_tokens(row.output, number, turn);
        let new = self.pieces(row.prompt);
        self.rows.units[number].turns.push(Turn { new, output_tokens, think: row.think.unwrap_or_default() });
        Ok(())
    }

    fn output_tokens(&self, recorded: Option<RowOutput>, unit: usize, turn: usize) -> u32 {
        let draw = |distribution: &crate::Distribution<crate::Tokens>| {
            let index = (unit as u64) << 32 | turn as u64;
            distribution.tokens(&mut Stream::new(self.seed, Purpose::OutputTokens, index))
        };
        match (&self.trace.output, recorded) {
            (TraceOutput::Drawn(distribution), _) => draw(distribution),
            (TraceOutput::Recorded { .. }, Some(RowOutput::Tokens(tokens))) => self.scaled(tokens),
            (TraceOutput::Recorded { .. }, Some(RowOutput::LikeText(text))) => {
                self.counter.count(&text).max(1)
            }
            (TraceOutput::Recorded { otherwise }, None) => draw(otherwise),
        }
    }

    fn pieces(&mut self, prompt: RowPrompt) -> Vec<Piece> {
        match prompt {
            RowPrompt::Tokens(tokens) => {
                let id = next(&mut self.rows.next_id);
                vec![Piece { id, tokens: self.scaled(tokens), fill: Fill::Made }]
            }
            RowPrompt::Pieces(pieces) => {
                pieces.into_iter().map(|(id, tokens)| self.piece(id, tokens)).collect()
            }
            RowPrompt::Messages(texts) => texts.into_iter().map(|text| self.text(text)).collect(),
        }
    }

    fn piece(&mut self, id: u64, tokens: u32) -> Piece {
        let tokens = self.scaled(tokens);
        let id = *self.ids.entry(id).or_insert_with(|| next(&mut self.rows.next_id));
        Piece { id, tokens, fill: Fill::Made }
    }

    fn text(&mut self, text: Text) -> Piece {
        if let Some(&piece) = self.known.get(&text) {
            return piece;
        }
        let fill = Fill::Text(TextId(self.rows.texts.len() as u32));
        let tokens = self.counter.count(&text.text).max(1);
        let piece = Piece { id: next(&mut self.rows.next_id), tokens, fill };
        self.rows.texts.push(text.clone());
        self.known.insert(text, piece);
        piece
    }

    fn scaled(&self, tokens: u32) -> u32 {
        (f64::from(tokens) * self.trace.token_scale).round().clamp(1.0, f64::from(crate::MAX_TOKENS)) as u32
    }
}

fn next(id: &mut u64) -> u64 {
    *id += 1;
    *id - 1
}
