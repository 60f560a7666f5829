//! Compiles the messages of the wire protocol, as the program's own build does, without the
//! services: nothing is called here.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=../proto/wol/v1/wol.proto");
    let descriptors = protox::compile(["wol/v1/wol.proto"], ["../proto"])?;
    tonic_prost_build::configure()
        .build_client(false)
        .build_server(false)
        .skip_debug(["wol.v1.Credential"])
        .compile_fds(descriptors)?;
    Ok(())
}
