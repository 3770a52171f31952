//! One row of the table of settings, and the spellings of its name.

/// A setting as files, flags, the environment and help texts name it.
pub(super) struct Row {
    pub(super) group: &'static str,
    /// The TOML key.
    pub(super) name: &'static str,
    pub(super) placeholder: &'static str,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
}

impl Row {
    pub(super) fn flag(&self) -> String {
        flag(self.name)
    }

    pub(super) fn variable(&self) -> String {
        variable(self.name)
    }
}

/// The flag of a setting, without its leading dashes.
pub(super) fn flag(name: &str) -> String {
    name.replace('_', "-")
}

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("SESSION_MEMORY_{}", name.to_ascii_uppercase())
}
