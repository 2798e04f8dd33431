//! Links the monitor image.

#[path = "link.rs"]
mod link;

fn main() {
    println!("cargo:rerun-if-changed=src/entry.s");
    link::by_script();
}
