//! The known key that a mistyped one was probably meant to be.

/// Longer keys are no slips of the finger; the distance costs the product of both lengths.
const KEY_BYTES_MAX: usize = 64;

/// The nearest of `known`, if less than about half of it would have to be typed anew.
pub fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    if key.len() > KEY_BYTES_MAX {
        return None;
    }
    let near = known.iter().map(|&candidate| (distance(key, candidate), candidate));
    let (distance, found) = near.min_by_key(|&(distance, _)| distance)?;
    (2 * distance <= key.len().max(found.len())).then_some(found)
}

/// Edit distance without regard to case; two neighbours exchanged count as one edit (the optimal
/// string alignment distance).
fn distance(a: &str, b: &str) -> usize {
    let a = a.to_lowercase().into_bytes();
    let b = b.to_lowercase().into_bytes();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = changed.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("WS_PORT", "ws_port"), 0);
    }

    #[test]
    fn only_what_is_near_is_suggested() {
        let known = ["before_subscribe", "on_subscribe", "WS_PORT", "port"];
        assert_eq!(nearest("before_subscrbe", &known), Some("before_subscribe"));
        assert_eq!(nearest("prot", &known), Some("port"));
        assert_eq!(nearest("ws-port", &known), Some("WS_PORT"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(nearest(&"x".repeat(1 << 20), &known), None);
        assert_eq!(nearest("a", &[]), None);
    }
}
