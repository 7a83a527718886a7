//! `facestudio serve`: crates/serve, with this program's words and statuses.

use facestudio::Error;
pub use facestudio_serve::Args;
use facestudio_serve::Error as ServeError;

use crate::output::print;

/// Serves until it is stopped.
pub fn run(args: Args) -> anyhow::Result<()> {
    let page = facestudio_serve::listen(args).map_err(to_error)?;
    print(&format!("FaceStudio is at http://{}/ (stop with Ctrl-C)\n", page.address()))?;
    Ok(page.serve().map_err(to_error)?)
}

fn to_error(error: ServeError) -> Error {
    match error {
        ServeError::Refused { code, message, remedy } => Error::input(code, message, remedy),
        ServeError::Io { place, source } => Error::io(place, &source),
    }
}
