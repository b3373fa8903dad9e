//! Where requests go.

use std::{fmt, net::SocketAddr, str::FromStr};

/// A server's base URL: `http://host:port`, maybe with a path before `/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    is_tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// Before `/v1`, without a slash at its end.
    path: String,
}

/// A text is no base URL of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no server's URL ({why}): give one such as http://127.0.0.1:8000")]
pub struct BadTarget {
    text: String,
    why: &'static str,
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let bad = |why| BadTarget { text: text.to_owned(), why };
        let (is_tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad("it must begin with http:// or https://")),
            None => (false, text),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if rest.contains(['?', '#']) {
            return Err(bad("nothing may follow its path"));
        }
        if authority.contains('@') {
            return Err(bad("a key goes into --api-key"));
        }
        let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => match authority.rsplit_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if host.is_empty() || !is_plain(host) || !is_plain(path) {
            return Err(bad("it names no host"));
        }
        let port = match port.map(str::parse) {
            None => [80, 443][usize::from(is_tls)],
            Some(Ok(port)) => port,
            Some(Err(_)) => return Err(bad("its port is no number below 65536")),
        };
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        Ok(Self { is_tls, host: host.to_owned(), port, path })
    }
}

impl Target {
    pub(crate) fn is_tls(&self) -> bool {
        self.is_tls
    }

    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What a request line asks for: `path` begins with a slash.
    pub(crate) fn path_to(&self, path: &str) -> String {
        format!("{}{path}", self.path)
    }

    /// Host and port, as they stand in the header `host`.
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl From<SocketAddr> for Target {
    fn from(address: SocketAddr) -> Self {
        Self { is_tls: false, host: address.ip().to_string(), port: address.port(), path: String::new() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_users_write_them() {
        for (text, shown) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("localhost:8000/", "http://localhost:8000"),
            ("https://api.example.com/v1", "https://api.example.com:443"),
            ("http://gateway/models/m/v1/", "http://gateway:80/models/m"),
            ("http://[::1]:9", "http://[::1]:9"),
        ] {
            assert_eq!(
                text.parse::<Target>().map(|target| target.to_string()),
                Ok(shown.to_owned()),
                "{text}"
            );
        }
        let target: Target = "http://gateway/models/m/v1/".parse().unwrap();
        assert_eq!(target.path_to("/v1/models"), "/models/m/v1/models");
    }

    #[test]
    fn what_is_none_is_said() {
        for text in [
            "",
            "ftp://a",
            "http://",
            "http://a:b",
            "http://a:70000",
            "http://u:p@a",
            "http://a?b",
            "http://a b",
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains("such as http://127.0.0.1:8000"), "{text}: {error}");
        }
    }
}
