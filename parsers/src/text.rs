//! Text that waits until it is known what it belongs to.

/// Text that has come and is not yet spoken for.
#[derive(Debug, Default)]
pub(crate) struct Pending(String);

/// What a search for marks found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The text before a mark, and which mark; both are taken.
    Mark(String, usize),
    /// Text before anything that may become a mark.
    Text(String),
}

impl Pending {
    pub(crate) fn push(&mut self, text: &str) {
        self.0.push_str(text);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// All of it.
    pub(crate) fn take(&mut self) -> String {
        std::mem::take(&mut self.0)
    }

    pub(crate) fn next_char(&mut self) -> Option<char> {
        let c = self.0.chars().next()?;
        self.0.drain(..c.len_utf8());
        Some(c)
    }

    pub(crate) fn peek(&self) -> Option<char> {
        self.0.chars().next()
    }

    /// Drops white space at the start.
    pub(crate) fn skip_space(&mut self) {
        let spaces = self.0.len() - self.0.trim_start().len();
        self.0.drain(..spaces);
    }

    /// Whether the text begins with `mark`, which is taken then; `None` while that is open.
    pub(crate) fn take_mark(&mut self, mark: &str) -> Option<bool> {
        if self.0.starts_with(mark) {
            self.0.drain(..mark.len());
            return Some(true);
        }
        (!mark.starts_with(self.0.as_str())).then_some(false)
    }

    /// The text up to the first of `marks`. None of them may be a part of another.
    pub(crate) fn take_until(&mut self, marks: &[&str]) -> Found {
        let first =
            marks.iter().enumerate().filter_map(|(which, mark)| Some((self.0.find(mark)?, which))).min();
        if let Some((at, which)) = first {
            let before = self.0[..at].to_owned();
            self.0.drain(..at + marks[which].len());
            return Found::Mark(before, which);
        }
        let held = marks.iter().map(|mark| longest_start(&self.0, mark)).max().unwrap_or(0);
        Found::Text(self.0.drain(..self.0.len() - held).collect())
    }
}

/// Bytes at the end of `text` that are a beginning of `mark`.
fn longest_start(text: &str, mark: &str) -> usize {
    let lengths = (1..mark.len()).rev().filter(|&len| mark.is_char_boundary(len));
    lengths.into_iter().find(|&len| text.ends_with(&mark[..len])).unwrap_or(0)
}

/// Text whose white space is shown only once something else follows it.
#[derive(Debug, Default)]
pub(crate) struct Trimmed {
    /// White space that comes now is at the start, and is dropped.
    skips: bool,
    spaces: String,
}

impl Trimmed {
    /// What of `text` may be shown.
    pub(crate) fn push(&mut self, text: &str) -> String {
        let text = if self.skips { text.trim_start() } else { text };
        let solid = text.trim_end();
        if solid.is_empty() {
            self.spaces.push_str(text);
            return String::new();
        }
        self.skips = false;
        let shown = std::mem::take(&mut self.spaces) + solid;
        self.spaces.push_str(&text[solid.len()..]);
        shown
    }

    /// White space that was held back.
    pub(crate) fn take_spaces(&mut self) -> String {
        std::mem::take(&mut self.spaces)
    }

    /// Drops white space that was held back, and what follows.
    pub(crate) fn skip_space(&mut self) {
        (self.skips, self.spaces) = (true, String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_mark_is_held_back() {
        let mut text = Pending::default();
        text.push("ab<");
        assert_eq!(text.take_until(&["<x>", "<y>"]), Found::Text("ab".to_owned()));
        text.push("y");
        assert_eq!(text.take_until(&["<x>", "<y>"]), Found::Text(String::new()));
        text.push(">c<");
        assert_eq!(text.take_until(&["<x>", "<y>"]), Found::Mark(String::new(), 1));
        text.push("<z");
        assert_eq!(text.take_until(&["<x>", "<y>"]), Found::Text("c<<z".to_owned()));
    }

    #[test]
    fn white_space_is_shown_once_it_is_in_the_middle() {
        let mut text = Trimmed::default();
        assert_eq!([" ", "\n a ", " ", " b\n"].map(|part| text.push(part)), ["", " \n a", "", "   b"]);
        assert_eq!(text.take_spaces(), "\n");
        text.skip_space();
        assert_eq!([" ", "\n a "].map(|part| text.push(part)), ["", "a"]);
    }
}
