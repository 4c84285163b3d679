//! One byte string per JSON value, equal where the values are equal: what filters compare and
//! what order and throttle keys are.
//!
//! Numbers compare by their exact decimal value (1 equals 1.0 equals 1e0, and a 30-digit integer
//! only itself), strings by their code points however escaped, objects without regard to the
//! order of their members.

use super::string_bytes;
use crate::limits::COMPARED_BYTES_MAX;

/// A container whose end has not come yet.
enum Open {
    Array(Vec<u8>),
    Object { members: Vec<(Vec<u8>, Vec<u8>)>, key: Option<Vec<u8>> },
}

impl Open {
    fn add(&mut self, value: Vec<u8>) {
        match self {
            Open::Array(out) => {
                out.extend_from_slice(&value);
                out.push(b',');
            }
            Open::Object { members, key } => match key.take() {
                Some(key) => members.push((key, value)),
                None => *key = Some(value),
            },
        }
    }

    fn close(self) -> Vec<u8> {
        match self {
            Open::Array(mut out) => {
                out.push(b']');
                out
            }
            Open::Object { mut members, .. } => {
                // Stable, so that the last of several equal keys stays the last.
                members.sort_by(|a, b| a.0.cmp(&b.0));
                let mut out = vec![b'{'];
                for (index, (key, value)) in members.iter().enumerate() {
                    if members.get(index + 1).is_some_and(|next| next.0 == *key) {
                        continue;
                    }
                    out.extend_from_slice(key);
                    out.extend_from_slice(value);
                    out.push(b',');
                }
                out.push(b'}');
                out
            }
        }
    }
}

/// The canonical form of a well-formed JSON value; of a long one, its text.
pub fn canonical(raw: &str) -> Vec<u8> {
    if raw.len() > COMPARED_BYTES_MAX {
        return [b"=", raw.as_bytes()].concat(); // no other form begins like this
    }
    let mut stack: Vec<Open> = Vec::new();
    let mut rest = raw;
    while let Some((token, after)) = next_token(rest) {
        rest = after;
        let value = match token.as_bytes()[0] {
            b'[' => {
                stack.push(Open::Array(vec![b'[']));
                continue;
            }
            b'{' => {
                stack.push(Open::Object { members: Vec::new(), key: None });
                continue;
            }
            b']' | b'}' => stack.pop().map(Open::close).unwrap_or_default(),
            b'"' => canonical_string(token),
            b'-' | b'0'..=b'9' => canonical_number(token),
            _ => token.as_bytes()[..1].to_vec(),
        };
        match stack.last_mut() {
            Some(open) => open.add(value),
            None => return value,
        }
    }
    Vec::new()
}

/// The next token other than a comma or colon, and what is behind it.
fn next_token(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\r', ',', ':']);
    let bytes = text.as_bytes();
    let len = match bytes.first()? {
        b'[' | b']' | b'{' | b'}' => 1,
        b'"' => string_len(bytes),
        _ => {
            let ends = |byte: &u8| {
                matches!(byte, b',' | b':' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r')
            };
            bytes.iter().position(ends).unwrap_or(bytes.len())
        }
    };
    Some(text.split_at(len))
}

/// The length of the string that begins here, quotes included.
fn string_len(bytes: &[u8]) -> usize {
    let mut index = 1;
    while index < bytes.len() {
        match bytes[index] {
            b'\\' => index += 2,
            b'"' => return index + 1,
            _ => index += 1,
        }
    }
    bytes.len()
}

/// A quote, the length, a colon, the bytes: no string can look like two values.
fn canonical_string(token: &str) -> Vec<u8> {
    let bytes = string_bytes(token).unwrap_or_default();
    let mut out = format!("\"{}:", bytes.len()).into_bytes();
    out.extend_from_slice(&bytes);
    out
}

/// `#`, sign, digits without zeros at either end, `e`, exponent; zero of any kind is `#0`.
fn canonical_number(token: &str) -> Vec<u8> {
    let (negative, unsigned) = match token.strip_prefix('-') {
        Some(unsigned) => (true, unsigned),
        None => (false, token),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: String = [whole, fraction].concat();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return b"#0".to_vec();
    }
    let dropped = digits.len() - digits.trim_end_matches('0').len();
    // An exponent beyond i64 is as good as any other beyond it.
    let beyond = if exponent.starts_with('-') { i64::MIN } else { i64::MAX };
    let exponent: i64 = exponent.trim_start_matches('+').parse().unwrap_or(beyond);
    let exponent = exponent.saturating_add(dropped as i64).saturating_sub(fraction.len() as i64);
    let sign = if negative { "-" } else { "" };
    format!("#{sign}{significant}e{exponent}").into_bytes()
}

/// Whether a raw number is zero, by whatever sign and exponent.
pub fn is_zero(raw: &str) -> bool {
    let mantissa = raw.split(['e', 'E']).next().unwrap_or(raw);
    !mantissa.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        canonical(a) == canonical(b)
    }

    #[test]
    fn numbers_compare_by_value() {
        for (a, b) in
            [("1", "1.0"), ("100", "1e2"), ("-0", "0.0"), ("0.10", "1E-1"), ("1e+2", "1e2")]
        {
            assert!(same(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("1", "-1"),
            ("1", "true"),
            ("0", "false"),
            ("1", "\"1\""),
            ("123456789012345678901234567890", "123456789012345678901234567891"),
            ("1e400", "1e401"),
            ("9007199254740993", "9007199254740992"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert!(same("1e99999999999999999999", "1e99999999999999999999"));
    }

    #[test]
    fn strings_compare_by_code_points() {
        assert!(same(r#""A""#, r#""\u0041""#));
        assert!(same(r#""🦈""#, r#""\ud83e\udd88""#));
        assert!(same(r#""\ud800""#, r#""\uD800""#));
        assert!(!same(r#""\ud800""#, r#""\ud801""#));
        assert!(!same(r#"["ab","c"]"#, r#"["a","bc"]"#));
    }

    #[test]
    fn containers_compare_by_content() {
        assert!(same(r#"{"a":1,"b":[{}]}"#, r#" { "b" : [ { } ] , "a" : 1.0 } "#));
        assert!(same(r#"{"a":1,"a":2}"#, r#"{"a":2}"#));
        assert!(!same(r#"{"a":2,"a":1}"#, r#"{"a":2}"#));
        assert!(!same("[[1],2]", "[[1,2]]"));
        assert!(!same("[]", "{}"));
        assert!(!same("[null]", "[]"));
        assert!(!same(r#"{"a":"b"}"#, r#"["a","b"]"#));
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let nested = |levels| canonical(&("[".repeat(levels) + &"]".repeat(levels)));
        assert_eq!(nested(2_000).len(), 6_000 - 1);
        assert_eq!(nested(100_000).len(), 200_001);
    }

    #[test]
    fn long_values_compare_by_their_text() {
        let list = |one: &str| format!("[{}]", [one; 1_500].join(","));
        assert!(same(&list("1"), &list("1")) && !same(&list("1"), &list("1.0")));
        assert!(!same(&list("1"), "[1]"));
    }
}
