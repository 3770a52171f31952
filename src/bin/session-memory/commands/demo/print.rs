//! Output of the demonstration.

use std::{io::IsTerminal, path::Path};

use super::{client::Received, model::SeenMessage};

/// Prints in colour on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(super) struct Printer {
    colour: bool,
}

const BOLD: &str = "1";
const DIM: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";
const YELLOW: &str = "33";
const CYAN: &str = "36";

impl Printer {
    pub(super) fn for_stdout() -> Self {
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { colour: std::io::stdout().is_terminal() && !no_color }
    }

    pub(super) fn start(&self, model: &str, proxy: &str, database: &Path) {
        println!("{}", self.paint(BOLD, "A conversation in which the client sends only what is new"));
        println!("  model  {model}  (scripted; it knows what it is shown, and nothing else)");
        println!("  proxy  {proxy}");
        println!("  store  sqlite:{}", database.display());
    }

    pub(super) fn turn(&self, number: usize, sent: &str, seen: &[SeenMessage], came_back: &Received) {
        println!("\n{}", self.paint(BOLD, &format!("Turn {number}")));
        self.line("client sent", CYAN, "user", sent);
        let remembered = seen.len().saturating_sub(1);
        for (at, message) in seen.iter().enumerate() {
            let heading = if at == 0 { "model saw" } else { "" };
            let colour = if at < remembered { GREEN } else { CYAN };
            let text = match at < remembered {
                true => format!("{}  {}", message.text, self.paint(DIM, "← remembered")),
                false => message.text.clone(),
            };
            self.line(heading, colour, &message.role, &text);
        }
        self.line("came back", YELLOW, "assistant", &came_back.text);
        if let Some(status) = &came_back.status {
            println!("  {}", self.paint(DIM, &format!("session-memory: {status}")));
        }
    }

    pub(super) fn kill(&self, id: u32) {
        println!("\n{}", self.paint(RED, &format!("kill -9 {id}: the proxy is gone")));
    }

    pub(super) fn restart(&self, id: u32, url: &str) {
        println!("{}", self.paint(GREEN, &format!("a new proxy on the same file: process {id}, {url}")));
    }

    pub(super) fn end(&self, whole: bool, messages: usize) {
        let (colour, text) = match whole {
            true => (GREEN, format!("The client sent 1 message; the model saw {messages}. It remembered.")),
            false => {
                (RED, format!("The model saw {messages} of 5 messages: the conversation was NOT remembered."))
            }
        };
        println!("\n{}", self.paint(colour, &text));
    }

    fn line(&self, heading: &str, colour: &str, role: &str, text: &str) {
        let role = self.paint(colour, &format!("{role:9}"));
        println!("  {heading:12} {role}  {text}");
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
