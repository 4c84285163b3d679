//! Keys of large maps, whose bytes stand in the map itself.
//!
//! With ten thousand entries, each line of memory that a look-up fetches is a wait for it. A key on
//! the heap is one line more, somewhere else.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// Longer keys are on the heap after all.
const BYTES_MAX: usize = 22;

/// Bytes that are mostly few. It compares and hashes like the slice that it holds.
pub enum InlineBytes {
    Here(u8, [u8; BYTES_MAX]),
    There(Box<[u8]>),
}

impl InlineBytes {
    pub fn new(bytes: &[u8]) -> InlineBytes {
        let mut here = [0; BYTES_MAX];
        match here.get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                InlineBytes::Here(bytes.len() as u8, here)
            }
            None => InlineBytes::There(bytes.into()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            InlineBytes::Here(len, bytes) => &bytes[..usize::from(*len)],
            InlineBytes::There(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for InlineBytes {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for InlineBytes {
    fn eq(&self, other: &InlineBytes) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for InlineBytes {}

impl Hash for InlineBytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn keys_of_all_lengths_are_found_by_their_bytes() {
        assert_eq!(size_of::<InlineBytes>(), 24, "no larger than a string");
        let keys: Vec<Vec<u8>> = (0..60).map(|len| vec![7; len]).collect();
        let map: HashMap<InlineBytes, usize> =
            keys.iter().map(|key| (InlineBytes::new(key), key.len())).collect();
        for key in &keys {
            assert_eq!(map.get(key.as_slice()), Some(&key.len()));
        }
        assert_eq!(map.get([7, 0].as_slice()), None, "what is behind the bytes does not count");
    }
}
