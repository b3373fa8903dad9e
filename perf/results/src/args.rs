//! `baton bench report`.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{Document, Report, SavedDocument, export, table};

/// Options of `baton bench report`.
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Without an option the tables are printed. Runs of one name and different loads are one curve; runs of several names are several systems.
Whatever is made says which runs are INVALID, and why. docs/benchmarking.md defines each figure.

Examples:
  baton bench report results/*.json --html report.html
  baton bench report aggregated-*.json 2p1d-*.json compare.json --html report.html --png charts/
  baton bench report run.json --vllm vllm.json --aiperf aiperf/")]
pub struct ReportArgs {
    /// Results that `baton bench` wrote: runs (also of several systems, at several loads) and comparisons
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,

    /// Write a report with charts and tables: one file that needs no network
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,

    /// Write each chart as a picture into this folder
    #[arg(long, value_name = "FOLDER")]
    png: Option<PathBuf>,

    /// Write the runs as `vllm bench serve --save-result` does; several runs are a line each
    #[arg(long, value_name = "FILE")]
    vllm: Option<PathBuf>,

    /// Write AIPerf's profile_export_aiperf.json and profile_export.jsonl into this folder; of several runs each into a folder
    /// there, by its file's name
    #[arg(long, value_name = "FOLDER")]
    aiperf: Option<PathBuf>,
}

/// Reads the results, writes what is asked, and returns what is to be printed.
///
/// # Errors
/// A file that can't be read or written, or one that is no result.
pub fn report(args: &ReportArgs) -> Result<String> {
    let documents = args.files.iter().map(|path| SavedDocument::read(path)).collect::<Result<Vec<_>, _>>()?;
    if let Some(folder) = &args.aiperf {
        aiperf(args, &documents, folder)?;
    }
    let report = Report::new(documents);
    if let Some(path) = &args.vllm {
        if report.runs.is_empty() {
            bail!("--vllm writes runs, and the files hold comparisons only: give the runs' files");
        }
        export::vllm(&report.runs, path)?;
    }
    if let Some(path) = &args.html {
        report.write_html(path)?;
    }
    if let Some(folder) = &args.png {
        report.write_pngs(folder)?;
    }
    Ok(tables(&report))
}

fn aiperf(args: &ReportArgs, documents: &[SavedDocument], folder: &Path) -> Result<()> {
    let runs: Vec<(&PathBuf, &Document)> = args
        .files
        .iter()
        .zip(documents)
        .filter_map(|(path, document)| match document {
            SavedDocument::Run(run) => Some((path, run)),
            SavedDocument::Comparison(_) => None,
        })
        .collect();
    match runs[..] {
        [] => bail!("--aiperf writes runs, and the files hold comparisons only: give the runs' files"),
        [(_, run)] => export::aiperf(run, folder)?,
        _ => {
            for (n, (path, run)) in runs.iter().enumerate() {
                let name = path.file_stem().unwrap_or_default();
                // Files of one name in several folders must not overwrite each other.
                if runs[..n].iter().any(|(other, _)| other.file_stem() == path.file_stem()) {
                    bail!(
                        "two files are named {}, and --aiperf names folders by them: rename one",
                        name.display()
                    );
                }
                export::aiperf(run, &folder.join(name))?;
            }
        }
    }
    Ok(())
}

fn tables(report: &Report) -> String {
    let mut parts: Vec<String> = report.comparisons.iter().map(table::comparison).collect();
    match &report.runs[..] {
        [] => {}
        [run] => parts.push(table::run(run)),
        runs => parts.push(table::sweep(runs)),
    }
    parts.join("\n")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::Parser as _;

    use super::*;
    use crate::Comparison;
    use crate::testing::{everything, measured, steady};

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: ReportArgs,
    }

    /// Runs the command in `folder`; what starts with `@` is a path there.
    fn run(folder: &Path, words: &str) -> Result<String> {
        let word = |word: &str| match word.strip_prefix('@') {
            Some(name) => folder.join(name).display().to_string(),
            None => word.to_owned(),
        };
        let words = ["report".to_owned()].into_iter().chain(words.split_whitespace().map(word));
        report(&Command::try_parse_from(words)?.args)
    }

    fn results() -> Result<tempfile::TempDir> {
        let folder = tempfile::tempdir()?;
        let (one, other) = (Document::new(measured(steady(20))), Document::new(everything()));
        one.write(&folder.path().join("one.json"))?;
        other.write(&folder.path().join("other.json"))?;
        let pair = (one.clone(), one);
        Comparison::new(&[pair.clone(), pair])?.write(&folder.path().join("compared.json"))?;
        Ok(folder)
    }

    #[test]
    fn everything_that_is_asked_is_written() -> Result<()> {
        let folder = results()?;
        let at = folder.path();
        let text = run(
            at,
            "@one.json @other.json @compared.json --html @r.html --png @png --vllm @vllm.json --aiperf @aiperf",
        )?;
        assert!(
            text.starts_with("A: baton 1P:1D\n") && text.contains("system") && text.contains("INVALID"),
            "{text}"
        );
        for file in [
            "r.html",
            "png/comparison-1.png",
            "png/cdf-ttft.png",
            "aiperf/one/profile_export.jsonl",
            "aiperf/other/profile_export_aiperf.json",
        ] {
            assert!(at.join(file).is_file(), "{file}");
        }
        assert_eq!(fs::read_to_string(at.join("vllm.json"))?.lines().count(), 2);
        Ok(())
    }

    #[test]
    fn a_single_run_is_a_table_and_a_folder_of_its_own() -> Result<()> {
        let folder = results()?;
        let text = run(folder.path(), "@one.json --aiperf @aiperf")?;
        assert!(text.contains("from actual send"), "{text}");
        assert!(folder.path().join("aiperf/profile_export.jsonl").is_file());
        Ok(())
    }

    #[test]
    fn what_cannot_be_done_is_said() -> Result<()> {
        let folder = results()?;
        let refused = |words: &str| run(folder.path(), words).expect_err("it cannot be done").to_string();
        assert!(refused("@none.json").contains("none.json"));
        assert!(refused("@compared.json --vllm @v.json").contains("give the runs' files"));
        assert!(refused("@one.json @one.json --aiperf @a").contains("rename one"));
        assert!(refused("").contains("required"));
        Ok(())
    }
}
