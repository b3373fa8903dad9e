//! Prompts as paths in a tree of pieces. What only one request has is one node, however many pieces it is made of.

use std::collections::HashMap;

use super::{NONE, PromptPiece};

/// Nodes of the tree, by number, and paths to them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Prefixes {
    // [node]: tokens from a prompt's beginning to its begin and end.
    spans: Vec<(u32, u32)>,
    paths: Vec<u32>,
}

impl Prefixes {
    pub(crate) fn path(&self, (from, to): (u32, u32)) -> &[u32] {
        &self.paths[from as usize..to as usize]
    }

    pub(crate) fn nodes(&self) -> usize {
        self.spans.len()
    }

    /// Whole blocks that end in `node`.
    pub(crate) fn blocks(&self, node: u32, block_tokens: u32) -> u32 {
        let (begin, end) = self.spans[node as usize];
        end / block_tokens - begin / block_tokens
    }

    pub(crate) fn end_tokens(&self, node: u32) -> u32 {
        self.spans[node as usize].1
    }
}

/// The tree, where each request's path lies in it, and the nodes of answers: (request, node).
pub(super) struct Paths {
    pub(super) prefixes: Prefixes,
    pub(super) of_requests: Vec<(u32, u32)>,
    pub(super) answers: Vec<(u32, u32)>,
}

/// Collects prompts.
#[derive(Default)]
pub(super) struct Chains {
    children: HashMap<(u32, PromptPiece), u32>,
    // [node]: requests that have it, tokens up to its end.
    nodes: Vec<(u32, u32)>,
    chains: Vec<u32>,
    ends: Vec<usize>,
    // Request, node of its prompt and answer.
    answers: Vec<(u32, u32)>,
}

impl Chains {
    pub(super) fn push(&mut self, pieces: &[PromptPiece]) {
        let (mut parent, mut tokens) = (NONE, 0);
        for piece in pieces.iter().filter(|piece| piece.tokens > 0) {
            tokens += piece.tokens;
            let next = self.nodes.len() as u32;
            let node = *self.children.entry((parent, *piece)).or_insert(next);
            if node == next {
                self.nodes.push((0, tokens));
            }
            self.nodes[node as usize].0 += 1;
            if let Some(request) = piece.answer_of {
                self.answers.push((request, node));
            }
            self.chains.push(node);
            parent = node;
        }
        self.ends.push(self.chains.len());
    }

    /// Shared nodes keep a number of their own; each request's rest becomes one node.
    pub(super) fn finish(self) -> Paths {
        let Self { nodes, chains, ends, answers, .. } = self;
        // An answer is used by who has it, too.
        let mut is_answer = vec![false; nodes.len()];
        answers.iter().for_each(|&(_, node)| is_answer[node as usize] = true);
        let mut prefixes = Prefixes::default();
        let mut numbers = vec![NONE; nodes.len()];
        let mut spans_of_requests = Vec::with_capacity(ends.len());
        let mut from = 0;
        for end in ends {
            let begin = prefixes.paths.len() as u32;
            let mut tokens = 0;
            let mut own = None;
            for &node in &chains[from..end] {
                let (uses, up_to) = nodes[node as usize];
                if uses > 1 || is_answer[node as usize] {
                    // What was only this prompt's before an answer is a node of its own.
                    if let Some(up_to) = own.take() {
                        prefixes.paths.push(prefixes.spans.len() as u32);
                        prefixes.spans.push((tokens, up_to));
                        tokens = up_to;
                    }
                    let number = &mut numbers[node as usize];
                    if *number == NONE {
                        *number = prefixes.spans.len() as u32;
                        prefixes.spans.push((tokens, up_to));
                    }
                    prefixes.paths.push(*number);
                    tokens = up_to;
                } else {
                    own = Some(up_to);
                }
            }
            if let Some(up_to) = own {
                prefixes.paths.push(prefixes.spans.len() as u32);
                prefixes.spans.push((tokens, up_to));
            }
            spans_of_requests.push((begin, prefixes.paths.len() as u32));
            from = end;
        }
        let answers = answers.into_iter().map(|(request, node)| (request, numbers[node as usize]));
        let answers = answers.filter(|(_, node)| *node != NONE).collect();
        Paths { prefixes, of_requests: spans_of_requests, answers }
    }
}
