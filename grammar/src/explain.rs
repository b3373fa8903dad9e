//! Why what a client asked for can't be a grammar, in terms of what the client wrote.
//!
//! A grammar is made of more than that, and the compiler speaks of the whole. So what was asked for is compiled alone, and a schema
//! part by part, until the smallest part is found that is refused.

mod wording;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Map, Value};

use crate::{
    GrammarError,
    compiler::Compiler,
    source::{self, SchemaStyle},
};

/// What was asked for, as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A JSON schema.
    Schema(Map<String, Value>, SchemaStyle),
    /// A regular expression.
    Regex(String),
    /// A grammar in Lark's notation.
    Lark(String),
}

/// What is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// Where in a schema, such as `properties.age.minimum`; empty: all of it.
    pub path: String,
    /// What, and what to do.
    pub problem: String,
}

/// Longest regular expression, and longest line of a grammar: what takes the compiler a fraction of a second at most.
const MOST_PATTERN_BYTES: usize = 4 << 10;
/// Most patterns for the keys of one object: each is compared with each.
const MOST_KEY_PATTERNS: usize = 64;
/// Schemas in schemas. JSON itself is nested about twice as deep, and parsers have their limits.
const MOST_LEVELS: usize = 48;
/// Longest that is looked for the part that is refused.
const PATIENCE: Duration = Duration::from_secs(1);

/// Keywords whose value is a schema, a list of schemas, or an object of schemas.
const ONE: [&str; 3] = ["items", "additionalProperties", "additionalItems"];
const LISTS: [&str; 5] = ["anyOf", "oneOf", "allOf", "prefixItems", "items"];
const OBJECTS: [&str; 4] = ["properties", "patternProperties", "$defs", "definitions"];

impl Input {
    /// Checks what would take too long to compile.
    ///
    /// # Errors
    /// The limit that it is beyond.
    pub fn check(&self) -> Result<(), Refusal> {
        let too_long = |bytes: usize| bytes > MOST_PATTERN_BYTES;
        let at_root = |problem: String| Err(Refusal { path: String::new(), problem });
        match self {
            Self::Regex(pattern) if too_long(pattern.len()) => at_root(length(pattern.len())),
            Self::Lark(grammar) => match grammar.lines().map(str::len).find(|&bytes| too_long(bytes)) {
                Some(bytes) => at_root(format!("a line of it: {}", length(bytes))),
                None => Ok(()),
            },
            Self::Regex(_) => Ok(()),
            Self::Schema(schema, _) => check_schema(schema, "", MOST_LEVELS),
        }
    }

    /// What the compiler has against it; `None`: nothing.
    pub(crate) fn refusal(&self, compiler: &Compiler) -> Option<Refusal> {
        let compile = |rule: &str| compiler.compile(&Arc::from(source::whole(rule))).err();
        match self {
            Self::Regex(pattern) => {
                let error = compile(&source::regex(pattern))?;
                Some(Refusal { path: String::new(), problem: wording::of_regex(&error.to_string()) })
            }
            Self::Lark(grammar) => {
                let error = compile(&source::nested(grammar))?;
                Some(Refusal { path: String::new(), problem: wording::of_lark(&error.to_string()) })
            }
            Self::Schema(schema, style) => {
                let refuse = |part: &Map<String, Value>| compile(&source::json_schema(part, style));
                let error = refuse(schema)?;
                let (path, error) = smallest(schema, &refuse, error);
                let (keyword, problem) = wording::of_schema(&error.to_string());
                Some(Refusal { path: joined(&path, keyword.unwrap_or_default()), problem })
            }
        }
    }
}

fn length(bytes: usize) -> String {
    format!("it has {bytes} bytes, the limit is {MOST_PATTERN_BYTES}")
}

fn check_schema(schema: &Map<String, Value>, path: &str, levels: usize) -> Result<(), Refusal> {
    let refuse = |keyword: &str, problem: String| Err(Refusal { path: joined(path, keyword), problem });
    if levels == 0 {
        // Where that is would be a long story.
        let problem =
            format!("schemas are nested more than {MOST_LEVELS} levels deep: make it flatter, or use $ref");
        return Err(Refusal { path: String::new(), problem });
    }
    let patterns = schema.get("patternProperties").and_then(Value::as_object);
    if let Some(count) = patterns.map(Map::len).filter(|&count| count > MOST_KEY_PATTERNS) {
        return refuse("patternProperties", format!("{count} patterns, the limit is {MOST_KEY_PATTERNS}"));
    }
    let of_keys =
        patterns.into_iter().flat_map(Map::keys).map(|pattern| ("patternProperties", pattern.len()));
    let own = schema.get("pattern").and_then(Value::as_str).map(|pattern| ("pattern", pattern.len()));
    if let Some((keyword, bytes)) = of_keys.chain(own).find(|(_, bytes)| *bytes > MOST_PATTERN_BYTES) {
        return refuse(keyword, length(bytes));
    }
    parts(schema).iter().try_for_each(|(name, part)| match part {
        Value::Object(part) => check_schema(part, &joined(path, name), levels - 1),
        _ => Ok(()),
    })
}

/// Goes down into the first part that is refused by itself, as long as there is one.
fn smallest(
    schema: &Map<String, Value>,
    refuse: &impl Fn(&Map<String, Value>) -> Option<GrammarError>,
    error: GrammarError,
) -> (String, GrammarError) {
    let until = Instant::now() + PATIENCE;
    let (mut path, mut found, mut error) = (String::new(), schema.clone(), error);
    let definitions: Vec<(&String, &Value)> =
        schema.iter().filter(|(key, _)| *key == "$defs" || *key == "definitions").collect();
    loop {
        let refused = parts(&found).into_iter().find_map(|(name, part)| {
            if Instant::now() > until {
                return None;
            }
            let Value::Object(mut part) = part else {
                let is_schema = part.is_boolean();
                let problem = "schema must be an object or boolean".to_owned();
                return (!is_schema).then(|| (name, Map::new(), GrammarError::Invalid(problem)));
            };
            let own = part.clone();
            for (key, shared) in &definitions {
                part.entry((*key).clone()).or_insert_with(|| (*shared).clone());
            }
            Some((name, own, refuse(&part)?))
        });
        let Some((name, part, reason)) = refused else { return (path, error) };
        (path, found, error) = (joined(&path, &name), part, reason);
    }
}

/// The schemas that a schema is made of, by their names in it.
fn parts(schema: &Map<String, Value>) -> Vec<(String, Value)> {
    let mut parts = Vec::new();
    for (key, value) in schema {
        match value {
            Value::Object(members) if OBJECTS.contains(&key.as_str()) => {
                parts.extend(members.iter().map(|(name, part)| (format!("{key}.{name}"), part.clone())));
            }
            Value::Array(items) if LISTS.contains(&key.as_str()) => {
                let item = |(at, part): (usize, &Value)| (format!("{key}[{at}]"), part.clone());
                parts.extend(items.iter().enumerate().map(item));
            }
            part if ONE.contains(&key.as_str()) => parts.push((key.clone(), part.clone())),
            _ => {}
        }
    }
    parts
}

fn joined(path: &str, name: &str) -> String {
    match (path, name) {
        ("", name) => name.to_owned(),
        (path, "") => path.to_owned(),
        (path, name) => format!("{path}.{name}"),
    }
}
