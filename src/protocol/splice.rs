//! Inserting messages into a body without re-serialising it.
