//! `valgrind` counts instructions, `strace` system calls.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Mutex,
    thread,
};

use crate::{
    error::BoxError,
    process::{Program, read_when_written},
};

/// How often what was done.
pub(crate) type Counts = BTreeMap<String, f64>;

/// Instructions of a program that ends by itself.
///
/// # Errors
///
/// When it cannot be counted.
pub(crate) fn instructions(program: &Program, name: &str) -> Result<f64, BoxError> {
    let profile = file(name, "callgrind")?;
    program.under(callgrind(&profile)).run()?;
    total(&profile)
}

/// Instructions of a proxy while it serves.
///
/// # Errors
///
/// When it cannot be counted, or its client fails.
pub(crate) fn instructions_while(
    program: &Program,
    name: &str,
    work: &mut dyn FnMut(SocketAddr) -> Result<(), BoxError>,
) -> Result<Counts, BoxError> {
    let profile = file(name, "callgrind")?;
    let proxy = program.under(callgrind(&profile)).listen()?;
    work(proxy.address)?;
    let pid = proxy.pid();
    proxy.end(pid)?;
    Ok([("instructions".to_owned(), total(&profile)?)].into())
}

/// System calls of a proxy while it serves, by their names.
///
/// # Errors
///
/// When they cannot be counted, or the proxy's client fails.
pub(crate) fn system_calls_while(
    program: &Program,
    name: &str,
    work: &mut dyn FnMut(SocketAddr) -> Result<(), BoxError>,
) -> Result<Counts, BoxError> {
    let (summary, pid) = (file(name, "strace")?, file(name, "pid")?);
    // The signal that ends the proxy must not go to the tracer, so the proxy tells its own pid.
    let script = "echo $$ > \"$0\"; exec \"$@\"";
    let traced = program.under([OsStr::new("sh"), OsStr::new("-c"), OsStr::new(script), pid.as_os_str()]);
    let tracer = ["strace", "-f", "-c", "-o"].map(OsStr::new);
    let proxy = traced.under(tracer.into_iter().chain([summary.as_os_str()])).listen()?;
    work(proxy.address)?;
    proxy.end(read_when_written(&pid)?.trim().parse()?)?;
    let mut calls = Counts::new();
    for line in fs::read_to_string(&summary)?.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [share, _, _, count, .., call] = words.as_slice()
            && share.parse::<f64>().is_ok()
            && *call != "total"
        {
            calls.insert((*call).to_owned(), count.parse()?);
        }
    }
    Ok(calls)
}

fn callgrind(profile: &Path) -> [String; 4] {
    let profile = profile.display();
    [
        "valgrind".to_owned(),
        "--tool=callgrind".to_owned(),
        format!("--callgrind-out-file={profile}"),
        format!("--log-file={profile}.log"),
    ]
}

/// All instructions of a profile.
fn total(profile: &Path) -> Result<f64, BoxError> {
    let text = fs::read_to_string(profile)?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("a profile without a total")?.trim().parse()?)
}

/// A file of this run, which stays until the next.
fn file(name: &str, kind: &str) -> Result<PathBuf, BoxError> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cost");
    fs::create_dir_all(&directory)?;
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = directory.join(format!("{name}.{kind}"));
    if path.exists() {
        fs::remove_file(&path)?;
    }
    Ok(path)
}

/// Does this for each, as many at a time as there are cores.
///
/// # Errors
///
/// The first of theirs.
pub(crate) fn in_parallel<T: Sync, U: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<U, BoxError> + Sync,
) -> Result<Vec<U>, BoxError> {
    let waiting = Mutex::new(items.iter().enumerate());
    let done = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().ok().and_then(|mut waiting| waiting.next());
                    let Some((place, item)) = next else { break };
                    let result = work(item);
                    if let Ok(mut done) = done.lock() {
                        done.insert(place, result);
                    }
                }
            });
        }
    });
    done.into_inner().map_err(|_| "a thread panicked")?.into_values().collect()
}
