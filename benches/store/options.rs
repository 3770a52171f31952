//! The command line.

use crate::error::BoxError;

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) repetitions: usize,
    /// A divisor of the number of sessions.
    pub(crate) smaller: usize,
}

pub(crate) fn read(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options { repetitions: 5, smaller: 1 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => (options.repetitions, options.smaller) = (1, 20),
            "--repetitions" => {
                let count = words.next().ok_or("--repetitions takes a number")?;
                options.repetitions = count.parse::<usize>()?.max(1);
            }
            other => return Err(format!("{other}: there are --quick and --repetitions N").into()),
        }
    }
    Ok(options)
}
