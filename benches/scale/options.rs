//! The command line.

use crate::error::BoxError;

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) few: usize,
    pub(crate) many: usize,
    /// Sessions that are measured.
    pub(crate) samples: usize,
    /// Turns of the long session.
    pub(crate) long: usize,
    pub(crate) repetitions: usize,
    /// Whether the erasure of many sessions is measured, and nothing else.
    pub(crate) erasure: bool,
    /// Of which stores.
    pub(crate) stores: Vec<&'static str>,
}

const STORES: [&str; 3] = ["sqlite", "redis", "postgres"];

pub(crate) fn read(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options {
        few: 10_000,
        many: 1_000_000,
        samples: 200,
        long: 10_000,
        repetitions: 5,
        erasure: false,
        stores: STORES.to_vec(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => {
                options =
                    Options { few: 1_000, many: 10_000, samples: 20, long: 200, repetitions: 1, ..options };
            }
            "--erasure" => options.erasure = true,
            "--sessions" => options.many = words.next().ok_or("--sessions takes a number")?.parse()?,
            word => match STORES.iter().find(|store| **store == word) {
                Some(store) => options.stores = vec![*store],
                None => {
                    return Err(
                        format!("{word}: there are --quick, --erasure, --sessions N and {STORES:?}").into()
                    );
                }
            },
        }
    }
    Ok(options)
}
