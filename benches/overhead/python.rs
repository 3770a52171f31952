//! Virtual environments under the build's directory, made on first use and again when their list changes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::error::BoxError;

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/overhead");

/// A file of this benchmark.
pub(crate) fn source(name: &str) -> PathBuf {
    Path::new(HERE).join(name)
}

/// The environment with what `NAME/requirements.txt` lists; its `bin` directory.
///
/// # Errors
///
/// When there is no Python 3 with `venv`, or pip cannot install the list.
pub(crate) fn environment(name: &str) -> Result<PathBuf, BoxError> {
    let list = source(name).join("requirements.txt");
    let environment = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("overhead-{name}"));
    let installed = environment.join("requirements.txt");
    let wanted = fs::read(&list)?;
    if fs::read(&installed).is_ok_and(|installed| installed == wanted) {
        return Ok(environment.join("bin"));
    }
    eprintln!("installing {} into {}", list.display(), environment.display());
    let _ = fs::remove_dir_all(&environment);
    run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
    let mut pip = Command::new(environment.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-input", "--disable-pip-version-check", "--requirement"]);
    run(pip.arg(&list))?;
    fs::write(&installed, wanted)?;
    Ok(environment.join("bin"))
}

/// # Errors
///
/// When the program is not there (Debian: python3, python3-venv), or fails.
pub(crate) fn run(command: &mut Command) -> Result<(), BoxError> {
    let program = command.get_program().display().to_string();
    match command.stdin(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{program}: {status}").into()),
        Err(error) => Err(format!("{program} (packages python3, python3-venv): {error}").into()),
    }
}
