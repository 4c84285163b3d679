//! Numbers as Python's `float()` reads them: services were written against that.

/// Reads a text: white space around it, underscores between digits, exponents, `inf` and `nan` in
/// any case. `None` where Python would raise `ValueError`.
pub fn python_float(text: &str) -> Option<f64> {
    // Python counts the four separators of ASCII as white space too.
    let text = text.trim_matches(|c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c));
    if !text.contains('_') {
        return text.parse().ok();
    }
    let bytes = text.as_bytes();
    let is_digit = |index: usize| bytes.get(index).is_some_and(u8::is_ascii_digit);
    let between_digits = |index: usize| index > 0 && is_digit(index - 1) && is_digit(index + 1);
    let fits = bytes.iter().enumerate().all(|(at, &byte)| byte != b'_' || between_digits(at));
    fits.then(|| text.replace('_', "").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_python_reads() {
        let good = [
            ("1", 1.0),
            (" 1.5\n", 1.5),
            ("\u{a0}\u{1c}7\u{1f}\u{2003}", 7.0),
            ("1_000.2_5", 1000.25),
            ("1e1_0", 1e10),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("-Infinity", f64::NEG_INFINITY),
            ("iNf", f64::INFINITY),
            ("1E400", f64::INFINITY),
        ];
        for (text, value) in good {
            assert_eq!(python_float(text), Some(value), "{text}");
        }
        assert!(python_float("NaN").is_some_and(f64::is_nan));
    }

    #[test]
    fn refuses_what_python_refuses() {
        for text in [
            "", " ", "_1", "1_", "1__0", "1_.5", "1._5", "1_e5", "0x10", "1,5", "e5", ".", "1 2",
            "in_f",
        ] {
            assert_eq!(python_float(text), None, "{text:?}");
        }
    }
}
