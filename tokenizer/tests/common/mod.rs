//! Fixtures made by `fixtures/make_fixtures.py`.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use baton_tokenizer::Tokenizer;

pub(crate) const KINDS: [&str; 2] = ["byte-level", "metaspace"];

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new("tests/fixtures").join(name)
}

pub(crate) fn load(kind: &str) -> Arc<Tokenizer> {
    Arc::new(Tokenizer::load(&fixture(kind)).expect("the fixture loads"))
}

pub(crate) fn golden() -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(fixture("golden.json")).unwrap()).unwrap()
}
