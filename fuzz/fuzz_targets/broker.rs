#![no_main]

use socketshark::fuzzing;
use socketshark::limits::BROKER_REPLY_BYTES_MAX;
use socketshark_fuzz::bounded_beside;

// One command may ask for many replies: they wait until they are taken.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    bounded_beside(BROKER_REPLY_BYTES_MAX, data, fuzzing::broker)
});
