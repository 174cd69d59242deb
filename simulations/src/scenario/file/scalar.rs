//! Single values: numbers, times, sizes, rates. Each may be written as a text, so that it can come from a list of values.

use std::{ops::RangeInclusive, time::Duration};

use super::{
    problem::quoted,
    tree::{Kind, Value},
};

/// What is wrong with a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) what: String,
    pub(crate) advice: String,
}

fn wrong<T>(what: impl Into<String>, advice: impl Into<String>) -> Result<T, Wrong> {
    Err(Wrong { what: what.into(), advice: advice.into() })
}

/// A number or a text, as text.
fn written(value: &Value, such_as: &str) -> Result<String, Wrong> {
    match &value.kind {
        Kind::Text(text) => match unfilled(text) {
            Some(place) => wrong(
                format!("no value is called {}", quoted(place)),
                "[matrix] and [[case]] give values; captures, contents and nodes have no place here",
            ),
            None => Ok(text.trim().to_owned()),
        },
        Kind::Integer(number) => Ok(number.to_string()),
        Kind::Float(number) => Ok(number.to_string()),
        _ => wrong(format!("this is {}", value.words()), format!("write {such_as}")),
    }
}

/// The first place of a text that nothing has filled in.
fn unfilled(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('{')?;
    rest.split_once('}').map(|(name, _)| name)
}

pub(crate) fn truth(value: &Value) -> Result<bool, Wrong> {
    match &value.kind {
        Kind::Truth(truth) => Ok(*truth),
        Kind::Text(text) if text == "true" => Ok(true),
        Kind::Text(text) if text == "false" => Ok(false),
        _ => wrong(format!("this is {}, not true or false", value.words()), "write true or false, without quotes"),
    }
}

pub(crate) fn integer(value: &Value, range: &RangeInclusive<i64>) -> Result<i64, Wrong> {
    let text = written(value, "a whole number")?;
    let bounds = format!("from {} to {}", range.start(), range.end());
    let Ok(number) = text.parse::<i64>() else {
        return wrong(format!("{} is no whole number", quoted(&text)), format!("write one {bounds}"));
    };
    if range.contains(&number) {
        Ok(number)
    } else {
        wrong(format!("{number} is out of bounds"), format!("it can be {bounds}"))
    }
}

/// A number, which may be written in percent.
pub(crate) fn number(value: &Value, range: &RangeInclusive<f64>) -> Result<f64, Wrong> {
    let text = written(value, "a number")?;
    let bounds = format!("from {} to {}", range.start(), range.end());
    let (digits, part) = match text.strip_suffix('%') {
        Some(digits) => (digits.trim_end(), 100.0),
        None => (text.as_str(), 1.0),
    };
    let number = digits.parse::<f64>().ok().filter(|number| number.is_finite());
    let Some(number) = number.map(|number| number / part) else {
        return wrong(format!("{} is no number", quoted(&text)), format!("write one {bounds}"));
    };
    if range.contains(&number) {
        Ok(number)
    } else {
        wrong(format!("{text} is out of bounds"), format!("it can be {bounds}"))
    }
}

pub(crate) fn duration(value: &Value, range: &RangeInclusive<Duration>) -> Result<Duration, Wrong> {
    let such_as = "a time with its unit, such as \"40ms\", \"5s\" or \"2m\"";
    let text = written(value, such_as)?;
    if text.starts_with(['-', '\u{2212}']) {
        return wrong(format!("{} is below zero, and no time is", quoted(&text)), format!("write {such_as}"));
    }
    let time = match text.as_str() {
        "0" => Duration::ZERO,
        text => match humantime::parse_duration(text) {
            Ok(time) => time,
            Err(_) => return wrong(format!("{} is no time", quoted(text)), format!("write {such_as}")),
        },
    };
    if range.contains(&time) {
        return Ok(time);
    }
    let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
    wrong(format!("{} is out of bounds", quoted(&text)), format!("it can be from {least} to {most}"))
}

pub(crate) fn offset(value: &Value, most: Duration) -> Result<i64, Wrong> {
    let text = written(value, "\"+2h\" or \"-90s\"")?;
    let (sign, digits) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(digits), _) => (1, digits),
        (_, Some(digits)) => (-1, digits),
        _ if text == "0" => return Ok(0),
        _ => return wrong(format!("{} does not say whether it is ahead", quoted(&text)), "write \"+2h\" or \"-90s\""),
    };
    let time = match humantime::parse_duration(digits) {
        Ok(time) if time <= most => time,
        Ok(_) => {
            let most = humantime::format_duration(most);
            return wrong(format!("{} is out of bounds", quoted(&text)), format!("it can be from -{most} to +{most}"));
        }
        Err(_) => return wrong(format!("{} is no time", quoted(&text)), "write \"+2h\" or \"-90s\""),
    };
    Ok(sign * time.as_secs() as i64)
}

/// Units of bytes.
const SIZES: [(&str, u64); 9] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

pub(crate) fn bytes(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, Wrong> {
    let such_as = "a size such as \"10 KiB\", \"300 MiB\" or 1000000";
    let text = written(value, such_as)?;
    let Some(bytes) = with_unit(&text, &SIZES) else {
        return wrong(format!("{} is no size", quoted(&text)), format!("write {such_as}"));
    };
    let (least, most) = (size_words(*range.start()), size_words(*range.end()));
    within(bytes, range, &text, || format!("it can be from {least} to {most}"))
}

/// Units of rates, in bits a second.
const RATES: [(&str, u64); 4] = [("bit/s", 1), ("kbit/s", 1_000), ("Mbit/s", 1_000_000), ("Gbit/s", 1_000_000_000)];

pub(crate) fn rate(value: &Value, range: &RangeInclusive<u64>) -> Result<u64, Wrong> {
    let such_as = "a rate such as \"500 kbit/s\" or \"20 Mbit/s\"";
    let text = written(value, such_as)?;
    let Some(bits) = with_unit(&text, &RATES) else {
        return wrong(format!("{} is no rate", quoted(&text)), format!("write {such_as}"));
    };
    let (least, most) = (range.start() / 125, range.end() / 125_000);
    within(bits / 8, range, &text, || format!("it can be from {least} kbit/s to {most} Mbit/s"))
}

fn within(number: u64, range: &RangeInclusive<u64>, text: &str, bounds: impl Fn() -> String) -> Result<u64, Wrong> {
    if range.contains(&number) { Ok(number) } else { wrong(format!("{} is out of bounds", quoted(text)), bounds()) }
}

/// A number that may have a fraction, and a unit.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    let number = digits.parse::<f64>().ok()? * *factor as f64;
    (number < u64::MAX as f64).then_some(number.round() as u64)
}

/// A size for a person: `300 MiB`.
pub(crate) fn size_words(bytes: u64) -> String {
    let units = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1u64 << 10)];
    match units.into_iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::file::source::At;

    fn value(kind: Kind) -> Value {
        Value { at: At { source: 0, start: 0, end: 0 }, kind }
    }

    fn text(text: &str) -> Value {
        value(Kind::Text(text.to_owned()))
    }

    const MINUTE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);

    #[test]
    fn times_have_units_and_bounds_and_are_not_below_zero() {
        assert_eq!(duration(&text("40ms"), &MINUTE), Ok(Duration::from_millis(40)));
        assert_eq!(duration(&value(Kind::Integer(0)), &MINUTE), Ok(Duration::ZERO));
        let said = |value: &Value| duration(value, &MINUTE).unwrap_err().what;
        assert_eq!(said(&text("-5s")), "`-5s` is below zero, and no time is");
        assert_eq!(said(&value(Kind::Integer(-5))), "`-5` is below zero, and no time is");
        assert_eq!(said(&value(Kind::Integer(5))), "`5` is no time");
        assert_eq!(said(&text("1000000years")), "`1000000years` is out of bounds");
        assert_eq!(said(&text("99999999999999999999999s")), "`99999999999999999999999s` is no time");
        assert_eq!(said(&text("{x}")), "no value is called `x`");
        assert_eq!(said(&value(Kind::Truth(true))), "this is true or false");
    }

    #[test]
    fn clocks_are_ahead_or_behind() {
        let day = Duration::from_secs(86_400);
        assert_eq!(offset(&text("+2h"), day), Ok(7200));
        assert_eq!(offset(&text("-90s"), day), Ok(-90));
        assert!(offset(&text("2h"), day).is_err());
        assert!(offset(&text("+2days"), day).is_err());
    }

    #[test]
    fn sizes_and_rates_have_units() {
        let any = 0..=u64::MAX;
        for (written, expected) in [("10 KiB", 10 << 10), ("1.5MiB", 3 << 19), ("7", 7), ("1 MB", 1_000_000)] {
            assert_eq!(bytes(&text(written), &any), Ok(expected), "{written}");
        }
        assert_eq!(rate(&text("20 Mbit/s"), &any), Ok(2_500_000));
        for bad in ["", "MiB", "1 Mb", "-1", "1e3", "1..2"] {
            assert!(bytes(&text(bad), &any).is_err() && rate(&text(bad), &any).is_err(), "{bad}");
        }
    }

    #[test]
    fn parts_may_be_percents() {
        assert_eq!(number(&text("1 %"), &(0.0..=0.5)), Ok(0.01));
        assert_eq!(number(&value(Kind::Float(0.03)), &(0.0..=0.5)), Ok(0.03));
        assert_eq!(number(&text("51 %"), &(0.0..=0.5)).unwrap_err().advice, "it can be from 0 to 0.5");
        assert!(number(&text("nan"), &(0.0..=0.5)).is_err());
    }
}
