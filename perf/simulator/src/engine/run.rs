//! Steps that differ only in how many tokens there are before them: their times are a quadratic, so any number of them is one event.

/// `steps` steps from `began` on. Step `k` (from 0) takes `first + k·grows`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) began: f64,
    pub(crate) first: f64,
    pub(crate) grows: f64,
    pub(crate) steps: u32,
    /// Tokens of the first prompt in each step.
    pub(crate) chunk: u32,
    /// Tokens of several prompts in the one step.
    pub(crate) packed: u32,
    /// Tokens of prompts in each step, and their pairs in the first one.
    pub(crate) tokens: u32,
    pub(crate) pairs: f64,
    /// Those who generate, at the beginning.
    pub(crate) sequences: u32,
    pub(crate) context: u64,
}

impl Run {
    /// So many steps take, ms.
    pub(crate) fn took(&self, steps: u32) -> f64 {
        let steps = f64::from(steps);
        steps * (self.first + self.grows * (steps - 1.0) / 2.0)
    }

    pub(crate) fn ends(&self) -> f64 {
        self.began + self.took(self.steps)
    }

    /// The longest of its first `steps` steps.
    pub(crate) fn longest(&self, steps: u32) -> f64 {
        self.first + self.grows * f64::from(steps.saturating_sub(1))
    }

    /// Steps until one ends at `at` or later; at least one, at most all.
    pub(crate) fn steps_until(&self, at: f64) -> u32 {
        let wanted = at - self.began;
        let half = self.grows / 2.0;
        let linear = self.first - half;
        let guess = if half > 0.0 {
            // The positive root of half·k² + linear·k = wanted, in the form that loses no digits.
            2.0 * wanted / (linear + (linear * linear + 4.0 * half * wanted.max(0.0)).sqrt())
        } else {
            wanted / linear
        };
        let mut steps = (guess.max(1.0) as u32).clamp(1, self.steps.max(1));
        while steps > 1 && self.took(steps - 1) >= wanted {
            steps -= 1;
        }
        while steps < self.steps && self.took(steps) < wanted {
            steps += 1;
        }
        steps
    }

    /// Tokens of prompts in all steps, and their pairs.
    pub(crate) fn computed(&self) -> (f64, f64) {
        let (steps, tokens) = (f64::from(self.steps), f64::from(self.tokens));
        (steps * tokens, steps * (self.pairs + tokens * tokens * (steps - 1.0) / 2.0))
    }

    pub(crate) fn has_prompts(&self) -> bool {
        self.chunk > 0 || self.packed > 0
    }
}

/// The longest step since a run, for those who joined at it: a stack of maxima.
#[derive(Clone, Debug, Default)]
pub(crate) struct LongestSteps {
    // Later runs have shorter ones, or a run before would not matter.
    stack: Vec<(u32, f64)>,
}

impl LongestSteps {
    pub(crate) fn add(&mut self, run: u32, longest: f64) {
        while self.stack.last().is_some_and(|&(_, other)| other <= longest) {
            self.stack.pop();
        }
        self.stack.push((run, longest));
    }

    /// The longest of run `run` and those after it.
    pub(crate) fn since(&self, run: u32) -> f64 {
        let at = self.stack.partition_point(|&(other, _)| other < run);
        self.stack.get(at).map_or(0.0, |&(_, longest)| longest)
    }

    pub(crate) fn clear(&mut self) {
        self.stack.clear();
    }
}
