//! What the figures were measured on.

use std::{fs, process::Command, thread};

/// The machine as it was when the run began.
pub(crate) struct Machine {
    cores: usize,
    processor: String,
    system: String,
    date: String,
    load: Option<String>,
}

impl Machine {
    pub(crate) fn look() -> Self {
        Self {
            cores: thread::available_parallelism().map_or(0, Into::into),
            processor: processor().unwrap_or_else(|| said("uname", &["-m"])),
            system: said("uname", &["-sr"]),
            date: said("date", &["-u", "+%F %H:%M UTC"]),
            load: load(),
        }
    }

    pub(crate) fn cores(&self) -> usize {
        self.cores
    }

    /// One paragraph of Markdown, for what was measured with this command.
    pub(crate) fn describe(&self, command: &str, repetitions: usize) -> String {
        let arguments: String = std::env::args()
            .skip(1)
            .filter(|word| word != "--bench")
            .map(|word| format!(" {word}"))
            .collect();
        let separator = if arguments.is_empty() { "" } else { " --" };
        let mut text = format!(
            "`{command}{separator}{arguments}` on {}: {} cores ({}), {}; medians of {repetitions} \
             interleaved repetitions.",
            self.date, self.cores, self.processor, self.system
        );
        match (&self.load, load()) {
            (Some(before), Some(after)) => {
                text.push_str(&format!(" Load average (1 minute) before {before}, after {after}."));
            }
            _ => text.push_str(" CPU is measured on Linux only."),
        }
        text + "\n"
    }
}

fn processor() -> Option<String> {
    let all = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = all.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn load() -> Option<String> {
    Some(fs::read_to_string("/proc/loadavg").ok()?.split(' ').next()?.to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or("unknown".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
