use anyhow::Result;

use super::*;
use crate::testing::{everything, measured, steady};
use crate::{Invalid, Load, Measured};

/// A run of a system of that name at that rate.
fn run(name: &str, rate: f64) -> Measured {
    let mut run = measured(steady(60));
    run.run.name = name.into();
    run.run.load = Load::Open { arrivals: "poisson".into(), requests_per_second: rate };
    run.slo = everything().slo;
    run
}

fn report(runs: impl IntoIterator<Item = Measured>) -> Report {
    Report::new(runs.into_iter().map(|run| SavedDocument::Run(Document::new(run))))
}

fn names(report: &Report) -> Vec<String> {
    report.charts().into_iter().map(|chart| chart.name).collect()
}

#[test]
fn each_chart_is_there_if_there_is_something_to_show() -> Result<()> {
    let single = ["cdf-ttft", "cdf-itl", "cdf-tpot", "cdf-e2e", "timeline-1"];
    assert_eq!(names(&report([run("a", 4.0)])), single);

    let by_rate = ["ttft-by-rate", "tpot-by-rate", "e2e-by-rate", "output-tokens-by-rate", "goodput-by-rate"];
    let sweep = report([run("a", 4.0), run("a", 8.0)]);
    assert_eq!(names(&sweep), by_rate.into_iter().chain(single).chain(["timeline-2"]).collect::<Vec<_>>());

    let mut told = everything();
    told.run.streaming = false;
    assert_eq!(names(&report([told])), ["cdf-e2e", "timeline-1", "utilisation-1"]);

    let pair = || (Document::new(run("a", 4.0)), Document::new(run("b", 4.0)));
    let comparison = Comparison::new(&[pair(), pair()])?;
    assert_eq!(names(&Report::new([SavedDocument::Comparison(comparison)])), ["comparison-1"]);
    Ok(())
}

#[test]
fn what_is_not_valid_says_so_in_the_page_and_in_each_chart() {
    let mut invalid = everything();
    invalid.validity.reasons = vec![Invalid::Other { text: "the server's clock was set".into() }];
    let mut report = report([run("a", 4.0), run("a", 8.0)]);
    report.runs.push(Document::new(invalid));
    let html = report.html();
    assert!(html.contains("Some of these figures are INVALID"));
    for chart in report.charts() {
        let shows =
            chart.name.contains("cdf") || chart.name == "timeline-3" || chart.name.contains("utilisation");
        assert_eq!(chart.svg.contains("INVALID"), shows, "{}", chart.name);
        assert_eq!(chart.svg.contains("the server&#39;s clock was set"), shows, "{}", chart.name);
    }
}

#[test]
fn no_name_becomes_markup() {
    let mut evil = run("<script>alert(1)</script>", 4.0);
    evil.run.notes.insert("<b>".into(), "\"><img src=x>".into());
    evil.run.command = vec!["</script>".into()];
    let html = report([evil]).html();
    assert!(!html.contains("<script>alert") && !html.contains("<img") && !html.contains("<b>"));
    assert_eq!(html.matches("</script>").count(), 1);
}

#[test]
fn the_page_refers_to_nothing_outside() {
    let html = report([run("a", 4.0), everything()]).html();
    for reference in ["src=", "@import", "href=\"http", "href=\"/", "<link rel=\"stylesheet", "<iframe"] {
        assert!(!html.contains(reference), "{reference}");
    }
    assert_eq!(html.matches("url(").count(), html.matches("url(data:").count());
}

#[test]
fn the_same_documents_are_the_same_page() {
    let page = || report([run("b", 4.0), run("a", 8.0), run("a", 4.0), everything()]).html();
    assert_eq!(page(), page());
}

#[test]
fn each_chart_becomes_a_picture_with_its_text() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut report = report([run("a", 4.0), run("a", 8.0), everything()]);
    let pair = (report.runs[0].clone(), report.runs[0].clone());
    report.comparisons.push(Comparison::new(&[pair.clone(), pair])?);
    let count = report.write_pngs(folder.path())?;
    assert_eq!(count, report.charts().len());
    for chart in report.charts() {
        let png = fs::read(folder.path().join(format!("{}.png", chart.name)))?;
        let pixels = resvg::tiny_skia::Pixmap::decode_png(&png)?;
        assert_eq!(pixels.width(), 1_800, "{}", chart.name);
        // The title's line has dark pixels on white paper: the font was found.
        let line = pixels.pixels().iter().skip(1_800 * 40).take(1_800 * 30);
        let dark =
            line.filter(|pixel| pixel.red() < 100 && pixel.green() < 100 && pixel.blue() < 100).count();
        assert!((100..20_000).contains(&dark), "{}: {dark} dark pixels", chart.name);
    }
    Ok(())
}

#[test]
fn systems_are_set_against_each_other_at_the_same_load_only() {
    let mut slower = run("b", 4.0);
    for record in &mut slower.records {
        for chunk in &mut record.chunks {
            chunk.at.0 += 5_000;
        }
        record.end_us = record.chunks.last().map(|chunk| chunk.at);
    }
    let html = report([run("a", 4.0), slower, run("b", 9.0)]).html();
    let table = html.split("Against a at the same load").nth(1).unwrap_or_default();
    let table = table.split("</table>").next().unwrap_or_default();
    assert_eq!(table.matches("<tr>").count(), 2, "{table}");
    assert!(table.contains("<td>1.250 worse</td>") && table.contains("<td>1.000 alike</td>"), "{table}");
}
