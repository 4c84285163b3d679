//! Patterns of `PSUBSCRIBE` and `PUBSUB CHANNELS`, by Redis's rules: `*`, `?`, `[a-z]`, `[^a]`,
//! `\` before a byte that is meant itself.
//!
//! Redis's own matcher recurses at each `*`. One place to go back to is enough: when what follows
//! a `*` fails, a longer match of an earlier `*` cannot help. So the time is at most the product
//! of both lengths; where that is large, 64 places in the pattern are tried at once.

/// Product of both lengths from which on trying many places at once pays for its preparation.
const LONG: usize = 16_384;

/// Whether the pattern matches the whole text. As in Redis, an empty text matches the empty pattern
/// alone, not `*`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    if pattern.len().saturating_mul(text.len()) < LONG {
        matches_by_place(pattern, text)
    } else {
        Places::of(pattern).match_all(text)
    }
}

fn matches_by_place(pattern: &[u8], text: &[u8]) -> bool {
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

/// A pattern by its places: before each part that stands for one byte, and at its end. A set of
/// places has a bit for each, and all of them move on together (Shift-And, by Baeza-Yates and
/// Gonnet).
struct Places<'p> {
    /// The pattern from each part on that stands for one byte.
    parts: Vec<&'p [u8]>,
    /// The places with a `*` before them, where any byte may pass.
    stars: Vec<u64>,
}

impl<'p> Places<'p> {
    fn of(pattern: &'p [u8]) -> Places<'p> {
        let mut stars = vec![0; pattern.len() / 64 + 1];
        let (mut parts, mut rest) = (Vec::new(), pattern);
        while let Some((&first, after)) = rest.split_first() {
            if first == b'*' {
                stars[parts.len() / 64] |= 1 << (parts.len() % 64);
                rest = after;
            } else {
                parts.push(rest);
                rest = split_one(rest, 0).map_or(&[], |(_, after)| after);
            }
        }
        stars.truncate(parts.len() / 64 + 1);
        Places { parts, stars }
    }

    /// The places whose part the byte matches.
    fn of_byte(&self, byte: u8) -> Vec<u64> {
        let mut places = vec![0; self.stars.len()];
        for (at, part) in self.parts.iter().enumerate() {
            places[at / 64] |= u64::from(take_one(part, byte).is_some()) << (at % 64);
        }
        places
    }

    fn match_all(&self, text: &[u8]) -> bool {
        let mut by_byte = [const { Vec::new() }; 256];
        let mut reached = vec![0; self.stars.len()];
        reached[0] = 1;
        for &byte in text {
            let passing = &mut by_byte[usize::from(byte)];
            if passing.is_empty() {
                *passing = self.of_byte(byte);
            }
            let mut carry = 0;
            for ((reached, passing), stars) in reached.iter_mut().zip(passing).zip(&self.stars) {
                let moved = *reached & *passing;
                *reached = (moved << 1) | carry | (*reached & stars);
                carry = moved >> 63;
            }
        }
        let end = self.parts.len();
        (reached[end / 64] >> (end % 64)) & 1 == 1
    }
}

/// Matches one byte against what the pattern begins with, which is no `*`; gives the rest of the
/// pattern.
fn take_one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, after) = split_one(pattern, byte)?;
    matched.then_some(after)
}

/// The same, with the rest of the pattern in any case.
fn split_one(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (&first, after) = pattern.split_first()?;
    let (matched, after) = match (first, after) {
        (b'?', _) => (true, after),
        (b'[', _) => take_class(after, byte),
        (b'\\', [escaped, after @ ..]) => (*escaped == byte, after),
        // A backslash at the very end is meant itself.
        (literal, _) => (literal == byte, after),
    };
    Some((matched, after))
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
    use crate::limits::BROKER_CHANNEL_BYTES_MAX;
    use crate::random::Random;

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
            assert_eq!(both(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
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
            assert!(!both(pattern.as_bytes(), text.as_bytes()), "{pattern} {text}");
        }
    }

    #[test]
    fn both_ways_match_alike() {
        let mut random = Random::seeded(1992);
        let mut count = 0;
        for _ in 0..20_000 {
            let mut some = |of: &[u8], most: u64| -> Vec<u8> {
                let length = random.number() % most;
                (0..length).map(|_| of[random.number() as usize % of.len()]).collect()
            };
            let (pattern, text) = (some(b"aaab*?[]^-\\", 12), some(b"aaab]-", 12));
            // Past the first word of places too.
            let (before, times) = (some(b"ab", 3), some(b"a", 80).len());
            count += usize::from(both(&pattern, &text));
            both(&[before.repeat(times), pattern].concat(), &[before.repeat(times), text].concat());
        }
        assert!(count > 500, "{count}");
    }

    /// By place, and all places at once.
    fn both(pattern: &[u8], text: &[u8]) -> bool {
        let matched = matches(pattern, text);
        if !text.is_empty() {
            let at_once = Places::of(pattern).match_all(text);
            let by_place = matches_by_place(pattern, text);
            let shown = (pattern.escape_ascii(), text.escape_ascii());
            assert_eq!((at_once, by_place), (matched, matched), "{} {}", shown.0, shown.1);
        }
        matched
    }

    #[test]
    fn long_names_and_patterns_do_not_explode() {
        let text = "a".repeat(BROKER_CHANNEL_BYTES_MAX);
        for part in ["*a", "a", "?", "[^b]"] {
            let pattern = part.repeat(1_000 / part.len());
            assert!(!matches(format!("*{pattern}b").as_bytes(), text.as_bytes()));
            assert!(matches(format!("*{pattern}").as_bytes(), text.as_bytes()));
        }
    }
}
