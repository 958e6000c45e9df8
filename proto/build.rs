//! Compiles every `.proto` beside this file: messages, servers and clients, without a system `protoc`.
//!
//! A new file needs no line here. The output in `OUT_DIR`:
//!
//! - `PACKAGE.rs`: the generated code, ending with the `Debug` of every message that holds a secret (see `redact.rs`);
//! - `PACKAGE.shown.rs`: a list of all messages for the test that prints each of them;
//! - `descriptors.bin`: the descriptors with their options, for the test of the wire facts.
//!
//! The invariant: a field marked `csi_secret` cannot be printed, because the `Debug` that would print it is never derived.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

mod redact;

/// Sensitive by the spec's words, though the field carries no option.
const ALSO_SECRET: &[&str] = &["csi.v1.VolumeCapability.MountVolume.mount_flags"];

fn main() -> Result<(), Box<dyn Error>> {
    let source = PathBuf::from("proto");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    println!("cargo:rerun-if-changed={}", source.display());

    let mut compiler = protox::Compiler::new([&source])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(proto_files(&source)?)?;
    let pool = compiler.descriptor_pool();
    // Not the encoding of prost-types: that one drops the extensions, and with them every csi_secret mark.
    fs::write(out.join("descriptors.bin"), pool.encode_to_vec())?;

    let secrets = redact::Secrets::find(&pool, ALSO_SECRET)?;
    tonic_prost_build::configure()
        .skip_debug(secrets.messages())
        .compile_fds(compiler.file_descriptor_set())?;
    for package in redact::own_packages(&pool) {
        append(
            &out.join(format!("{package}.rs")),
            &secrets.debug_code(&pool, &package),
        )?;
        fs::write(
            out.join(format!("{package}.shown.rs")),
            redact::list_code(&pool, &package),
        )?;
    }
    Ok(())
}

fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn append(file: &Path, code: &str) -> Result<(), Box<dyn Error>> {
    let mut whole = fs::read_to_string(file)?;
    whole.push_str(code);
    fs::write(file, whole)?;
    Ok(())
}
