//! Requests with lengths from distributions.

use crate::{
    plan::{Fill, Piece, Planned, Prompt, Start},
    random::{Purpose, Stream},
    workload::{PrefixGroups, Synthetic},
};

/// One request or one session for each slot, `limit` requests at most.
pub(super) fn requests(
    synthetic: &Synthetic,
    slots: impl Iterator<Item = Start>,
    limit: usize,
    seed: u64,
) -> Vec<Planned> {
    let first_id = synthetic.prefixes.as_ref().map_or(0, |prefixes| prefixes.groups.get().into());
    let mut requests = Requests { planned: Vec::new(), next_id: first_id };
    for (start, number) in slots.zip(0..) {
        let left = limit - requests.planned.len();
        if left == 0 {
            break;
        }
        requests.unit(synthetic, start, &Draws { seed, number }, left);
    }
    requests.planned
}

struct Requests {
    planned: Vec<Planned>,
    // Ids below are taken: the shared prefixes' first, then one after the other.
    next_id: u64,
}

impl Requests {
    /// A session or, with one turn, a request; no more than `left` turns of it.
    fn unit(&mut self, synthetic: &Synthetic, start: Start, draws: &Draws, left: usize) {
        let sessions = synthetic.sessions.as_ref();
        let turns =
            sessions.map_or(1, |sessions| sessions.turns.tokens(&mut draws.stream(Purpose::Turns, 0)));
        let mut said: Vec<Piece> = synthetic.prefixes.iter().map(|prefixes| draws.prefix(prefixes)).collect();
        let mut start = start;
        for turn in 0..turns.min(u32::try_from(left).unwrap_or(u32::MAX)) {
            let input = match sessions {
                Some(sessions) if turn > 0 => &sessions.next_input,
                _ => &synthetic.input,
            };
            said.push(self.piece(input.tokens(&mut draws.stream(Purpose::InputTokens, turn)), Fill::Made));
            let index = self.planned.len() as u32;
            let output_tokens = synthetic.output.tokens(&mut draws.stream(Purpose::OutputTokens, turn));
            self.planned.push(Planned {
                index,
                start,
                session: sessions.map(|_| draws.number),
                turn,
                prompt: Prompt { pieces: said.clone() },
                output_tokens,
                cancel: None,
            });
            let Some(sessions) = sessions else { return };
            said.push(self.piece(output_tokens, Fill::Answer { index }));
            let think = sessions.think.time(&mut draws.stream(Purpose::ThinkTime, turn));
            start = Start::After { index, think };
        }
    }

    fn piece(&mut self, tokens: u32, fill: Fill) -> Piece {
        let id = self.next_id;
        self.next_id += 1;
        Piece { id, tokens, fill }
    }
}

/// The random numbers of one session or request.
struct Draws {
    seed: u64,
    number: u32,
}

impl Draws {
    fn stream(&self, purpose: Purpose, turn: u32) -> Stream {
        Stream::new(self.seed, purpose, u64::from(self.number) << 32 | u64::from(turn))
    }

    fn prefix(&self, prefixes: &PrefixGroups) -> Piece {
        let group = self.stream(Purpose::PrefixGroup, 0).below(prefixes.groups.get().into());
        let tokens = prefixes.tokens.tokens(&mut Stream::new(self.seed, Purpose::PrefixTokens, group));
        Piece { id: group, tokens, fill: Fill::Made }
    }
}
