/// Reason why bytes are no record of this session.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The bytes are no record, or a damaged one.
    #[error("the stored record is damaged: {0}")]
    Malformed(&'static str),
    /// The header is not the JSON that it should be; the number is where, in bytes. (The parser's own error
    /// would quote what it read there, which may be a message.)
    #[error("the stored record's header cannot be read (at byte {0})")]
    Header(usize),
    /// The record was written by a version that this one cannot read.
    #[error("the stored record has format version {0}; this program reads 1.x")]
    Version(String),
    /// The log that the record stands in was written by a version that this one cannot read.
    #[error("the stored log has layout version {0}; this program reads 1.x")]
    Layout(String),
    /// The record belongs to another session.
    #[error("the store answered with a record of another session")]
    Foreign,
    /// What is inside an envelope is not the record that its header names.
    #[error("the stored record is in the envelope of another one")]
    Misplaced,
}
