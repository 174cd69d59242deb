//! Where what is to be shown goes: results to standard output, everything else to standard error, progress as a bar if
//! that is a terminal and as a line now and then if it is not.
//!
//! What it is not: the wording (`render.rs`).

mod margin;

use std::{
    io::{self, Write},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::margin::WithMargin;
use super::{
    pace::Pace,
    render::{self, ProgressLine, RenderContext, Shown},
};
use keyferry::control::{Event, Failure};

/// How often progress is told where there is no terminal to draw a bar on.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);
/// How often a wait is told of there.
const PLAIN_WAIT_INTERVAL: Duration = Duration::from_secs(30);
/// How often a bar moves when nothing happens.
const TICK: Duration = Duration::from_millis(120);

/// How often a bar is drawn at most.
const DRAWS_PER_SECOND: u8 = 20;
/// How wide a terminal must be for a bar beside the figures.
const BAR_COLUMNS: u16 = 80;
/// How wide it must be for all figures without a bar.
const ALL_COLUMNS: u16 = 60;
/// How wide it must be for the number of files as well.
const FILES_COLUMNS: u16 = 100;

/// How to show things.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// Events as JSON lines on standard output, and nothing else there.
    pub json: bool,
    /// No progress and no notices.
    pub quiet: bool,
    /// Whether standard error is a terminal.
    pub terminal: bool,
}

/// A place that log lines and the screen share, so that they do not write into each other's lines.
#[derive(Clone)]
pub struct Bars(MultiProgress);

impl Bars {
    /// Makes it; hidden unless standard error is a terminal and shows progress.
    pub fn new(style: Style) -> Self {
        let visible = style.terminal && !style.quiet && !style.json;
        let target = if visible {
            ProgressDrawTarget::term_like_with_hz(Box::new(WithMargin::stderr()), DRAWS_PER_SECOND)
        } else {
            ProgressDrawTarget::hidden()
        };
        Self(MultiProgress::with_draw_target(target))
    }

    /// Whether they are drawn at all.
    pub fn visible(&self) -> bool {
        !self.0.is_hidden()
    }

    /// Runs something that writes lines, with the bars out of the way.
    pub fn aside<R>(&self, write: impl FnOnce() -> R) -> R {
        self.0.suspend(write)
    }
}

/// Shows events.
pub struct Screen {
    style: Style,
    context: RenderContext,
    bars: Bars,
    out: Box<dyn Write + Send>,
    err: Box<dyn Write + Send>,
    live: Live,
}

/// What is being replaced by what comes next.
enum Live {
    Nothing,
    Stage { bar: ProgressBar },
    Wait { told: Instant },
    Progress { what: &'static str, size_known: bool, bar: ProgressBar, pace: Pace, told: Instant },
}

impl Screen {
    /// A screen on the standard streams.
    pub fn standard(style: Style, context: RenderContext, bars: Bars) -> Self {
        Self::new(style, context, bars, Box::new(io::stdout()), Box::new(io::stderr()))
    }

    /// A screen of a command whose standard output is content: all that there is to be said goes to standard error.
    pub fn beside_content(style: Style, context: RenderContext, bars: Bars) -> Self {
        Self::new(style, context, bars, Box::new(io::stderr()), Box::new(io::stderr()))
    }

    /// A screen on other streams.
    pub fn new(
        style: Style,
        context: RenderContext,
        bars: Bars,
        out: Box<dyn Write + Send>,
        err: Box<dyn Write + Send>,
    ) -> Self {
        Self { style, context, bars, out, err, live: Live::Nothing }
    }

    /// Shows an event.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written to, as when the reader of a pipe has gone.
    pub fn show(&mut self, now: Instant, event: &Event) -> io::Result<()> {
        if self.style.json {
            return match event {
                Event::Failed(_) => Ok(()),
                event => self.result(&format!("{}\n", event.to_line())),
            };
        }
        let shown = render::render(event, &self.context);
        self.context.note(event);
        match shown {
            Shown::Result(text) => {
                self.clear();
                self.result(&text)?;
            }
            Shown::Notice(text) => self.notice(&text),
            Shown::Stage(text) => self.stage(&text),
            Shown::Waiting(text) => self.waiting(now, &text),
            Shown::Progress(progress) => self.progress(now, &progress),
            Shown::Nothing => {}
        }
        Ok(())
    }

    /// Shows a result in words of its own: the text to people, the event as JSON.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written to.
    pub fn present(&mut self, text: &str, event: &Event) -> io::Result<()> {
        self.clear();
        if self.style.json { self.result(&format!("{}\n", event.to_line())) } else { self.result(text) }
    }

    /// Whether what is being done is shown as it changes: to somebody at a terminal who wants to see it.
    pub fn is_live(&self) -> bool {
        self.style.terminal && !self.style.quiet && !self.style.json
    }

    /// Shows a remark, unless only results are wanted.
    pub fn notice(&mut self, text: &str) {
        if !self.style.json && !self.style.quiet {
            let err = &mut self.err;
            self.bars.aside(|| {
                // Nobody to tell that standard error is gone.
                let _ = writeln!(err, "{text}");
            });
        }
    }

    /// Shows what is being done now, on a terminal until something else comes.
    pub fn stage(&mut self, text: &str) {
        if self.style.quiet || self.style.json {
            return;
        }
        if !self.style.terminal {
            return self.notice(text);
        }
        if let Live::Stage { bar } = &self.live {
            return bar.set_message(text.to_owned());
        }
        self.clear();
        let bar = self.bars.0.add(ProgressBar::new_spinner());
        bar.set_style(style("{spinner} {wide_msg}"));
        bar.set_message(text.to_owned());
        bar.enable_steady_tick(TICK);
        self.live = Live::Stage { bar };
    }

    fn waiting(&mut self, now: Instant, text: &str) {
        if self.is_live() {
            return self.stage(text);
        }
        match &self.live {
            Live::Wait { told } if now.saturating_duration_since(*told) < PLAIN_WAIT_INTERVAL => {}
            _ => {
                self.clear();
                self.live = Live::Wait { told: now };
                self.notice(text);
            }
        }
    }

    /// Shows how a command failed.
    ///
    /// # Errors
    ///
    /// If standard output cannot be written to, with `--json`.
    pub fn failure(&mut self, failure: &Failure) -> io::Result<()> {
        self.clear();
        if self.style.json {
            return self.result(&format!("{}\n", Event::Failed(failure.clone()).to_line()));
        }
        let _ = self.err.write_all(render::failure_text(failure).as_bytes());
        Ok(())
    }

    /// Takes away the bar.
    pub fn clear(&mut self) {
        match std::mem::replace(&mut self.live, Live::Nothing) {
            Live::Nothing | Live::Wait { .. } => {}
            Live::Stage { bar } | Live::Progress { bar, .. } => bar.finish_and_clear(),
        }
    }

    fn result(&mut self, text: &str) -> io::Result<()> {
        let out = &mut self.out;
        self.bars.aside(|| {
            out.write_all(text.as_bytes())?;
            out.flush()
        })
    }

    fn columns() -> u16 {
        console::Term::stderr().size().1
    }

    fn progress(&mut self, now: Instant, progress: &ProgressLine) {
        if self.style.quiet {
            return;
        }
        let known = progress.total_bytes > 0;
        if !matches!(&self.live, Live::Progress { what, size_known, .. } if (*what, *size_known) == (progress.what, known))
        {
            self.clear();
            let bar = self.bars.0.add(ProgressBar::new(progress.total_bytes));
            let narrow = Self::columns() < BAR_COLUMNS;
            bar.set_style(style(match (known, narrow) {
                (true, false) => "{prefix} {wide_bar} {msg}",
                (true, true) => "{prefix} {wide_msg}",
                (false, _) => "{prefix} {spinner} {wide_msg}",
            }));
            bar.set_prefix(progress.what);
            // What is there at the first event was not done now; the first plain line comes after an interval.
            let pace = Pace::new(now, progress.done_bytes);
            self.live = Live::Progress { what: progress.what, size_known: known, bar, pace, told: now };
        }
        let columns = Self::columns();
        let Live::Progress { bar, pace, told, .. } = &mut self.live else { return };
        pace.observe(now, progress.done_bytes);
        if self.style.terminal {
            bar.set_length(progress.total_bytes);
            bar.set_message(match columns < ALL_COLUMNS {
                true => render::short_progress_text(progress, pace),
                false => render::progress_text(&fitting(progress, columns), pace),
            });
            bar.set_position(progress.done_bytes);
        } else if now.saturating_duration_since(*told) >= PLAIN_INTERVAL {
            *told = now;
            let line = format!("{}: {}", progress.what, render::progress_text(progress, pace));
            self.notice(&line);
        }
    }
}

/// The progress that fits into this many columns: without room, the number of files goes first, as the other figures say more.
fn fitting(progress: &ProgressLine, columns: u16) -> ProgressLine {
    let files_fit = columns >= FILES_COLUMNS || progress.total_bytes == 0;
    ProgressLine { files: progress.files.filter(|_| files_fit), ..*progress }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the templates are constants that the tests draw")
        .progress_chars("━╸─")
}

/// A stream that keeps what is written to it, for tests of what is shown.
#[cfg(test)]
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl Kept {
    /// What has been written so far.
    pub(super) fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

#[cfg(test)]
impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
impl Screen {
    /// A screen that keeps what it shows: itself, standard output and standard error.
    pub(super) fn kept(style: Style) -> (Self, Kept, Kept) {
        let (out, err) = (Kept::default(), Kept::default());
        let context = RenderContext { program: "keyferry".to_owned(), listed_node: None, connected: Vec::new() };
        let bars = Bars(MultiProgress::with_draw_target(ProgressDrawTarget::hidden()));
        (Self::new(style, context, bars, Box::new(out.clone()), Box::new(err.clone())), out, err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use keyferry::{Waiting, control::FailureKind};

    fn fetching(done_bytes: u64) -> Event {
        Event::Fetching { done_bytes, total_bytes: 1000, done_files: 0, total_files: 1 }
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Stage { message: "looking up".to_owned() },
            fetching(0),
            fetching(500),
            Event::Notice { message: "slow".to_owned() },
            Event::Unshared { name: "x".parse().unwrap() },
        ]
    }

    #[test]
    fn results_and_remarks_go_their_own_ways() {
        let (mut screen, out, err) = Screen::kept(Style::default());
        for event in events() {
            screen.show(Instant::now(), &event).unwrap();
        }
        assert_eq!(out.text(), "x is no longer shared\n");
        assert_eq!(err.text(), "looking up\nslow\n");
    }

    #[test]
    fn quiet_leaves_results_and_errors() {
        let (mut screen, out, err) = Screen::kept(Style { quiet: true, ..Style::default() });
        for event in events() {
            screen.show(Instant::now(), &event).unwrap();
        }
        screen.failure(&Failure::new(FailureKind::Local, "disk full")).unwrap();
        assert_eq!(out.text(), "x is no longer shared\n");
        assert_eq!(err.text(), "error: disk full\n");
    }

    #[test]
    fn json_puts_every_event_on_standard_output_once() {
        let (mut screen, out, err) = Screen::kept(Style { json: true, ..Style::default() });
        for event in events() {
            screen.show(Instant::now(), &event).unwrap();
        }
        let failure = Failure::new(FailureKind::Local, "disk full");
        screen.show(Instant::now(), &Event::Failed(failure.clone())).unwrap();
        screen.failure(&failure).unwrap();
        screen.present("for people", &Event::Identity { node: "12D3".to_owned() }).unwrap();
        let kinds: Vec<String> = out
            .text()
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["event"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["stage", "fetching", "fetching", "notice", "unshared", "failed", "identity"]);
        assert_eq!(err.text(), "");
    }

    #[test]
    fn without_a_terminal_progress_is_a_line_now_and_then() {
        let (mut screen, _, err) = Screen::kept(Style::default());
        let start = Instant::now();
        for second in 0..=10 {
            screen.show(start + Duration::from_secs(second), &fetching(second * 100)).unwrap();
        }
        assert_eq!(
            err.text(),
            "Fetching: 50 %, 500 bytes of 1000 bytes, 100 bytes/s, 5.0 s left\n\
             Fetching: 100 %, 1000 bytes of 1000 bytes, 100 bytes/s\n"
        );
    }

    #[test]
    fn without_a_terminal_a_wait_is_a_line_now_and_then_until_it_is_over() {
        let (mut screen, _, err) = Screen::kept(Style::default());
        let start = Instant::now();
        let waiting = |seconds: u64| {
            Event::Waiting(Waiting {
                whom: "12D3".to_owned(),
                contact: Some("Ada".to_owned()),
                reason: "the connection was lost".to_owned(),
                since: 0,
                until: None,
                waited: Duration::from_secs(seconds),
                left: None,
                next_try: Duration::ZERO,
            })
        };
        for second in 0..=31 {
            screen.show(start + Duration::from_secs(second), &waiting(second)).unwrap();
        }
        screen.show(start + Duration::from_secs(32), &fetching(100)).unwrap();
        screen.show(start + Duration::from_secs(33), &waiting(0)).unwrap();
        let line = |time: &str| {
            format!("waiting for Ada for {time}, for as long as it takes; trying now (the connection was lost)\n")
        };
        assert_eq!(err.text(), [line("0 s"), line("30 s"), line("0 s")].concat());
    }

    #[test]
    fn files_are_counted_where_there_is_room() {
        let progress = ProgressLine { what: "Fetching", done_bytes: 1, total_bytes: 2, files: Some((1, 9)) };
        let counted = [79, 80, 99, 100].map(|columns| fitting(&progress, columns).files.is_some());
        assert_eq!(counted, [false, false, false, true]);
        let unknown = ProgressLine { total_bytes: 0, ..progress };
        assert!(fitting(&unknown, 80).files.is_some());
    }

    #[test]
    fn every_template_draws_on_a_terminal() {
        let (mut screen, _, _) = Screen::kept(Style { terminal: true, ..Style::default() });
        for event in events() {
            screen.show(Instant::now(), &event).unwrap();
        }
        let unknown = Event::Fetching { done_bytes: 5, total_bytes: 0, done_files: 0, total_files: 0 };
        screen.show(Instant::now(), &unknown).unwrap();
        screen.clear();
    }
}
