//! Patterns of `PSUBSCRIBE` and `PUBSUB CHANNELS`, by Redis's rules: `*`, `?`, `[a-z]`, `[^a]`,
//! `\` before a byte that is meant itself.
//!
//! Redis's own matcher recurses at each `*`. One place to go back to is enough: when what follows
//! a `*` fails, a longer match of an earlier `*` cannot help. So the time is at most the product
//! of both lengths.

/// Whether the pattern matches the whole text. As in Redis, an empty text matches the empty pattern
/// alone, not `*`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut rest, mut left) = (pattern, text);
    // What follows the last `*`, and the text from which it was tried.
    let mut last_star: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', after @ ..] = rest {
            last_star = Some((after, left));
            rest = after;
            continue;
        }
        let Some((&byte, text_after)) = left.split_first() else { return rest.is_empty() };
        if let Some(pattern_after) = take_one(rest, byte) {
            (rest, left) = (pattern_after, text_after);
            continue;
        }
        let Some((after, from)) = &mut last_star else { return false };
        // The `*` takes one byte more.
        let Some((_, from_next)) = from.split_first() else { return false };
        *from = from_next;
        (rest, left) = (after, from_next);
    }
}

/// Matches one byte against what the pattern begins with, which is no `*`; gives the rest of the
/// pattern.
fn take_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (&first, after) = pattern.split_first()?;
    let (matched, after) = match (first, after) {
        (b'?', _) => (true, after),
        (b'[', _) => take_class(after, byte),
        (b'\\', [escaped, after @ ..]) => (*escaped == byte, after),
        // A backslash at the very end is meant itself.
        (literal, _) => (literal == byte, after),
    };
    matched.then_some(after)
}

/// Matches one byte against a class, given behind its bracket. The end of the pattern closes it
/// too.
fn take_class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut found = false;
    loop {
        rest = match rest {
            [b'\\', escaped, after @ ..] => {
                found |= *escaped == byte;
                after
            }
            [b']', after @ ..] => return (found != negated, after),
            [] => return (found != negated, rest),
            [start, b'-', end, after @ ..] => {
                let (low, high) = (start.min(end), start.max(end));
                found |= (*low..=*high).contains(&byte);
                after
            }
            [literal, after @ ..] => {
                found |= *literal == byte;
                after
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_the_rules_of_redis() {
        let matching = [
            ("", ""),
            ("*", "a"),
            ("a*", "a"),
            ("*.1", "books.1"),
            ("b*s.*", "books.1"),
            ("**a**", "a"),
            ("h?llo", "hello"),
            ("h[ae]llo", "hallo"),
            ("h[^e]llo", "hallo"),
            ("h[b-a]llo", "hallo"),
            ("h[a-b]llo", "hbllo"),
            ("[a-]x", "bx"),
            ("[\\]]", "]"),
            ("[abc", "c"),
            ("[^", "x"),
            ("\\*", "*"),
            ("a\\", "a\\"),
            ("*a*b", "aab"),
            ("*ab", "aab"),
            ("\u{e9}?", "\u{e9}x"),
        ];
        for (pattern, text) in matching {
            // A range may run up to the closing bracket, and then the end of the pattern closes.
            let expected = pattern != "[a-]x";
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        let others = [
            ("*", ""),
            ("", "a"),
            ("a", "ab"),
            ("ab", "a"),
            ("h?llo", "hllo"),
            ("h[^e]llo", "hello"),
            ("[]a]", "]"),
            ("\\*", "a"),
            ("*?", ""),
            ("a*b", "abc"),
            ("[a", "b"),
        ];
        for (pattern, text) in others {
            assert!(!matches(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_explode() {
        let pattern = "*a".repeat(500) + "b";
        let text = "a".repeat(20_000);
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }
}
