//! Writes the tests' small model folder with random weights: `cargo run --example tiny-model -- DIR [KIND]`.
//!
//! KIND is `adapters` or `arc2face` for a model of these families, `segmenter` for adapters with a segmenter; else
//! FaceStudio's, or its UNet's channels, 16 if absent: with 896 the weights are more than 500 MB in shards.

#[path = "../tests/support/tiny_model.rs"]
mod tiny_model;

use std::path::Path;

use facestudio::weights::write_folder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().ok_or("give the folder to write")?;
    let files = match arguments.next().as_deref() {
        None => tiny_model::files(),
        Some("adapters") => tiny_model::files_with_adapters(false),
        Some("segmenter") => tiny_model::files_with_segmenter(),
        Some("arc2face") => tiny_model::files_of_arc2face(),
        Some(width) => tiny_model::files_of_width(width.parse()?),
    };
    write_folder(Path::new(&folder), |new| {
        files.0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })?;
    Ok(())
}
