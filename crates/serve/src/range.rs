//! The `Range` header (RFC 9110, section 14).

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Whole,
    Bytes { start: u64, end: u64 },
    Outside,
}

/// Reads a `Range` header: one range of bytes, or everything for what this server does not know.
pub fn part(range: &str, size: u64) -> Part {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return Part::Whole;
    };
    let (start, end) = match (first, number(first), last, number(last)) {
        // The last bytes of the file.
        ("", _, _, Some(count)) => (size.saturating_sub(count), size),
        (_, Some(start), "", _) => (start, size),
        (_, Some(start), _, Some(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        _ => return Part::Whole,
    };
    if start < end { Part::Bytes { start, end } } else { Part::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let bytes = |start, end| Part::Bytes { start, end };
        for (range, expected) in [
            ("bytes=0-", bytes(0, 10)),
            ("bytes=3-5", bytes(3, 6)),
            ("bytes=3-99", bytes(3, 10)),
            ("bytes=-4", bytes(6, 10)),
            ("bytes=-99", bytes(0, 10)),
            ("bytes=9-18446744073709551615", bytes(9, 10)),
            ("bytes=10-", Part::Outside),
            ("bytes=-0", Part::Outside),
            ("bytes=5-3", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("lines=0-1", Part::Whole),
            ("bytes=18446744073709551616-", Part::Whole),
        ] {
            assert_eq!(part(range, 10), expected, "{range}");
        }
        assert_eq!(part("bytes=0-", 0), Part::Outside);
    }
}
