//! Where a socket listens, or whom it calls.

use std::{fmt, str::FromStr};

/// An address in ZeroMQ's notation, and whether it is listened on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub(crate) listens: bool,
    host: String,
    port: u16,
}

/// A text that is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an endpoint: write tcp://*:5557 to listen, @tcp://127.0.0.1:5557 to listen on one address, or tcp://HOST:5557 to connect"
)]
pub struct EndpointError(String);

impl Endpoint {
    /// That of the `n`th of several publishers on one machine, counted from 0: each listens on a port of its own, in a row, as vLLM's
    /// data-parallel ranks do; a router that is called is the same for all, and port 0 is any for each. `None`: there is no such port.
    #[must_use]
    pub fn nth(&self, n: u16) -> Option<Self> {
        let port = if self.listening_port().is_some() { self.port.checked_add(n)? } else { self.port };
        Some(Self { port, ..self.clone() })
    }

    /// Port that is listened on, where it is known.
    pub fn listening_port(&self) -> Option<u16> {
        (self.listens && self.port != 0).then_some(self.port)
    }

    pub(crate) fn url(&self) -> String {
        let host = if self.host == "*" { "0.0.0.0" } else { &self.host };
        format!("tcp://{host}:{}", self.port)
    }
}

/// As vLLM reads it: `*` and `[::]` are listened on, other hosts are connected to. With `@` before it, as in other tools around
/// ZeroMQ, it is listened on in any case.
impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let error = || EndpointError(text.to_owned());
        let (is_marked, url) = match text.strip_prefix('@') {
            Some(url) => (true, url),
            None => (false, text),
        };
        let (host, port) =
            url.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')).ok_or_else(error)?;
        let port = port.parse().map_err(|_| error())?;
        let is_bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
        if host.is_empty() || is_bare_v6 || host.contains(['/', ' ']) {
            return Err(error());
        }
        let listens = is_marked || host == "*" || host == "[::]";
        Ok(Self { listens, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.listens && self.host != "*" && self.host != "[::]" { "@" } else { "" };
        write!(f, "{mark}tcp://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, listens: bool, url: &str) {
        let endpoint: Endpoint = text.parse().unwrap();
        assert_eq!((endpoint.listens, endpoint.url().as_str()), (listens, url));
        assert_eq!(endpoint.to_string(), text);
    }

    #[test]
    fn stars_and_marks_listen_and_names_connect() {
        check("tcp://*:5557", true, "tcp://0.0.0.0:5557");
        check("tcp://[::]:5557", true, "tcp://[::]:5557");
        check("@tcp://127.0.0.1:0", true, "tcp://127.0.0.1:0");
        check("tcp://router.example:5557", false, "tcp://router.example:5557");
        check("tcp://10.0.0.1:1", false, "tcp://10.0.0.1:1");
    }

    #[test]
    fn several_publishers_listen_on_ports_in_a_row() {
        let nth = |text: &str, n| text.parse::<Endpoint>().unwrap().nth(n).map(|nth| nth.to_string());
        assert_eq!(nth("tcp://*:5557", 2).as_deref(), Some("tcp://*:5559"));
        assert_eq!(nth("@tcp://127.0.0.1:0", 2).as_deref(), Some("@tcp://127.0.0.1:0"));
        assert_eq!(nth("tcp://router:5557", 2).as_deref(), Some("tcp://router:5557"));
        assert_eq!(nth("tcp://*:65534", 2), None);
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        for text in
            ["", "5557", "tcp://", "tcp://*", "tcp://:1", "tcp://h:70000", "ipc://x", "tcp://::1:5", "@"]
        {
            assert_eq!(text.parse::<Endpoint>(), Err(EndpointError(text.to_owned())));
        }
    }
}
