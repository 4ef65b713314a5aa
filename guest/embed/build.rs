//! Builds the guest images with a cargo of their own and leaves them, stripped, in `OUT_DIR`.
//!
//! Guests need flags and a profile that this workspace must not have, and cargo cannot give a dependency either. The
//! inner cargo gets a target folder of its own (so that it does not wait for the outer one's lock), the guests' flags
//! and nothing of the outer build's environment. Images are always optimised: they are what is measured.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Packages of the guest workspace, each with a binary of the same name.
const IMAGES: [&str; 2] = ["hello", "probe"];
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// What the images are made from, under `guest/`.
const SOURCES: [&str; 7] =
    ["Cargo.toml", "Cargo.lock", "image-flags.txt", "abi", "libos", "apps/hello", "apps/probe"];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("cargo::error=guest images: {error}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let variable =
        |name: &str| env::var_os(name).ok_or_else(|| format!("{name} is not set: not run by cargo"));
    let out = PathBuf::from(variable("OUT_DIR")?);
    let guest = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("..");
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", guest.join(source).display());
    }
    println!("cargo::rerun-if-changed=build.rs");

    let target = out.join("target");
    let flags = guest.join("image-flags.txt");
    let flags = fs::read_to_string(&flags).map_err(|error| format!("read {}: {error}", flags.display()))?;
    let mut cargo = inner_cargo(variable("CARGO")?, &guest, &target);
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags.lines().collect::<Vec<_>>().join("\u{1f}"));
    let output = cargo.output().map_err(|error| format!("run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!(
            "cargo ended with {}:\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        ));
    }
    for image in IMAGES {
        let built = target.join(TARGET).join("release").join(image);
        fs::copy(&built, out.join(image)).map_err(|error| format!("copy {}: {error}", built.display()))?;
    }
    Ok(())
}

fn inner_cargo(cargo: OsString, guest: &Path, target: &Path) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(guest).args(["build", "--release", "--locked", "--target", TARGET]);
    for image in IMAGES {
        command.args(["-p", image]);
    }
    // The outer build's settings for itself: packages, profiles, flags, wrappers such as clippy's.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTRIES_", "CARGO_SOURCE_"];
        let is_ours = ours.iter().any(|prefix| text.starts_with(prefix));
        let foreign = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "CLIPPY_", "__CARGO"];
        let is_build = foreign.iter().any(|prefix| text.starts_with(prefix));
        let of_script =
            ["OUT_DIR", "TARGET", "HOST", "PROFILE", "OPT_LEVEL", "DEBUG", "NUM_JOBS", "MAKEFLAGS"];
        if (is_build && !is_ours) || of_script.contains(&text.as_ref()) {
            command.env_remove(&name);
        }
    }
    command.env("CARGO_TARGET_DIR", target);
    command
}
