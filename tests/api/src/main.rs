//! Prints the public API of a crate from the JSON of rustdoc, one item a line. `../api.sh` runs it.
//!
//! Left out: implementations of auto traits and derives, at which `cargo-semver-checks` looks, and blanket ones.

use std::{env, error::Error};

fn main() -> Result<(), Box<dyn Error>> {
    let json = env::args_os().nth(1).ok_or("usage: api-listing JSON")?;
    let api = public_api::Builder::from_rustdoc_json(json)
        .omit_auto_derived_impls(true)
        .omit_auto_trait_impls(true)
        .omit_blanket_impls(true)
        .build()?;
    print!("{api}");
    Ok(())
}
