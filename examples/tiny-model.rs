//! Writes the tests' small model folder with random weights: `cargo run --example tiny-model -- DIR`.

#[path = "../tests/support/tiny_model.rs"]
mod tiny_model;

use std::path::Path;

use facestudio::weights::write_folder;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("give the folder to write")?;
    write_folder(Path::new(&folder), |new| {
        tiny_model::files().0.iter().try_for_each(|(path, bytes)| new.write(path, bytes))
    })?;
    Ok(())
}
