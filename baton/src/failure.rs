//! The last words of a process that failed.

use std::io::Write as _;

use baton_process::Report;

/// Says why: on standard error to a person, or to the supervisor, which then says it to the person, once.
pub(crate) fn tell(error: &anyhow::Error, is_supervised: bool) {
    let text = in_one_line(error);
    if is_supervised {
        Report::Failed(text).print();
    } else {
        let _ = writeln!(std::io::stderr(), "error: {text}");
    }
}

/// The error and its causes; a cause that is part of what was said already is not repeated.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::{Context as _, anyhow};

    use super::*;

    #[test]
    fn causes_are_told_in_order_and_once() {
        let error = Err::<(), _>(anyhow!("the port\nis taken")).context("front: the port is taken");
        assert_eq!(in_one_line(&error.unwrap_err()), "front: the port is taken");
        let error = Err::<(), _>(anyhow!("no such file")).context("model.safetensors");
        assert_eq!(in_one_line(&error.unwrap_err()), "model.safetensors: no such file");
    }
}
