//! Links the image of the cell kernel, as the monitor's is.

#[path = "../../boot/image/link.rs"]
mod link;

fn main() {
    println!("cargo:rerun-if-changed=../../boot/image/link.rs");
    link::by_script();
}
