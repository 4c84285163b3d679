#![no_main]

use socketshark::fuzzing;

libfuzzer_sys::fuzz_target!(|data: &[u8]| socketshark_fuzz::bounded(data, fuzzing::tls));
