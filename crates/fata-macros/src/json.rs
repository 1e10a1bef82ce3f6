//! Strings as JSON writes them (RFC 8259, section 7).

/// `text` between double quotes, with everything escaped that must be.
pub(crate) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn quotes_backslashes_and_controls_are_escaped() {
        assert_eq!(super::string("a\"b\\c\nd\u{1}ä"), "\"a\\\"b\\\\c\\nd\\u0001ä\"");
    }
}
