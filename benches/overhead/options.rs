//! The command line.

use std::time::Instant;

use crate::error::BoxError;

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) repetitions: usize,
    /// A divisor of the number of requests.
    pub(crate) smaller: usize,
    /// Only scenarios whose name contains one of these.
    pub(crate) only: Vec<String>,
    /// Targets that are left out, as `nginx`.
    pub(crate) without: Vec<String>,
    pub(crate) peers: bool,
    pub(crate) plot: bool,
    /// Whether figures and plots go to where the committed ones are.
    pub(crate) save: bool,
    pub(crate) started: Instant,
}

impl Options {
    pub(crate) fn has(&self, target: &str) -> bool {
        !self.without.iter().any(|without| without == target)
    }

    pub(crate) fn wants(&self, scenario: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| scenario.contains(only.as_str()))
    }

    pub(crate) fn tell(&self, scenario: &str, round: usize, rounds: usize) {
        if round.is_multiple_of(rounds) {
            let (passed, repetition) = (self.started.elapsed().as_secs(), round / rounds + 1);
            eprintln!("{passed:4} s  {scenario}: repetition {repetition} of {}", self.repetitions);
        }
    }
}

pub(crate) fn read(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options {
        repetitions: 5,
        smaller: 1,
        only: Vec::new(),
        without: Vec::new(),
        peers: false,
        plot: true,
        save: false,
        started: Instant::now(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--quick" => (options.repetitions, options.smaller) = (1, 20),
            "--peers" => options.peers = true,
            "--no-plot" => options.plot = false,
            "--save" => options.save = true,
            "--repetitions" => {
                let count = words.next().ok_or("--repetitions takes a number")?;
                options.repetitions = count.parse::<usize>()?.max(1);
            }
            "--without" => match *words.next().ok_or("--without takes nginx or postgres")? {
                target @ ("nginx" | "postgres") => options.without.push(target.to_owned()),
                other => return Err(format!("{other}: only nginx and postgres can be left out").into()),
            },
            only if !only.starts_with('-') => options.only.push(only.to_owned()),
            other => {
                let known =
                    "--quick, --peers, --without nginx, --repetitions N, --save, --no-plot and filters";
                return Err(format!("{other}: there are {known}").into());
            }
        }
    }
    Ok(options)
}
