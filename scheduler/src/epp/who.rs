//! Labels that come from clients, bounded.

use std::{collections::BTreeSet, sync::Arc};

/// In place of a value that there is no room for, or that is not served.
const OTHER: &str = "other";
/// llm-d's name for those who do not say who they are.
const NOBODY: &str = "default-flow";
/// Tenants that are told apart: the first that came.
const MOST_TENANTS: usize = 64;
/// Adapters that are told apart in the scheduler's life.
const MOST_ADAPTERS: usize = 256;

/// What a request asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// The model.
    #[default]
    Model,
    /// An adapter that is loaded.
    Adapter(&'a str),
    /// Something by name; maybe the model, maybe nothing that is here.
    Named(&'a str),
    /// It can't be told.
    Unknown,
}

/// Whose request it is, as labels say.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Who {
    pub(super) model: Arc<str>,
    pub(super) tenant: Arc<str>,
    pub(super) priority: i32,
}

/// Values that labels have had.
#[derive(Debug)]
pub(super) struct Labels {
    model: Arc<str>,
    model_names: Vec<String>,
    other: Arc<str>,
    adapters: Bounded,
    tenants: Bounded,
}

#[derive(Debug)]
struct Bounded {
    most: usize,
    seen: BTreeSet<Arc<str>>,
}

impl Labels {
    pub(super) fn new(model_names: Vec<String>) -> Self {
        Self {
            model: model_names.first().map_or(OTHER, String::as_str).into(),
            model_names,
            other: OTHER.into(),
            adapters: Bounded { most: MOST_ADAPTERS, seen: BTreeSet::new() },
            tenants: Bounded { most: MOST_TENANTS, seen: BTreeSet::new() },
        }
    }

    pub(super) fn who(&mut self, asked: Asked<'_>, tenant: &str, priority: i32) -> Who {
        let tenant = if tenant.is_empty() { NOBODY } else { tenant };
        let model = match asked {
            Asked::Model => self.model.clone(),
            Asked::Named(name) if self.model_names.iter().any(|served| served == name) => self.model.clone(),
            Asked::Adapter(name) => self.adapters.take(name).unwrap_or_else(|| self.other.clone()),
            Asked::Named(_) | Asked::Unknown => self.other.clone(),
        };
        let tenant = self.tenants.take(tenant).unwrap_or_else(|| self.other.clone());
        Who { model, tenant, priority }
    }
}

impl Bounded {
    /// `None`: it is new, and there is no room.
    fn take(&mut self, value: &str) -> Option<Arc<str>> {
        if let Some(known) = self.seen.get(value) {
            return Some(known.clone());
        }
        let value: Arc<str> = value.into();
        (self.seen.len() < self.most && self.seen.insert(value.clone())).then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_those_that_are_served() {
        let mut labels = Labels::new(vec!["m".to_owned(), "alias".to_owned()]);
        let mut model = |asked| labels.who(asked, "", 0).model.to_string();
        for asked in [Asked::Model, Asked::Named("m"), Asked::Named("alias")] {
            assert_eq!(model(asked), "m", "{asked:?}");
        }
        assert_eq!(model(Asked::Adapter("lora")), "lora");
        for asked in [Asked::Named("lora"), Asked::Named("gpt"), Asked::Unknown] {
            assert_eq!(model(asked), OTHER, "{asked:?}");
        }
    }

    #[test]
    fn tenants_that_there_is_no_room_for_are_one() {
        let mut labels = Labels::new(vec!["m".to_owned()]);
        let mut tenant = |name: &str| labels.who(Asked::Model, name, 0).tenant.to_string();
        assert_eq!(tenant(""), NOBODY);
        for number in 0..1_000 {
            tenant(&format!("t{number}"));
        }
        assert_eq!((tenant("t0"), tenant("t999"), tenant("")), ("t0".into(), OTHER.into(), NOBODY.into()));
    }
}
