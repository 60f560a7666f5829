//! Compiles the wire protocol: protox parses it in Rust, so no `protoc` is needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto/wol/v1/wol.proto");
    let descriptors = protox::compile(["wol/v1/wol.proto"], ["proto"])?;
    tonic_prost_build::configure()
        // What proves who somebody is must not get into a log by the way.
        .skip_debug(["wol.v1.Credential"])
        .compile_fds(descriptors)?;
    Ok(())
}
