//! llguidance's errors in words for whoever wrote the input.

/// Words of a regular expression's error, with the place in it.
pub(super) fn of_regex(error: &str) -> String {
    if let Some((_, parsing)) = error.split_once("regex parse error:\n") {
        return of_parsing(parsing);
    }
    if error.contains("lookarounds not supported") {
        return "look-around, such as \\b or (?=…), is not supported: write what may stand there instead"
            .to_owned();
    }
    if error.contains("lexer precomputation failed") {
        return "it is too complex: make it shorter, or its repetitions".to_owned();
    }
    core(error)
}

/// `    (a\n    ^\nerror: unclosed group`.
fn of_parsing(parsing: &str) -> String {
    let mut lines = parsing.lines();
    let (pattern, marks) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let error = parsing.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("it can't be read");
    let at = marks.chars().position(|c| c == '^').unwrap_or(0);
    let indent = pattern.len() - pattern.trim_start_matches(' ').len();
    let rest: String = pattern.chars().skip(at).take(20).collect();
    format!("{error}, at character {} ({rest:?})", (at + 1).saturating_sub(indent.min(4)))
}

/// Words of a grammar's error, with the line in it: it stood one line lower in what was compiled.
pub(super) fn of_lark(error: &str) -> String {
    if error.contains("no start rule found") {
        return "there is no rule named start: a grammar begins with one".to_owned();
    }
    let error = error.strip_prefix("at ").unwrap_or(error);
    // With two places the second is the client's own.
    let inner = error.split_once(": ").filter(|(place, rest)| is_place(place) && starts_with_place(rest));
    let error = inner.map_or(error, |(_, rest)| rest);
    let Some((place, problem)) = error.split_once(": ").filter(|(place, _)| is_place(place)) else {
        return of_part(error);
    };
    let line = place.split('(').next().and_then(|line| line.parse::<usize>().ok()).unwrap_or(1);
    let column = place.split(['(', ')']).nth(1).unwrap_or("1");
    format!("line {}, column {column}: {}", line.saturating_sub(1).max(1), of_part(problem))
}

fn of_part(problem: &str) -> String {
    match problem {
        problem if problem.contains("regex parse error") => of_regex(problem),
        problem if problem.starts_with("lexer error") => {
            "this can't be read: quote texts with \"…\", and patterns with /…/".to_owned()
        }
        problem if problem.starts_with("failed to compile JSON schema") => {
            let (keyword, problem) = of_schema(problem);
            format!("{}{problem}", keyword.map(|keyword| format!("{keyword}: ")).unwrap_or_default())
        }
        problem => core(problem),
    }
}

/// Words of a schema's error, and the keyword that it is about.
pub(super) fn of_schema(error: &str) -> (Option<&'static str>, String) {
    let error = error.split_once("failed to compile JSON schema: ").map_or(error, |(_, rest)| rest);
    if error.contains("regex parse error") || error.contains("lookarounds not supported") {
        return (Some("pattern"), of_regex(error));
    }
    let said = core(error);
    let after = |mark: &str| said.split_once(mark).map(|(_, rest)| rest.to_owned());
    if let Some(reason) = after("Unsatisfiable schema: ") {
        let reason =
            if reason.starts_with("Regex is empty") { "its keywords exclude each other" } else { &reason };
        return (None, format!("nothing fits it: {reason}"));
    }
    if let Some(name) = after("Invalid type: ") {
        let types = "null, boolean, integer, number, string, array or object";
        return (Some("type"), format!("expected {types}, got {name:?}"));
    }
    if let Some(keywords) = after("Unimplemented keys: ") {
        let keywords = keywords.trim_matches(['[', ']']).to_owned();
        return (
            None,
            format!(
                "{keywords} can't be enforced: leave it out, or set strict to false to have it passed over"
            ),
        );
    }
    if let Some(format) = after("Unknown format: ") {
        return (Some("format"), format!("{format:?} is not known: leave it out, or write it as a pattern"));
    }
    if let Some(reference) = after("ref '") {
        let reference = reference.trim_end_matches(['\'', '.']).to_owned();
        return (
            Some("$ref"),
            format!(
                "{reference:?} is outside of the schema: only references that begin with #/ are followed"
            ),
        );
    }
    if said.starts_with("Reference segment") {
        let path = said.rsplit('\'').nth(1).unwrap_or_default();
        return (Some("$ref"), format!("there is no {path:?} in the schema"));
    }
    let rest = match &*said {
        "schema must be an object or boolean" => "expected a schema, which is an object, true or false",
        "schema too large" => "it has too many combinations: make it simpler",
        "invalid multiple of" => return (Some("multipleOf"), "expected a number above 0".to_owned()),
        said if said.contains("recursion limit") => "it is nested too deeply: make it flatter, or use $ref",
        said if said.contains("are not disjoint") => {
            return (
                Some("patternProperties"),
                "a key may fit two of the patterns: make them exclude each other".to_owned(),
            );
        }
        said => {
            return (
                None,
                said.replace("Expected f64 for", "expected a number for")
                    .replace("Expected positive integer", "expected a whole number from 0")
                    .replace("Expected ", "expected "),
            );
        }
    };
    (None, rest.to_owned())
}

/// What is said, without the grammar that it is said about.
fn core(error: &str) -> String {
    const MOST_CHARS: usize = 300;
    let text = error.split("\n   ").next().unwrap_or_default();
    let text = text.split(" (at \"").next().unwrap_or_default().trim();
    text.chars().take(MOST_CHARS).collect()
}

/// `3(14)`.
fn is_place(text: &str) -> bool {
    text.strip_suffix(')').and_then(|text| text.split_once('(')).is_some_and(|(line, column)| {
        [line, column]
            .iter()
            .all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn starts_with_place(text: &str) -> bool {
    text.split_once(": ").is_some_and(|(place, _)| is_place(place))
}
