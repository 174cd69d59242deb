//! What progress looks like: the line beside a bar, or instead of one.

use crate::{
    pace::Pace,
    text::{count, rate, size, span},
};

/// How far something has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgressLine {
    /// What is being done.
    pub what: &'static str,
    /// Bytes done.
    pub done_bytes: u64,
    /// Bytes in all; 0 if not known.
    pub total_bytes: u64,
    /// Files done and in all, if files are counted; 0 in all if not known.
    pub files: Option<(u64, u64)>,
}

/// Renders progress as one line without its end: what stands beside the bar, or the whole where there is none.
pub fn progress_text(progress: &ProgressLine, pace: &Pace) -> String {
    let ProgressLine { done_bytes, total_bytes, files, .. } = *progress;
    let mut parts = vec![share_done(progress)];
    if total_bytes > 0 {
        parts.push(format!("{} of {}", size(done_bytes), size(total_bytes)));
    }
    match files {
        Some((done, total)) if total > 1 => parts.push(format!("{} of {} files", count(done), count(total))),
        _ => {}
    }
    parts.extend(pace_parts(progress, pace));
    parts.join(", ")
}

/// The same for a terminal of few columns: how far, how fast, how long.
pub fn short_progress_text(progress: &ProgressLine, pace: &Pace) -> String {
    let mut parts = vec![share_done(progress)];
    parts.extend(pace_parts(progress, pace));
    parts.join(", ")
}

/// How much is done: in percent, or as a size while the whole is not known.
fn share_done(progress: &ProgressLine) -> String {
    let ProgressLine { done_bytes, total_bytes, .. } = *progress;
    match total_bytes {
        0 => size(done_bytes),
        // Rounded down: 100 % is said only when nothing is missing.
        _ => format!("{} %", u128::from(done_bytes.min(total_bytes)) * 100 / u128::from(total_bytes)),
    }
}

fn pace_parts(progress: &ProgressLine, pace: &Pace) -> impl Iterator<Item = String> {
    let ProgressLine { done_bytes, total_bytes, .. } = *progress;
    let left = pace.left(done_bytes, total_bytes).filter(|_| total_bytes > done_bytes);
    pace.rate().map(rate).into_iter().chain(left.map(|left| format!("{} left", span(left))))
}
