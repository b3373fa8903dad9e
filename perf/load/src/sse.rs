//! Server-sent events out of bytes, however they are cut (WHATWG HTML, 9.2.6).

/// Reads a stream of events. Only their data is of interest: types, ids and retry times are passed over.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    /// The line that has begun.
    line: Vec<u8>,
    /// Data of the event that has begun.
    data: Vec<u8>,
    has_data: bool,
    /// A line ended with CR, and an LF that follows belongs to it.
    skips_lf: bool,
    has_begun: bool,
}

/// An event is longer than any that this reader is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is over 16 MiB")]
pub(crate) struct EventTooLong;

const MOST_EVENT_BYTES: usize = 16 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl SseReader {
    /// Takes all of `bytes`, and gives the data of each event that ends in them to `event`.
    pub(crate) fn read(
        &mut self,
        mut bytes: &[u8],
        event: &mut impl FnMut(&[u8]),
    ) -> Result<(), EventTooLong> {
        while let Some(first) = bytes.first() {
            if std::mem::take(&mut self.skips_lf) && *first == b'\n' {
                bytes = &bytes[1..];
                continue;
            }
            let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
                self.line.extend_from_slice(bytes);
                return self.check();
            };
            self.skips_lf = bytes[end] == b'\r';
            if self.line.is_empty() {
                self.take_line(&bytes[..end], event);
            } else {
                let mut line = std::mem::take(&mut self.line);
                line.extend_from_slice(&bytes[..end]);
                self.take_line(&line, event);
                line.clear();
                self.line = line;
            }
            self.check()?;
            bytes = &bytes[end + 1..];
        }
        Ok(())
    }

    fn take_line(&mut self, mut line: &[u8], event: &mut impl FnMut(&[u8])) {
        if !std::mem::replace(&mut self.has_begun, true) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                event(&self.data);
            }
            self.data.clear();
            return;
        }
        let value = match line.strip_prefix(b"data") {
            Some([]) => &[],
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => value,
            _ => return,
        };
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(value);
    }

    fn check(&self) -> Result<(), EventTooLong> {
        if self.line.len() + self.data.len() > MOST_EVENT_BYTES { Err(EventTooLong) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(stream: &[u8], cuts: &[usize]) -> Vec<String> {
        let (mut reader, mut events, mut rest) = (SseReader::default(), Vec::new(), stream);
        for cut in cuts.iter().cycle() {
            let (piece, left) = rest.split_at((*cut).clamp(1, rest.len().max(1)).min(rest.len()));
            let mut keep = |data: &[u8]| events.push(String::from_utf8(data.to_vec()).unwrap());
            reader.read(piece, &mut keep).unwrap();
            rest = left;
            if rest.is_empty() {
                break;
            }
        }
        events
    }

    #[test]
    fn lines_end_in_three_ways() {
        for end in ["\n", "\r", "\r\n"] {
            let stream = ["data: one", "", "data:two", "data:  2", "", "data", "", ""].join(end);
            for cut in [1, 2, 3, 1000] {
                assert_eq!(events(stream.as_bytes(), &[cut]), ["one", "two\n 2", ""], "{end:?} {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_data_is_passed_over() {
        let stream = "\u{feff}data: a\n\n: ping\n\nevent: error\nid: 7\nretry: 5\ndata: b\n\ndatum: c\n\n\n\ndata: cut";
        assert_eq!(events(stream.as_bytes(), &[1000]), ["a", "b"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = SseReader::default();
        let line = [b"data: ".as_slice(), &vec![b'x'; 1 << 20], b"\n"].concat();
        let result = (0..20).try_for_each(|_| reader.read(&line, &mut |_| {}));
        assert_eq!(result, Err(EventTooLong));
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(
            lines in prop::collection::vec(("(data: ?|: |event: |)[a-z{}é ]{0,12}", "\n|\r|\r\n"), 0..40),
            cuts in prop::collection::vec(1_usize..9, 1..6),
        ) {
            let stream: String = lines.iter().map(|(line, end)| format!("{line}{end}")).collect();
            let whole = events(stream.as_bytes(), &[usize::MAX]);
            // Cuts may fall inside a character: data is only looked at when it is whole.
            prop_assert_eq!(events(stream.as_bytes(), &cuts), whole);
        }
    }
}
