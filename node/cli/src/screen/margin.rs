//! A terminal that looks a little narrower than it is.
//!
//! A bar leaves the cursor at the right edge. When the user then presses Ctrl-C, the terminal's echo (`^C`) would wrap to the
//! next line, and the bar, redrawn from there, would leave its old line behind. With a margin, the echo stays in the line.
//!
//! What it is not: fit for more than one line of bars, which relies on the wrapping.

use std::io;

use console::Term;
use indicatif::TermLike;

/// Room for the echo, in columns.
const MARGIN: u16 = 4;

/// Standard error, less the margin.
#[derive(Debug)]
pub(super) struct WithMargin(Term);

impl WithMargin {
    pub(super) fn stderr() -> Self {
        Self(Term::buffered_stderr())
    }
}

impl TermLike for WithMargin {
    fn width(&self) -> u16 {
        self.0.size().1.saturating_sub(MARGIN)
    }

    fn height(&self) -> u16 {
        self.0.size().0
    }

    fn move_cursor_up(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_up(lines)
    }

    fn move_cursor_down(&self, lines: usize) -> io::Result<()> {
        self.0.move_cursor_down(lines)
    }

    fn move_cursor_right(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_right(columns)
    }

    fn move_cursor_left(&self, columns: usize) -> io::Result<()> {
        self.0.move_cursor_left(columns)
    }

    fn write_line(&self, text: &str) -> io::Result<()> {
        self.0.write_line(text)
    }

    fn write_str(&self, text: &str) -> io::Result<()> {
        self.0.write_str(text)
    }

    fn clear_line(&self) -> io::Result<()> {
        self.0.clear_line()
    }

    fn flush(&self) -> io::Result<()> {
        self.0.flush()
    }
}
