//! The protocols once more, small and written for this test alone, so that a mistake in the
//! program's own codecs is not made twice.

pub mod frames;
pub mod http;
pub mod resp;
