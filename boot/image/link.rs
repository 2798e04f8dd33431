//! Link arguments of the images, for their build scripts.
//!
//! They are given there and not in a configuration file, so that every way of building an image
//! uses them.

use std::path::PathBuf;

/// Has the package at hand linked by the `link.ld` beside its manifest.
pub(crate) fn by_script() {
    let folder = std::env::var_os("CARGO_MANIFEST_DIR")
        .map(PathBuf::from)
        .unwrap_or_default();
    let script = folder.join("link.ld");
    println!("cargo:rerun-if-changed=link.ld");
    // Built for a hosted target, the link is driven by a C compiler; for a bare one by the linker
    // itself.
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
    println!("cargo:rustc-link-arg-bins={prefix}-T{}", script.display());
    println!("cargo:rustc-link-arg-bins={prefix}-zmax-page-size=4096");
}
