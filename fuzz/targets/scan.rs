#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kubevirt_wol_fuzz::check_scan(bytes));
