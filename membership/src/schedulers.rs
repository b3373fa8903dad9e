//! The option that says which schedulers there are.

use std::{fmt, str::FromStr};

use serde::{Serialize, Serializer};

/// One or more addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedulers(Vec<SchedulerAddress>);

/// Where schedulers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchedulerAddress {
    /// One, at `HOST:PORT`.
    One(String),
    /// As many as the host's name has addresses: `dns:HOST:PORT`.
    EveryAddressOf(String),
}

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no address: use HOST:PORT, several with commas between, or dns:HOST:PORT for every address of a name"
)]
pub struct BadAddress(String);

impl Schedulers {
    /// All of them, in the order given.
    pub fn addresses(&self) -> &[SchedulerAddress] {
        &self.0
    }

    /// The address, if it is one that needs no name service to be counted.
    pub fn only(&self) -> Option<&str> {
        match &self.0[..] {
            [SchedulerAddress::One(address)] => Some(address),
            _ => None,
        }
    }
}

impl FromStr for Schedulers {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let mut addresses = Vec::new();
        for part in text.split(',') {
            let address: SchedulerAddress = part.trim().parse()?;
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        Ok(Self(addresses))
    }
}

impl FromStr for SchedulerAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let address = text.strip_prefix("dns:").unwrap_or(text);
        let is_address = |(host, port): (&str, &str)| {
            let no_space = |c: char| !(c.is_whitespace() || matches!(c, '/' | '@' | ','));
            !host.is_empty() && host.chars().all(no_space) && port.parse::<u16>().is_ok_and(|port| port > 0)
        };
        if !address.rsplit_once(':').is_some_and(is_address) {
            return Err(BadAddress(text.to_owned()));
        }
        Ok(match address.len() == text.len() {
            true => Self::One(address.to_owned()),
            false => Self::EveryAddressOf(address.to_owned()),
        })
    }
}

impl fmt::Display for Schedulers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, address) in self.0.iter().enumerate() {
            write!(f, "{}{address}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Display for SchedulerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(address) => f.write_str(address),
            Self::EveryAddressOf(address) => write!(f, "dns:{address}"),
        }
    }
}

impl Serialize for Schedulers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in
            ["a:1", "10.0.0.1:8100", "[::1]:8100", "a:1,b:2", "dns:schedulers.ns.svc:8100", "a:1,dns:b:2"]
        {
            assert_eq!(text.parse::<Schedulers>().unwrap().to_string(), text);
        }
        let twice: Schedulers = "a:1, b:2,a:1".parse().unwrap();
        assert_eq!(twice.to_string(), "a:1,b:2", "nobody is joined twice");
        assert_eq!(twice.only(), None);
        assert_eq!("a:1".parse::<Schedulers>().unwrap().only(), Some("a:1"));
        assert_eq!("dns:a:1".parse::<Schedulers>().unwrap().only(), None);
    }

    #[test]
    fn what_is_no_address_is_refused_with_its_words() {
        for wrong in
            ["", "a", "a:", ":1", "a:0", "a:99999", "http://a:1", "a:1,,b:2", "a b:1", "dns:", "dns:a"]
        {
            let error = wrong.parse::<Schedulers>().unwrap_err().to_string();
            assert!(error.contains("HOST:PORT"), "{wrong:?}: {error}");
        }
        assert!("a:1,b".parse::<Schedulers>().unwrap_err().to_string().starts_with("\"b\" is no address"));
    }
}
