//! Reading a result folder again.
//!
//! What it is not: the run that writes one.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use serde::Deserialize;
use thiserror::Error;

use super::outcome::{Entry, FORMAT, Outcome};

/// What came of a run; without it a folder is of a run that did not end.
pub(crate) const RESULT: &str = "result.json";
/// What all processes told.
pub(crate) const EVENTS: &str = "events.jsonl";
/// The page about the run.
pub(crate) const PAGE: &str = "report.html";

/// How much of a file is read: hours of a hundred nodes fit.
const MAX_FILE_BYTES: u64 = 512 << 20;

/// Why a folder is not taken for a result.
#[derive(Debug, Error)]
pub(crate) enum FolderError {
    #[error("{}: is no result of a run: it has no {RESULT}", .0.display())]
    NoResult(PathBuf),
    #[error(
        "{}: has format {got}, and this program reads format {FORMAT}; run the scenario again with this program", .file.display()
    )]
    Format { file: PathBuf, got: u64 },
    #[error("{}: is longer than {} MiB", .0.display(), MAX_FILE_BYTES >> 20)]
    TooLong(PathBuf),
    #[error("{}: is not what a run writes: {error}", .file.display())]
    Malformed { file: PathBuf, error: serde_json::Error },
    #[error("{}:{line}: is not what a run writes: {error}", .file.display())]
    MalformedLine { file: PathBuf, line: usize, error: serde_json::Error },
    #[error("{}: {error}", .file.display())]
    File { file: PathBuf, error: io::Error },
}

/// What came of the run that wrote this folder.
pub(crate) fn read_outcome(folder: &Path) -> Result<Outcome, FolderError> {
    #[derive(Deserialize)]
    struct Formatted {
        format: u64,
    }
    let file = folder.join(RESULT);
    let text = match read(&file) {
        Err(FolderError::File { error, .. }) if is_absence(&error) => {
            return Err(FolderError::NoResult(folder.to_owned()));
        }
        text => text?,
    };
    let malformed = |error| FolderError::Malformed { file: file.clone(), error };
    let Formatted { format } = serde_json::from_slice(&text).map_err(malformed)?;
    if format != u64::from(FORMAT) {
        return Err(FolderError::Format { file, got: format });
    }
    serde_json::from_slice(&text).map_err(malformed)
}

/// What all processes told. A last line without an end was being written when the runner was killed, and is left out.
pub(crate) fn read_entries(folder: &Path) -> Result<Vec<Entry>, FolderError> {
    let file = folder.join(EVENTS);
    let text = read(&file)?;
    let whole = text.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
    let lines = text[..whole].split(|byte| *byte == b'\n').enumerate();
    lines
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(index, line)| {
            serde_json::from_slice(line).map_err(|error| FolderError::MalformedLine {
                file: file.clone(),
                line: index + 1,
                error,
            })
        })
        .collect()
}

fn read(file: &Path) -> Result<Vec<u8>, FolderError> {
    let failed = |error| FolderError::File { file: file.to_owned(), error };
    let mut text = Vec::new();
    let is_longer =
        File::open(file).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text)).map_err(failed)?;
    if is_longer as u64 > MAX_FILE_BYTES { Err(FolderError::TooLong(file.to_owned())) } else { Ok(text) }
}

fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Writes the page of a folder.
pub(crate) fn write_page(folder: &Path, page: &str) -> Result<PathBuf, FolderError> {
    let file = folder.join(PAGE);
    match fs::write(&file, page) {
        Ok(()) => Ok(file),
        Err(error) => Err(FolderError::File { file, error }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::sample;

    fn folder(result: &str, events: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(RESULT), result).unwrap();
        fs::write(folder.path().join(EVENTS), events).unwrap();
        folder
    }

    #[test]
    fn a_result_is_read_as_it_was_written() {
        let outcome = sample::outcome();
        let folder = folder(&serde_json::to_string(&outcome).unwrap(), "");
        let read = read_outcome(folder.path()).unwrap();
        assert_eq!(serde_json::to_value(read).unwrap(), serde_json::to_value(outcome).unwrap());
    }

    #[test]
    fn what_is_no_result_is_refused_with_one_line() {
        let empty = tempfile::tempdir().unwrap();
        let not_a_folder = empty.path().join("file");
        fs::write(&not_a_folder, "").unwrap();
        for path in [empty.path(), &empty.path().join("missing"), &not_a_folder] {
            let error = read_outcome(path).unwrap_err().to_string();
            assert_eq!(error, format!("{}: is no result of a run: it has no result.json", path.display()));
        }
        let newer = folder(r#"{"format": 7, "whatever": []}"#, "");
        let error = read_outcome(newer.path()).unwrap_err().to_string();
        assert!(
            error.ends_with("has format 7, and this program reads format 1; run the scenario again with this program"),
            "{error}"
        );
        let other = folder(r#"{"version": 3}"#, "");
        let error = read_outcome(other.path()).unwrap_err().to_string();
        assert!(error.contains("result.json: is not what a run writes: missing field `format`"), "{error}");
    }

    #[test]
    fn a_line_that_was_being_written_is_left_out_and_a_wrong_one_is_named() {
        let line = r#"{"at_s":1.5,"process":"a","event":{"event":"notice","message":"x"}}"#;
        let torn = folder("", &format!("{line}\n{line}\n{{\"at_s\":2,\"proc"));
        assert_eq!(read_entries(torn.path()).unwrap().len(), 2);
        let wrong = folder("", &format!("{line}\n[]\n{line}\n"));
        let error = read_entries(wrong.path()).unwrap_err().to_string();
        assert!(error.contains("events.jsonl:2: is not what a run writes"), "{error}");
    }
}
