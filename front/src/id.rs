//! Request ids.

use axum::http::HeaderMap;
use rand::Rng as _;

/// The request's id, for every handler.
#[derive(Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// The client's `x-request-id`, if it is fit for logs and headers; else a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    given.filter(|id| is_fit(id)).map_or_else(new_request_id, str::to_owned)
}

/// An id for the workers: clients may give the same id to two requests at once, workers may not see it twice.
pub(crate) fn unique(request_id: &str, choice: u32) -> String {
    let mark: u32 = rand::rng().random();
    format!("{request_id}.{mark:08x}.{choice}")
}

/// The id by which the client knows the request that workers know by `unique`, with the number of its completion unless that is the first.
pub fn shown_request_id(unique: &str) -> String {
    let mut parts = unique.rsplitn(3, '.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("0"), Some(_), Some(id)) => id.to_owned(),
        (Some(choice), Some(_), Some(id)) => format!("{id}.{choice}"),
        _ => unique.to_owned(),
    }
}

/// A new one.
pub fn new_request_id() -> String {
    hex(rand::rng().random())
}

const MOST_ID_BYTES: usize = 128;

fn is_fit(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    !id.is_empty() && id.len() <= MOST_ID_BYTES && id.bytes().all(is_plain)
}

fn hex(value: u128) -> String {
    format!("{value:032x}")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn id_for(header: &str) -> String {
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_str(header).unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_fit_id_is_kept_and_any_other_replaced() {
        assert_eq!(id_for("abc-1.2:3/x_Y"), "abc-1.2:3/x_Y");
        for unfit in ["", "two words", "a\"b", &"x".repeat(129)] {
            let id = id_for(unfit);
            assert!(id.len() == 32 && id != unfit, "{unfit:?} became {id:?}");
        }
    }

    #[test]
    fn workers_ids_tell_which_request_is_meant() {
        for (choice, shown) in [(0, "a.b"), (3, "a.b.3")] {
            assert_eq!(shown_request_id(&unique("a.b", choice)), shown);
        }
        assert_eq!(shown_request_id("else"), "else");
    }

    #[test]
    fn the_same_id_twice_is_two_ids_for_the_workers() {
        assert_ne!(unique("a", 0), unique("a", 0));
    }
}
