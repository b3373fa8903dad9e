use std::fmt::{self, Write as _};

/// Elements of a picture, in the order in which they are drawn.
#[derive(Default)]
pub(super) struct Svg {
    body: String,
}

/// Where a text stands relative to its point.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Svg {
    /// Appends markup. What is not from here must be escaped.
    pub(super) fn raw(&mut self, markup: fmt::Arguments<'_>) {
        // Into a string, writing cannot fail.
        let _ = self.body.write_fmt(markup);
        self.body.push('\n');
    }

    /// Text of a class: `ink`, `muted` or `alarm`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), size: f64, class: &str, anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let fill = fill(class);
        let text = escape(text);
        self.raw(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" class="{class}" fill="{fill}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// A thin line of the axes (`axis`) or between them (`grid`).
    pub(super) fn rule(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let stroke = if class == "grid" { "#e2e2e2" } else { "#555555" };
        self.raw(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" class="{class}" stroke="{stroke}"/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// The whole picture.
    pub(super) fn finish(self, width: f64, height: f64, title: &str) -> String {
        let title = escape(title);
        format!(
            concat!(
                r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w:.0} {h:.0}" width="{w:.0}" height="{h:.0}" "#,
                r#"font-family="Roboto, system-ui, sans-serif" role="img" aria-label="{title}">"#,
                "\n",
                r##"<rect width="{w:.0}" height="{h:.0}" class="paper" fill="#ffffff"/>"##,
                "\n{body}</svg>\n"
            ),
            w = width,
            h = height,
            title = title,
            body = self.body
        )
    }
}

fn fill(class: &str) -> &'static str {
    match class {
        "alarm" => super::palette::ALARM,
        "muted" => "#666666",
        _ => "#1a1a1a",
    }
}

/// `text` as it stands between tags and in attributes of HTML and SVG.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            // No XML document may have them, not even escaped.
            control if control < ' ' && !matches!(control, '\t' | '\n' | '\r') => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// About how many pixels `text` is wide: a little more than the truth, so that nothing overlaps.
pub(super) fn width(text: &str, size: f64) -> f64 {
    let of = |character: char| match character {
        'i' | 'l' | 'j' | 't' | 'f' | 'r' | 'I' | '.' | ',' | ':' | ';' | '\'' | '|' | '(' | ')' | ' ' => {
            0.33
        }
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 0.88,
        upper if upper.is_uppercase() => 0.68,
        _ => 0.57,
    };
    text.chars().map(of).sum::<f64>() * size
}

/// `text` in lines of at most `limit` pixels, broken at spaces.
pub(super) fn wrap(text: &str, size: f64, limit: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(line, size) + width(word, size) + 0.33 * size <= limit => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_text_is_markup() {
        assert_eq!(escape("<a href=\"x\">&'\u{1}"), "&lt;a href=&quot;x&quot;&gt;&amp;&#39;\u{fffd}");
    }

    #[test]
    fn lines_are_broken_at_spaces_and_no_word_is_lost() {
        let text = "INVALID: the client sent late (lag p99 1.9 ms, limit 1.0 ms)";
        let lines = wrap(text, 12.0, 150.0);
        assert!(lines.len() > 1 && lines.iter().all(|line| width(line, 12.0) <= 150.0), "{lines:?}");
        assert_eq!(lines.join(" "), text);
    }
}
