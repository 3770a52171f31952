//! The table of settings, as `check` and the README show it.

use std::fmt::Write;

use super::table::{Settings, TABLE};

/// Every setting in force, its value and its source, one a line.
pub(crate) fn list(settings: &Settings, secrets: &[(&'static str, String)]) -> String {
    let width = TABLE.iter().map(|row| row.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    let mut group = "";
    for (row, value, source) in settings.shown() {
        if row.group != group {
            group = row.group;
            let _ = writeln!(text, "{}# {group}", if text.is_empty() { "" } else { "\n" });
        }
        let _ = writeln!(text, "{:width$}  {source:7}  {value}", row.name);
    }
    let _ = writeln!(text, "\n# Secrets");
    for (name, state) in secrets {
        let _ = writeln!(text, "{name:width$}  {state}");
    }
    text
}

/// The table in Markdown.
pub(crate) fn markdown() -> String {
    let mut text = String::new();
    let mut group = "";
    for row in TABLE {
        if row.group != group {
            group = row.group;
            let gap = if text.is_empty() { "" } else { "\n" };
            let _ = writeln!(text, "{gap}**{group}**\n");
            text.push_str("| Key | Flag | Environment | Default | |\n|---|---|---|---|---|\n");
        }
        let (flag, variable) = (row.flag(), row.variable());
        let (name, default, help) = (row.name, row.default, row.help.trim());
        let _ = writeln!(text, "| `{name}` | `--{flag}` | `{variable}` | `{default}` | {help} |");
    }
    text
}
