//! Who gets what; knows no wire format.

pub mod lru;
