//! Generates the Rust types and services from `proto/baton/v1/*.proto`. `protox` compiles them in pure Rust, so no
//! `protoc` is needed on the building machine.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["types", "registry", "generation", "prefill", "decode"]
        .map(|name| format!("proto/baton/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed=proto");
    Ok(())
}
