//! Numbers, names and durations in the words that people read.
//!
//! What it is not: sentences about events (`render.rs`).

use std::time::Duration;

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Makes text from elsewhere safe to print: whatever could move the cursor, hide or reorder text is written as its
/// code, `\u{1b}`.
pub fn safe(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

/// Bytes in binary units with three significant digits: `512 bytes`, `1.25 MiB`.
pub fn size(bytes: u64) -> String {
    if bytes == 1 {
        return "1 byte".to_owned();
    }
    if bytes < 1024 {
        return format!("{bytes} bytes");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would be rounded to four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A number with a comma between thousands.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number of things: `1 file`, `2,314 files`.
pub fn plural(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(number), if number == 1 { one } else { many })
}

/// A duration: `34 ms`, `3.4 s`, `2 min 5 s`, `1 h 3 min`.
pub fn span(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = duration.as_secs_f64().round() as u64;
    if millis < 1000 {
        format!("{millis} ms")
    } else if seconds < 10 {
        format!("{:.1} s", duration.as_secs_f64())
    } else if seconds < 60 {
        format!("{seconds} s")
    } else if seconds < 3600 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else {
        format!("{} h {} min", seconds / 3600, seconds % 3600 / 60)
    }
}

/// Bytes a second.
pub fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", size(bytes_per_second.max(0.0) as u64))
}

/// A word as a shell takes it, quoted if need be.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,+=@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1023, "1023 bytes"),
            (1024, "1.00 KiB"),
            (10 * 1024 - 1, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (123 << 20, "123 MiB"),
            (2 << 30, "2.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn counts_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        assert_eq!(plural(1, "file", "files"), "1 file");
        assert_eq!(plural(2314, "file", "files"), "2,314 files");
    }

    #[test]
    fn spans_change_their_unit() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (3449, "3.4 s"),
            (9700, "10 s"),
            (59_400, "59 s"),
            (59_600, "1 min 0 s"),
            (125_000, "2 min 5 s"),
            (3_780_000, "1 h 3 min"),
        ] {
            assert_eq!(span(Duration::from_millis(millis)), text);
        }
    }

    #[test]
    fn nothing_that_steers_a_terminal_is_left() {
        assert_eq!(safe("a\u{1b}[2Jb\r\n"), r"a\u{1b}[2Jb\u{d}\u{a}");
        assert_eq!(safe("gpj.\u{202e}exe"), r"gpj.\u{202e}exe");
        assert_eq!(safe("\u{9b}31m\u{7f}\u{200b}"), r"\u{9b}31m\u{7f}\u{200b}");
        assert_eq!(safe("Grüße, 世界 🎉.txt"), "Grüße, 世界 🎉.txt");
    }

    #[test]
    fn words_are_quoted_for_the_shell_when_they_must() {
        assert_eq!(shell_word("keyferry:12D3/a%20b"), "keyferry:12D3/a%20b");
        assert_eq!(shell_word("keyferry:12D3?via=/ip4/1.2.3.4"), "'keyferry:12D3?via=/ip4/1.2.3.4'");
        assert_eq!(shell_word("it's"), r"'it'\''s'");
        assert_eq!(shell_word(""), "''");
    }
}
