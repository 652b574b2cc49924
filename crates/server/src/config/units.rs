//! Times and sizes as people write them: `30s`, `500ms`, `1h30m`; `64KiB`, `10GiB`, `1MB`.

use std::time::Duration;

const MILLIS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const BYTES: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a time; a plain number is seconds. Parts may follow one another, as in `1h30m`.
pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let mut rest = text;
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (number, unit, after) = next_part(rest)?;
        let (_, factor) = MILLIS.iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(number.checked_mul(*factor)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// Reads a size; a plain number is bytes.
pub(super) fn parse_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(bytes) = text.parse() {
        return Some(bytes);
    }
    let (number, unit, after) = next_part(text)?;
    let unit = BYTES
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    after.is_empty().then(|| number.checked_mul(unit.1))?
}

fn next_part(text: &str) -> Option<(u64, &str, &str)> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(unit_at);
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(rest.len());
    let (unit, after) = rest.split_at(end);
    Some((number.parse().ok()?, unit, after.trim_start()))
}

/// A time in the largest unit that holds it whole.
pub(super) fn show_duration(span: Duration) -> String {
    let millis = span.as_millis();
    if millis == 0 {
        return "0".to_owned();
    }
    let units = MILLIS.iter().rev().skip(1);
    let whole = units
        .map(|&(name, factor)| (name, u128::from(factor)))
        .find(|(_, factor)| millis.is_multiple_of(*factor));
    match whole {
        Some((name, factor)) => format!("{}{name}", millis / factor),
        None => format!("{millis}ms"),
    }
}

/// A size in the largest binary unit that holds it whole.
pub(super) fn show_bytes(bytes: u64) -> String {
    if bytes == 0 {
        return "0".to_owned();
    }
    let mut units = BYTES[..5].iter().rev();
    match units.find(|(_, factor)| bytes.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, millis) in [
            ("30s", 30_000),
            ("500ms", 500),
            ("24h", 86_400_000),
            ("30d", 2_592_000_000),
            ("1h30m", 5_400_000),
            ("15", 15_000),
            ("0", 0),
            (" 2 m ", 120_000),
        ] {
            let span = Duration::from_millis(millis);
            assert_eq!(parse_duration(text), Some(span), "{text}");
            assert_eq!(parse_duration(&show_duration(span)), Some(span), "{text}");
        }
        for text in [
            "",
            "s",
            "1.5s",
            "-1s",
            "3 fortnights",
            "1s2",
            "99999999999999999999d",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        assert_eq!(show_duration(Duration::from_secs(86_400)), "1d");
        assert_eq!(show_duration(Duration::from_secs(90)), "90s");
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("1MiB", 1 << 20),
            ("10GiB", 10 << 30),
            ("512kib", 512 << 10),
            ("1MB", 1_000_000),
            ("7", 7),
            ("64 B", 64),
        ] {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
            assert_eq!(parse_bytes(&show_bytes(bytes)), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "-1", "1XB", "99999999999TiB"] {
            assert_eq!(parse_bytes(text), None, "{text:?}");
        }
        assert_eq!(show_bytes(16 << 20), "16MiB");
    }
}
