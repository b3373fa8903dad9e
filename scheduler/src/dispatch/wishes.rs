//! What a request's headers say about how it is to be served (llm-d's names).

use std::sync::Arc;

use baton_front::BadHeader;
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
    objective: Objective,
    session: Option<String>,
}

impl Wishes {
    /// From its headers; `header` gives the first value of one.
    ///
    /// # Errors
    /// A header that can't be understood.
    pub(crate) fn read(
        header: impl Fn(&str) -> Option<String>,
        priorities: &Priorities,
    ) -> Result<Self, BadHeader> {
        let name = |name: &str| header(name).map(cut).filter(|value| !value.is_empty());
        Ok(Self {
            tenant: name(TENANT).unwrap_or_default().into(),
            priority: name(OBJECTIVE).map_or(0, |objective| priorities.of(&objective)),
            objective: Objective { ttft_ms: ms(TTFT, header(TTFT))?, tpot_ms: ms(TPOT, header(TPOT))? },
            session: name(SESSION),
        })
    }

    /// [`Self::read`] from the headers of a request to the front.
    ///
    /// # Errors
    /// A header that can't be understood.
    pub(super) fn of(headers: &HeaderMap, priorities: &Priorities) -> Result<Self, BadHeader> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Self::read(header, priorities)
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
            Wishes::read(|name| (name == SESSION).then(|| "ä".repeat(1_000)), &Priorities::default());
        let wishes = wishes.unwrap();
        assert_eq!(wishes.session.as_ref().unwrap().len(), MOST_NAME_BYTES);
        assert_eq!((&*wishes.tenant, wishes.priority), ("", 0));
    }
}
