//! What a request's headers say about how it is to be served (llm-d's names).

use std::sync::Arc;

use baton_front::{BadHeader, Owner};
use baton_policy::view::Objective;
use http::HeaderMap;

use crate::{
    config::Priorities,
    epp::{Asked, Epp, Who},
    router::{Ask, Reach},
};

const OBJECTIVE: &str = "x-llm-d-inference-objective";
const TENANT: &str = "x-llm-d-inference-fairness-id";
const SESSION: &str = "x-session-id";
const TTFT: &str = "x-llm-d-slo-ttft-ms";
const TPOT: &str = "x-llm-d-slo-tpot-ms";

/// Names come from clients, and are kept: longer ones are cut.
const MOST_NAME_BYTES: usize = 128;
/// An hour.
const MOST_MS: f64 = 3.6e6;

/// What a request wishes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wishes {
    tenant: Arc<str>,
    priority: i32,
    weight: u32,
    objective: Objective,
    session: Option<String>,
}

impl Wishes {
    /// From its headers, of which `header` gives the first value, and its owner, where tenants are known.
    ///
    /// # Errors
    /// A header that can't be understood.
    pub(crate) fn read(
        header: impl Fn(&str) -> Option<String>,
        priorities: &Priorities,
        owner: Option<&Owner>,
    ) -> Result<Self, BadHeader> {
        let name = |name: &str| header(name).map(cut).filter(|value| !value.is_empty());
        let asked = name(OBJECTIVE).map_or(0, |objective| priorities.of(&objective));
        let (tenant, priority, weight) = match owner {
            None => (name(TENANT).unwrap_or_default().into(), asked, 1),
            // Whose it is, its key says; who asks for less urgency gets it.
            Some(owner) => (owner.tenant.clone(), owner.priority.saturating_add(asked.min(0)), owner.weight),
        };
        Ok(Self {
            tenant,
            priority,
            weight,
            objective: Objective { ttft_ms: ms(TTFT, header(TTFT))?, tpot_ms: ms(TPOT, header(TPOT))? },
            session: name(SESSION),
        })
    }

    /// [`Self::read`] from the headers of a request to the front.
    ///
    /// # Errors
    /// A header that can't be understood.
    pub(super) fn of(
        headers: &HeaderMap,
        priorities: &Priorities,
        owner: Option<&Owner>,
    ) -> Result<Self, BadHeader> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self::read(header, priorities, owner)
    }

    /// Whose request it is, as metrics say.
    pub(crate) fn who(&self, epp: &Epp, asked: Asked<'_>) -> Who {
        epp.who(asked, &self.tenant, self.priority)
    }

    /// A request of which nothing else is known.
    pub(crate) fn ask(&self) -> Ask<'_> {
        Ask {
            request_id: "",
            prompt: &[],
            prompt_tokens: 0,
            text: &[],
            max_tokens: 0,
            adapter: None,
            cache_salt: None,
            tenant: self.tenant.clone(),
            priority: self.priority,
            weight: f64::from(self.weight),
            objective: self.objective,
            session: self.session.as_deref(),
            reach: Reach::Front,
            subset: None,
            asked: Asked::Model,
            bytes: 0,
        }
    }
}

fn cut(value: String) -> String {
    let value = value.trim();
    value[..value.floor_char_boundary(MOST_NAME_BYTES)].to_owned()
}

fn ms(name: &'static str, value: Option<String>) -> Result<Option<f64>, BadHeader> {
    let Some(value) = value else { return Ok(None) };
    match value.trim().parse::<f64>() {
        Ok(ms) if ms > 0.0 && ms <= MOST_MS => Ok(Some(ms)),
        _ => Err(BadHeader { name, expected: "milliseconds, such as 500" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_milliseconds_or_refused() {
        let of = |value: &str| ms(TTFT, Some(value.to_owned())).ok();
        assert_eq!(of(" 250 "), Some(Some(250.0)));
        for bad in ["", "0", "-1", "NaN", "inf", "soon", "1e9"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(ms(TTFT, None).unwrap(), None);
    }

    #[test]
    fn long_names_are_cut() {
        let wishes =
            Wishes::read(|name| (name == SESSION).then(|| "ä".repeat(1_000)), &Priorities::default(), None);
        let wishes = wishes.unwrap();
        assert_eq!(wishes.session.as_ref().unwrap().len(), MOST_NAME_BYTES);
        assert_eq!((&*wishes.tenant, wishes.priority, wishes.weight), ("", 0, 1));
    }

    #[test]
    fn whose_a_request_is_its_key_says_and_not_its_headers() {
        let priorities: Priorities = [("batch", -10), ("premium", 10)].into_iter().collect();
        let owner = Owner { tenant: "alice".into(), priority: 5, weight: 3 };
        let wishes = |objective: &str, owner| {
            let header = |name: &str| match name {
                TENANT => Some("bob".to_owned()),
                OBJECTIVE => Some(objective.to_owned()),
                _ => None,
            };
            let wishes = Wishes::read(header, &priorities, owner).unwrap();
            (wishes.tenant.to_string(), wishes.priority, wishes.weight)
        };
        assert_eq!(wishes("premium", Some(&owner)), ("alice".to_owned(), 5, 3));
        assert_eq!(wishes("batch", Some(&owner)), ("alice".to_owned(), -5, 3));
        assert_eq!(wishes("premium", None), ("bob".to_owned(), 10, 1));
    }
}
