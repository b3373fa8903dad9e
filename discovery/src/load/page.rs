//! A page that comes in pieces. Nothing of it is kept but the figures and the beginning of a line whose end has not come.

use super::{
    Adapters, Load, PrefixCounts, lines,
    names::{Figure, figure},
};

/// Above this a line is none that we know.
const MOST_LINE_BYTES: usize = 64 << 10;
/// Data-parallel ranks behind one address, and series that mean the same; above it a page makes no sense.
const MOST_RANKS: usize = 1024;
/// Names of adapters in one label.
const MOST_ADAPTERS: usize = 1024;

/// Why a page is none that tells a load.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageError {
    /// The contract with model servers needs it.
    #[error("the page lacks {0}: is it that of a vLLM, SGLang or Baton server?")]
    Lacks(&'static str),
    /// A line that is needed can't be read.
    #[error("a line that should be {0} is malformed")]
    Malformed(String),
    /// A figure that can't be.
    #[error("{name} is {value}")]
    Impossible {
        /// Of which series.
        name: String,
        /// As it was read.
        value: String,
    },
    /// A line without an end.
    #[error("a line of more than {MOST_LINE_BYTES} bytes")]
    LongLine,
    /// More ranks than a server has.
    #[error("more than {MOST_RANKS} series of one figure")]
    ManySeries,
}

/// Which figures a page had, to be compared with another's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// Whether it has all that `other` has.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One value of a gauge: of a rank, and of one of the series that mean the same.
#[derive(Clone, Copy, Debug)]
struct RankValue {
    rank: u32,
    series: usize,
    value: f64,
}

/// A page that is being read.
#[derive(Debug, Default)]
pub struct Page {
    /// The beginning of a line.
    carry: Vec<u8>,
    seen: Seen,
    gauges: [Vec<RankValue>; Figure::COUNT],
    counters: [f64; Figure::COUNT],
    adapters: Option<(f64, Adapters)>,
}

impl Page {
    /// The next piece, which may begin and end anywhere.
    ///
    /// # Errors
    /// [`PageError`]: the page is no use, whatever follows.
    pub fn push(&mut self, mut piece: &[u8]) -> Result<(), PageError> {
        if !self.carry.is_empty() {
            let end = memchr::memchr(b'\n', piece);
            let head = &piece[..end.unwrap_or(piece.len())];
            if self.carry.len() + head.len() > MOST_LINE_BYTES {
                return Err(PageError::LongLine);
            }
            self.carry.extend_from_slice(head);
            let Some(end) = end else { return Ok(()) };
            let mut line = std::mem::take(&mut self.carry);
            self.line(&line)?;
            line.clear();
            self.carry = line;
            piece = &piece[end + 1..];
        }
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', piece) {
            self.line(&piece[start..end])?;
            start = end + 1;
        }
        let rest = &piece[start..];
        if rest.len() > MOST_LINE_BYTES {
            return Err(PageError::LongLine);
        }
        self.carry.extend_from_slice(rest);
        Ok(())
    }

    /// What the page adds up to, and which figures it had.
    ///
    /// # Errors
    /// [`PageError`].
    pub fn finish(mut self) -> Result<(Load, Seen), PageError> {
        let last = std::mem::take(&mut self.carry);
        self.line(&last)?;
        let usage = if self.has(Figure::KvUsage) { Figure::KvUsage } else { Figure::KvUsageOld };
        let needed = |figure, name| if self.has(figure) { Ok(figure) } else { Err(PageError::Lacks(name)) };
        let waiting =
            needed(Figure::Waiting, "waiting requests (vllm:num_requests_waiting, sglang:num_queue_reqs)")?;
        let running =
            needed(Figure::Running, "running requests (vllm:num_requests_running, sglang:num_running_reqs)")?;
        let usage = needed(usage, "KV usage (vllm:kv_cache_usage_perc, sglang:token_usage)")?;
        let block_tokens = self.most(Figure::BlockTokens).filter(|&tokens| tokens >= 1.0);
        let by_blocks = || Some(self.sum(Figure::Blocks).filter(|&blocks| blocks >= 1.0)? * block_tokens?);
        let load = Load {
            waiting: self.sum(waiting).unwrap_or(0.0) as u32,
            running: self.sum(running).unwrap_or(0.0) as u32,
            kv_usage: self.mean(usage).clamp(0.0, 1.0),
            block_tokens: block_tokens.map(|tokens| tokens as u32),
            kv_capacity_tokens: self.sum(Figure::KvTokens).or_else(by_blocks).map(|tokens| tokens as u64),
            most_model_tokens: self.most(Figure::ModelTokens).map(|tokens| tokens as u32),
            prefix: self.prefix(),
            adapters: self.adapters.map(|(_, adapters)| adapters),
        };
        Ok((load, self.seen))
    }

    fn line(&mut self, line: &[u8]) -> Result<(), PageError> {
        let Some(name) = lines::name(line) else { return Ok(()) };
        let Some((figure, series)) = figure(name) else { return Ok(()) };
        let text = || String::from_utf8_lossy(name).into_owned();
        let sample = lines::sample(&line[name.len()..]).map_err(|_| PageError::Malformed(text()))?;
        let value = sample.value;
        if !value.is_finite() || value < 0.0 {
            return Err(PageError::Impossible { name: text(), value: value.to_string() });
        }
        self.seen.0 |= 1 << series;
        let rank = rank(&sample.labels);
        match figure {
            Figure::CacheConfig => {
                let of = |names: [&str; 2]| names.iter().find_map(|name| sample.labels.number::<u32>(name));
                for (figure, value) in [
                    (Figure::BlockTokens, of(["block_size", "page_size"])),
                    (Figure::Blocks, of(["num_gpu_blocks", "num_pages"])),
                ] {
                    if let Some(value) = value {
                        self.gauge(figure, rank, series, f64::from(value))?;
                    }
                }
                Ok(())
            }
            Figure::Adapters => {
                // Label sets that were are still there: the last one counts.
                if self.adapters.as_ref().is_none_or(|(time, _)| value >= *time) {
                    self.adapters = Some((value, adapters(&sample.labels)));
                }
                Ok(())
            }
            figure if figure.is_counter() => {
                self.counters[figure as usize] += value;
                self.gauge(figure, 0, series, value)
            }
            figure => self.gauge(figure, rank, series, value),
        }
    }

    /// Several values for one rank and series come from processes or tensor-parallel ranks that tell the same thing, some of them late.
    fn gauge(&mut self, figure: Figure, rank: u32, series: usize, value: f64) -> Result<(), PageError> {
        let values = &mut self.gauges[figure as usize];
        if let Some(known) = values.iter_mut().find(|known| known.rank == rank && known.series == series) {
            known.value = known.value.max(value);
            return Ok(());
        }
        if values.len() >= MOST_RANKS {
            return Err(PageError::ManySeries);
        }
        values.push(RankValue { rank, series, value });
        Ok(())
    }

    fn has(&self, figure: Figure) -> bool {
        !self.gauges[figure as usize].is_empty()
    }

    fn sum(&self, figure: Figure) -> Option<f64> {
        let values = &self.gauges[figure as usize];
        (!values.is_empty()).then(|| values.iter().map(|known| known.value).sum())
    }

    fn most(&self, figure: Figure) -> Option<f64> {
        self.gauges[figure as usize].iter().map(|known| known.value).reduce(f64::max)
    }

    /// Ranks have the same memory, so the share of all is the mean of theirs.
    fn mean(&self, figure: Figure) -> f64 {
        self.sum(figure).unwrap_or(0.0) / self.gauges[figure as usize].len().max(1) as f64
    }

    fn prefix(&self) -> Option<PrefixCounts> {
        let is_new = self.has(Figure::Queried) && self.has(Figure::Hit);
        let is_old = self.has(Figure::QueriedOld) && self.has(Figure::HitOld);
        let (queried, hit) = match (is_new, is_old) {
            (true, _) => (Figure::Queried, Figure::Hit),
            (false, true) => (Figure::QueriedOld, Figure::HitOld),
            (false, false) => return None,
        };
        let count = |figure: Figure| self.counters[figure as usize] as u64;
        Some(PrefixCounts { queried_tokens: count(queried), hit_tokens: count(hit) })
    }
}

/// vLLM numbers its engines, SGLang its data-parallel ranks.
fn rank(labels: &lines::Labels<'_>) -> u32 {
    labels.number("engine").or_else(|| labels.number("dp_rank")).unwrap_or(0)
}

fn adapters(labels: &lines::Labels<'_>) -> Adapters {
    let names = |label| {
        let names = labels.get(label).unwrap_or_default();
        names.split(',').filter(|name| !name.is_empty()).take(MOST_ADAPTERS).map(str::to_owned).collect()
    };
    Adapters {
        running: names("running_lora_adapters"),
        waiting: names("waiting_lora_adapters"),
        most: labels.number("max_lora").unwrap_or(0),
    }
}
