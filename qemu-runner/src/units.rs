//! Durations and sizes as people write them.

use std::time::Duration;

/// Parses `2s`, `1.5s`, `500ms`, `200us`.
///
/// # Errors
/// Says what is expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "s" => 1.0,
        "ms" => 1e-3,
        "us" => 1e-6,
        _ => {
            return Err(format!(
                "\"{text}\": expected a time such as 2s, 500ms or 200us"
            ));
        }
    };
    let value: f64 = number
        .parse()
        .map_err(|_| format!("\"{number}\" is not a number"))?;
    Duration::try_from_secs_f64(value * scale)
        .ok()
        .filter(|&span| span <= Duration::from_hours(24))
        .ok_or_else(|| format!("\"{text}\" is longer than a day"))
}

/// A time that may be long, as it was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// As it was written.
    pub text: String,
    /// How long it is.
    pub length: Duration,
}

/// Parses `30d`, `12h`, `1.5y`, `90min`, `10s`.
///
/// # Errors
/// Says what is expected.
pub fn parse_span(text: &str) -> Result<Span, String> {
    const YEARS_MAX: f64 = 1000.0;
    let expected = || format!("\"{text}\": expected a time such as 30d, 12h, 90min, 10s or 1y");
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = text.strip_suffix(unit).unwrap_or(text);
    let year = 365.25 * 86400.0;
    let seconds = match unit {
        "s" => 1.0,
        "min" => 60.0,
        "h" => 3600.0,
        "d" => 86400.0,
        "y" => year,
        _ => return Err(expected()),
    };
    let value: f64 = number.parse().map_err(|_| expected())?;
    let seconds = value * seconds;
    if !(1.0..=YEARS_MAX * year).contains(&seconds) {
        return Err(format!("\"{text}\": expected 1s to {YEARS_MAX}y"));
    }
    Ok(Span {
        text: text.into(),
        length: Duration::from_secs_f64(seconds),
    })
}

/// Parses `512M`, `1G`, or bytes.
///
/// # Errors
/// Says what is expected.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, scale) = match text.as_bytes().last() {
        Some(b'G' | b'g') => (&text[..text.len() - 1], 1 << 30),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 1 << 20),
        Some(b'K' | b'k') => (&text[..text.len() - 1], 1 << 10),
        _ => (text, 1),
    };
    let value: Option<u64> = number.parse().ok();
    value
        .and_then(|value| value.checked_mul(scale))
        .ok_or_else(|| format!("\"{text}\": expected a size such as 512M or 1G"))
}

/// Milliseconds with one decimal.
pub fn milliseconds(span: Duration) -> f64 {
    (span.as_secs_f64() * 1e4).round() / 10.0
}

/// A count as a number to calculate with; exact up to 2^53, which no count here reaches.
#[expect(
    clippy::cast_precision_loss,
    reason = "nine quadrillion nanoseconds are 104 days"
)]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// The milliseconds from `start` to `at`, both in nanoseconds; negative if `at` is the earlier one.
pub const fn milliseconds_between(start: u64, at: u64) -> f64 {
    let span = float(at.abs_diff(start)) / 1e6;
    if at < start { -span } else { span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(parse_duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert!(parse_duration("2").is_err());
        assert!(parse_duration("-2s").is_err());
        assert!(parse_duration("1e9s").is_err());
        assert!(parse_duration("99999999s").is_err());
    }

    #[test]
    fn spans_are_long() {
        let length = |text: &str| parse_span(text).map(|span| span.length);
        assert_eq!(length("30d"), Ok(Duration::from_hours(720)));
        assert_eq!(length("1.5h"), Ok(Duration::from_mins(90)));
        assert_eq!(length("90min"), length("1.5h"));
        assert_eq!(length("1y"), Ok(Duration::from_hours(8766)));
        for text in [
            "", "d", "30", "30 d", "-1d", "0d", "1e9d", "2000y", "3m", "1.2.3d",
        ] {
            assert!(length(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_do_not_wrap() {
        assert_eq!(parse_size("1G"), Ok(1 << 30));
        assert_eq!(parse_size("4096"), Ok(4096));
        assert!(parse_size("99999999999999G").is_err());
        assert!(parse_size("").is_err());
        assert!(parse_size("G").is_err());
    }
}
