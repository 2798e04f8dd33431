//! Link arguments of the monitor image, given here so that every way of building it uses them.

use std::path::PathBuf;

fn main() {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rerun-if-changed=src/entry.s");
    let hosted = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system != "none");
    let arguments: &[&str] = if hosted {
        &[
            "-nostartfiles",
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--build-id=none",
        ]
    } else {
        &["--no-pie", "--build-id=none"]
    };
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    let prefix = if hosted { "-Wl," } else { "" };
    println!(
        "cargo:rustc-link-arg-bins={prefix}-T{}",
        folder.join("link.ld").display()
    );
    println!("cargo:rustc-link-arg-bins={prefix}-zmax-page-size=4096");
}
