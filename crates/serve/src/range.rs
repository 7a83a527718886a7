//! The `Range` header (RFC 9110, section 14).

/// What a `Range` header asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestedRange {
    Whole,
    Bytes { start: u64, end: u64 },
    Outside,
}

/// Reads a `Range` header: one range of bytes, or everything for what this server does not know.
pub fn parse_range(range: &str, size: u64) -> RequestedRange {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.trim().split_once('-'))
    else {
        return RequestedRange::Whole;
    };
    let (start, end) = match (first, number(first), last, number(last)) {
        // The last bytes of the file.
        ("", _, _, Some(count)) => (size.saturating_sub(count), size),
        (_, Some(start), "", _) => (start, size),
        (_, Some(start), _, Some(last)) if start <= last => (start, size.min(last.saturating_add(1))),
        _ => return RequestedRange::Whole,
    };
    if start < end { RequestedRange::Bytes { start, end } } else { RequestedRange::Outside }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let bytes = |start, end| RequestedRange::Bytes { start, end };
        for (range, expected) in [
            ("bytes=0-", bytes(0, 10)),
            ("bytes=3-5", bytes(3, 6)),
            ("bytes=3-99", bytes(3, 10)),
            ("bytes=-4", bytes(6, 10)),
            ("bytes=-99", bytes(0, 10)),
            ("bytes=9-18446744073709551615", bytes(9, 10)),
            ("bytes=10-", RequestedRange::Outside),
            ("bytes=-0", RequestedRange::Outside),
            ("bytes=5-3", RequestedRange::Whole),
            ("bytes=-", RequestedRange::Whole),
            ("bytes=+1-2", RequestedRange::Whole),
            ("bytes=0-1,3-4", RequestedRange::Whole),
            ("lines=0-1", RequestedRange::Whole),
            ("bytes=18446744073709551616-", RequestedRange::Whole),
        ] {
            assert_eq!(parse_range(range, 10), expected, "{range}");
        }
        assert_eq!(parse_range("bytes=0-", 0), RequestedRange::Outside);
    }
}
