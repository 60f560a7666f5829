//! The `kubevirt-wol` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    kubevirt_wol::run(std::env::args_os())
}
