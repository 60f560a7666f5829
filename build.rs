//! Compiles the wire protocol: protox parses it in Rust, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/wol/v1/wol.proto");
    let descriptors = protox::compile(["wol/v1/wol.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
