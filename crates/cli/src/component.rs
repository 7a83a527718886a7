//! `facestudio component`: one network, tensors in, tensors out; the numbers can be held against any reference.

use facestudio_parity::component;

use crate::backend::Backend;
use crate::output;
use crate::place::check_model;

#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    network: component::Args,
    /// Where it runs.
    #[arg(long, value_enum, default_value_t)]
    backend: Backend,
}

pub fn run(Args { network, backend }: Args) -> anyhow::Result<()> {
    check_model(&network.model)?;
    let milliseconds = component::run(&network, &backend.device()?)?;
    if !milliseconds.is_empty() {
        let threads = rayon::current_num_threads();
        output::print_json(&serde_json::json!({ "threads": threads, "milliseconds": milliseconds }), false)?;
    }
    Ok(())
}
