//! docs/efa.md names places in the code. Do they exist?

use std::collections::BTreeMap;
use std::path::Path;

/// `file::name` in backticks.
fn places(page: &str) -> Vec<(&str, &str)> {
    let quoted = page.split('`').skip(1).step_by(2);
    quoted.filter_map(|text| text.split_once(".rs::")).collect()
}

/// Whether the source defines something of this name: a function, a type, a constant.
fn defines(source: &str, name: &str) -> bool {
    let kinds = ["fn ", "struct ", "enum ", "const "];
    kinds.iter().any(|kind| {
        source.match_indices(&format!("{kind}{name}")).any(|(at, found)| {
            let next = source[at + found.len()..].chars().next();
            next.is_none_or(|next| !next.is_alphanumeric() && next != '_')
        })
    })
}

#[test]
fn every_place_that_the_page_on_efa_names_exists() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(here.join("../docs/efa.md")).unwrap();
    let places = places(&page);
    assert!(places.len() > 40, "the page's form changed: {} places found", places.len());
    let mut sources = BTreeMap::new();
    for (file, name) in places {
        let path = format!("{file}.rs");
        let source = sources
            .entry(path.clone())
            .or_insert_with(|| std::fs::read_to_string(here.join(&path)).unwrap_or_default());
        assert!(!source.is_empty(), "{path} does not exist");
        assert!(defines(source, name), "{path} defines no {name}");
    }
}

#[test]
fn a_place_that_is_gone_is_noticed() {
    let source = "pub(super) fn posted() {}\nstruct Post;\nfn poster<T>() {}";
    for name in ["posted", "Post", "poster"] {
        assert!(defines(source, name), "{name}");
    }
    for name in ["post", "Pos", "T"] {
        assert!(!defines(source, name), "{name}");
    }
    assert_eq!(places("see `a/b.rs::c`, `d` and `e.rs`"), [("a/b", "c")]);
}
