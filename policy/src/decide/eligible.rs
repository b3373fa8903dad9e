//! Who may serve a request, and why nobody may.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    dice::Dice,
    estimate::Span,
    profile::{Filter, Profile},
    view::{FleetView, Ms, RequestView},
};

/// Nobody could serve a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("no worker can generate for this request: {}", self.reasons())]
pub struct Refused {
    /// Workers that generate.
    pub decode_workers: usize,
    /// How many of them each filter has taken away, by its name.
    pub by_filter: BTreeMap<String, usize>,
}

impl Refused {
    fn reasons(&self) -> String {
        if self.decode_workers == 0 {
            return "the fleet has none that generates".to_owned();
        }
        let filters: Vec<_> =
            self.by_filter.iter().map(|(name, count)| format!("{name} excludes {count}")).collect();
        format!("of {} {}", self.decode_workers, filters.join(", "))
    }
}

/// Workers that pass all filters.
#[derive(Clone, Debug, Default)]
pub struct Eligible {
    /// Those that compute prompts for others.
    pub prefill: Vec<usize>,
    /// Those that generate.
    pub decode: Vec<usize>,
    /// Those of them that may compute the prompt, too.
    pub local: Vec<usize>,
    // [filter]: decode workers that it took away.
    excluded: Vec<(&'static str, usize)>,
    // Filters that are to be asked.
    active: Vec<usize>,
}

impl Eligible {
    /// Fills the lists. They begin at a worker drawn by `dice`, so that equals take turns.
    ///
    /// # Errors
    /// [`Refused`] when nobody is left who generates.
    pub fn find(
        &mut self,
        fleet: &FleetView,
        request: &RequestView<'_>,
        profile: &Profile,
        now: Ms,
        dice: &mut Dice,
    ) -> Result<(), Refused> {
        let begin = dice.below(fleet.workers.len());
        self.fill(fleet, request, &profile.filters, now, begin, true);
        // A wish must not leave a role without workers when without it there are some.
        if (self.prefill.is_empty() || self.decode.is_empty()) && profile.filters.iter().any(Filter::is_soft)
        {
            let (prefill, decode) = (std::mem::take(&mut self.prefill), std::mem::take(&mut self.decode));
            self.fill(fleet, request, &profile.filters, now, begin, false);
            if !prefill.is_empty() {
                self.prefill = prefill;
            }
            if !decode.is_empty() {
                self.decode = decode;
            }
        }
        if self.decode.is_empty() {
            return Err(self.refused(fleet));
        }
        self.local.clear();
        self.local.extend_from_slice(&self.decode);
        Ok(())
    }

    fn fill(
        &mut self,
        fleet: &FleetView,
        request: &RequestView<'_>,
        filters: &[Filter],
        now: Ms,
        begin: usize,
        with_soft: bool,
    ) {
        self.prefill.clear();
        self.decode.clear();
        self.excluded.clear();
        self.excluded.extend(filters.iter().map(|filter| (filter.name(), 0)));
        self.excluded.push(("tried before", 0));
        self.active.clear();
        self.active.extend(
            (0..filters.len())
                .filter(|&at| filters[at].concerns(request) && (with_soft || !filters[at].is_soft())),
        );
        let count = fleet.workers.len();
        for index in (begin..count).chain(0..begin) {
            let worker = &fleet.workers[index];
            if !worker.is_reached_by(request.ways) {
                continue;
            }
            let refuses = |&filter: &usize| !filters[filter].admits(fleet, index, request, now);
            let fails = if request.tried.contains(&index) {
                Some(filters.len())
            } else {
                self.active.iter().copied().find(refuses)
            };
            match fails {
                None => {
                    if worker.prefills() {
                        self.prefill.push(index);
                    }
                    if worker.decodes() {
                        self.decode.push(index);
                    }
                }
                Some(filter) if worker.decodes() => self.excluded[filter].1 += 1,
                Some(_) => {}
            }
        }
    }

    /// Leaves two of each role.
    pub fn draw_two(&mut self, dice: &mut Dice) {
        for list in [&mut self.prefill, &mut self.decode] {
            if list.len() > 2 {
                let first = dice.below(list.len());
                list.swap(0, first);
                let second = 1 + dice.below(list.len() - 1);
                list.swap(1, second);
                list.truncate(2);
            }
        }
        self.local.clone_from(&self.decode);
    }

    /// For a search.
    #[must_use]
    pub fn span(&self) -> Span<'_> {
        Span { prefill: &self.prefill, decode: &self.decode, local: &self.local }
    }

    /// Why nobody is left.
    #[must_use]
    pub fn refused(&self, fleet: &FleetView) -> Refused {
        Refused {
            decode_workers: fleet.workers.iter().filter(|worker| worker.decodes()).count(),
            by_filter: self
                .excluded
                .iter()
                .filter(|(_, count)| *count > 0)
                .map(|&(name, count)| (name.to_owned(), count))
                .collect(),
        }
    }
}
