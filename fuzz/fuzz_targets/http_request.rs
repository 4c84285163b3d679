#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| socketshark::fuzzing::http_request(data));
