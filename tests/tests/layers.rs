//! Dependencies point down only.

use std::process::Command;

use serde_json::Value;
use tests::sources::workspace_root;

/// Each crate and the crates of the project that it may build on. A layer that is not named here
/// fails the test.
const LAYERS: &[(&str, &[&str])] = &[
    ("fuzz", &[]),
    ("cell", &["fuzz"]),
    ("firewall", &["cell", "fuzz"]),
    ("rpc", &["cell", "fuzz"]),
    ("recovery", &["cell", "fuzz"]),
    ("userland", &["cell", "fuzz"]),
    (
        "kernel",
        &["cell", "firewall", "rpc", "recovery", "userland", "fuzz"],
    ),
    ("boot", &["cell", "firewall", "fuzz"]),
    ("boot-image", &["cell", "firewall", "boot"]),
    (
        "kernel-image",
        &["cell", "firewall", "rpc", "recovery", "userland", "kernel"],
    ),
    (
        "qemu-runner",
        &["cell", "rpc", "recovery", "userland", "fuzz"],
    ),
    ("tests", &["cell", "qemu-runner"]),
];

fn metadata() -> Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(workspace_root())
        .output()
        .expect("cargo starts");
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

#[test]
fn every_dependency_points_down() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().expect("there are packages");
    let ours = |name: &str| packages.iter().any(|package| package["name"] == name);
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        let layer = LAYERS.iter().find(|(layer, _)| *layer == name);
        let (_, below) = layer.unwrap_or_else(|| panic!("{name} is no layer"));
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let other = dependency["name"].as_str().unwrap_or_default();
            assert!(
                !ours(other) || below.contains(&other),
                "{name} builds on {other}"
            );
        }
    }
}
