//! The report in a real browser: Chromium draws it, without a network, without an error.

mod chromium;
mod world;

use std::fs;

use anyhow::Result;
use baton_results::{Report, SavedDocument};

use self::chromium::{Chromium, Page};

fn show(html: &str) -> Result<Page> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("report.html");
    fs::write(&path, html)?;
    Chromium::find()?.open(&path)
}

#[test]
fn the_report_of_a_sweep_and_a_comparison_is_drawn_without_errors_or_requests() -> Result<()> {
    let (runs, comparison) = world::sweep();
    let documents = runs.into_iter().map(SavedDocument::Run).chain([SavedDocument::Comparison(comparison?)]);
    let report = Report::new(documents);
    let page = show(&report.html())?;

    assert_eq!(page.complaints, Vec::<String>::new());
    assert_eq!(page.requests, Vec::<String>::new());
    assert!(page.dom.contains(r#"data-ready="true""#), "the script did not run to its end");
    let charts = report.charts();
    assert!(charts.len() >= 12, "{}", charts.len());
    for chart in charts {
        let figure = page.dom.split(&format!(r#"<figure id="{}">"#, chart.name)).nth(1).unwrap_or_default();
        let figure = figure.split("</figure>").next().unwrap_or_default();
        assert!(figure.contains("<svg") && figure.contains("class=\"axis\""), "{}", chart.name);
    }
    assert!(page.dom.contains("Some of these figures are INVALID"));
    assert!(page.dom.contains("The pairs, and how they were run"));
    assert!(page.dom.contains("Where B is worse") && page.dom.contains("TTFT p99: B is worse"));
    Ok(())
}

/// What the test above would see if there were something to see.
#[test]
fn errors_and_requests_of_a_page_are_noticed() -> Result<()> {
    let page = show(
        "<!DOCTYPE html><title>x</title><img src=\"http://127.0.0.1:9/picture.png\"><script>throw new Error('broken chart')</script>",
    )?;
    assert!(page.complaints.iter().any(|line| line.contains("broken chart")), "{:?}", page.complaints);
    assert!(page.requests.iter().any(|url| url.contains("127.0.0.1:9/picture.png")), "{:?}", page.requests);
    Ok(())
}
