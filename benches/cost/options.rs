//! The command line.

use std::{collections::BTreeSet, path::PathBuf};

use crate::error::BoxError;

/// What the command line asks for.
pub(crate) struct Options {
    pub(crate) update: bool,
    /// Figures of another commit on this machine, instead of the committed ones.
    pub(crate) against: Option<PathBuf>,
    /// Only figures whose name contains this.
    pub(crate) only: Option<String>,
    /// Of them only these, which are counted once more.
    pub(crate) again: Option<BTreeSet<String>>,
    /// A factor for the longer one of two runs of a program: for profiles, in which its start shall vanish.
    pub(crate) times: usize,
}

impl Options {
    pub(crate) fn wants(&self, name: &str) -> bool {
        // A command's name begins with that of the turn which calls it.
        let again = |names: &BTreeSet<String>| names.iter().any(|wanted| wanted.starts_with(name));
        self.only.as_ref().is_none_or(|only| name.contains(only)) && self.again.as_ref().is_none_or(again)
    }
}

pub(crate) fn read(words: &[&str]) -> Result<Options, BoxError> {
    let mut options = Options { update: false, against: None, only: None, again: None, times: 1 };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--bench" => {}
            "--update" => options.update = true,
            "--against" => options.against = Some(words.next().ok_or("--against takes a file")?.into()),
            "--times" => {
                options.times = words.next().ok_or("--times takes a number")?.parse::<usize>()?.max(1);
            }
            only if !only.starts_with('-') => options.only = Some(only.to_owned()),
            other => {
                return Err(
                    format!("{other}: there are --update, --against FILE, --times N and a filter").into()
                );
            }
        }
    }
    Ok(options)
}
