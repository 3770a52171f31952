//! What the store's tables are called, and the SQL that names them.

use super::OpenProblem;

/// The schema, and what every name in it begins with.
#[derive(Debug, Clone)]
pub(super) struct Names {
    schema: String,
    prefix: String,
}

impl Names {
    /// PostgreSQL cuts longer names off: <https://www.postgresql.org/docs/current/sql-syntax-lexical.html>.
    const LONGEST: usize = 63;
    /// What the longest of our own names leaves of it.
    const LONGEST_PREFIX: usize = Self::LONGEST - "sessions_by_expiry".len();

    pub(super) fn new(schema: String, prefix: String) -> Result<Self, OpenProblem> {
        if schema.is_empty() || schema.len() > Self::LONGEST || !is_fit(&schema) {
            return Err(OpenProblem::Name(
                "a schema's name has 1 to 63 bytes, none of them $, an apostrophe or NUL",
            ));
        }
        if prefix.len() > Self::LONGEST_PREFIX || !is_fit(&prefix) {
            return Err(OpenProblem::Name(
                "a table prefix has at most 45 bytes, none of them $, an apostrophe or NUL",
            ));
        }
        Ok(Self { schema, prefix })
    }

    /// Fills in a statement: `{name}` becomes the name with its schema, `{.name}` without, both quoted.
    pub(super) fn fill(&self, sql: &str) -> String {
        let mut filled = String::with_capacity(sql.len() * 2);
        let mut rest = sql;
        while let Some((before, after)) = rest.split_once('{') {
            let (name, after) = after.split_once('}').unwrap_or((after, ""));
            filled.push_str(before);
            filled.push_str(&match name.strip_prefix('.') {
                Some(name) => self.bare(name),
                None => self.full(name),
            });
            rest = after;
        }
        filled.push_str(rest);
        filled
    }

    pub(super) fn full(&self, name: &str) -> String {
        format!("{}.{}", quoted(&self.schema), self.bare(name))
    }

    /// The schema's name as it is, for a parameter.
    pub(super) fn schema(&self) -> &str {
        &self.schema
    }

    /// A table's name as it is, for a parameter.
    pub(super) fn plain(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(super) fn quoted_schema(&self) -> String {
        quoted(&self.schema)
    }

    fn bare(&self, name: &str) -> String {
        quoted(&self.plain(name))
    }
}

/// A dollar sign could end a function's body, which is quoted with dollars; an apostrophe a string in it.
fn is_fit(name: &str) -> bool {
    !name.contains(['$', '\0', '\''])
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_quotes() {
        let names = Names::new("a\"; DROP".to_owned(), "{sessions}\"".to_owned()).unwrap();
        assert_eq!(
            names.fill("SELECT {turns}, {.turns}!"),
            "SELECT \"a\"\"; DROP\".\"{sessions}\"\"turns\", \"{sessions}\"\"turns\"!"
        );
        for name in ["", "a$b", "a\0b", "a'b", &"x".repeat(64)] {
            assert!(Names::new(name.to_owned(), String::new()).is_err(), "{name:?} was taken");
        }
        assert!(Names::new("a".to_owned(), "x".repeat(46)).is_err(), "PostgreSQL would cut names off");
    }
}
