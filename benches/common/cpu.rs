//! What the system knows of the CPU time of processes.

use std::{fs, time::Duration};

/// CPU time of all threads of a process, user and system; `None` where the system is not Linux.
///
/// The scheduler's own account, in nanoseconds: `/proc/PID/stat` counts in steps of 10 ms. A thread that ends takes
/// its time with it; those that matter here live as long as their process.
///
/// The scheduler adds to the account of a thread when it takes the thread off its core. The caller yields first, so
/// that a figure of its own process is up to date.
pub(crate) fn of(pid: u32) -> Option<Duration> {
    std::thread::yield_now();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let mut nanoseconds = 0;
    for thread in threads {
        let account = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        nanoseconds += account.split(' ').next()?.parse::<u64>().ok()?;
    }
    Some(Duration::from_nanos(nanoseconds))
}
