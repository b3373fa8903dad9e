//! Where results go.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use baton_results::{Document, export};

use super::CommandError;

/// Files to write.
#[derive(clap::Args, Clone, Debug)]
#[command(next_help_heading = "Output")]
pub struct OutputArgs {
    /// Save the run, for `baton bench report`; of several runs, NAME.1.json, NAME.2.json, … are written
    #[arg(long, short, value_name = "NAME.json")]
    output: Option<PathBuf>,

    /// Write the figures by vLLM's definitions, in its bench's JSON
    #[arg(long, value_name = "FILE")]
    vllm_json: Option<PathBuf>,

    /// Write the figures as AIPerf does, into this folder
    #[arg(long, value_name = "DIR")]
    aiperf_dir: Option<PathBuf>,
}

impl OutputArgs {
    /// Writes what was asked for of one run.
    pub(super) fn write(&self, document: &Document) -> Result<(), CommandError> {
        if let Some(path) = &self.output {
            document.write(path)?;
        }
        self.export(std::slice::from_ref(document))
    }

    /// Writes the `number`th of several runs, from 1.
    pub(super) fn write_one_of_several(
        &self,
        document: &Document,
        number: usize,
    ) -> Result<(), CommandError> {
        let Some(path) = &self.output else { return Ok(()) };
        Ok(document.write(&numbered(path, number))?)
    }

    /// Writes what others' tools read.
    pub(super) fn export(&self, documents: &[Document]) -> Result<(), CommandError> {
        if let Some(path) = &self.vllm_json {
            export::vllm(documents, path)?;
        }
        for (document, number) in documents.iter().zip(1..) {
            let Some(folder) = &self.aiperf_dir else { break };
            let folder = if documents.len() == 1 { folder.clone() } else { folder.join(format!("{number}")) };
            export::aiperf(document, &folder)?;
        }
        Ok(())
    }

    pub(super) fn path(&self) -> Option<&Path> {
        self.output.as_deref()
    }
}

/// Prints for who called the command.
pub(super) fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout(), "{}", text.trim_end())
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    match path.extension() {
        Some(extension) => path.with_extension(format!("{number}.{}", extension.to_string_lossy())),
        None => path.with_extension(number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_are_numbered() {
        assert_eq!(numbered(Path::new("a/run.json"), 3), Path::new("a/run.3.json"));
        assert_eq!(numbered(Path::new("run"), 1), Path::new("run.1"));
    }
}
