//! How much a recorder holds of one reply.

/// What one reply may still take. What is replaced later stays counted: it was taken, and worked on.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
}

/// The reply is larger than its limit.
#[derive(Debug)]
pub(super) struct Full;

impl Budget {
    /// What a part, call or block costs beyond its bytes.
    const ENTRY: usize = 128;
    /// Calls, or members of one object: they are searched, so the work must have a bound. Providers allow 128
    /// tools.
    pub(super) const ENTRIES: usize = 1024;

    pub(super) fn new(limit: usize) -> Self {
        Self { left: limit }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Full> {
        self.left = self.left.checked_sub(bytes).ok_or(Full)?;
        Ok(())
    }

    /// One more in a list that is searched and holds this many.
    pub(super) fn entry(&mut self, held: usize) -> Result<(), Full> {
        if held >= Self::ENTRIES { Err(Full) } else { Ok(()) }
    }

    /// One more in a list that is only appended to.
    pub(super) fn part(&mut self) -> Result<(), Full> {
        self.take(Self::ENTRY)
    }
}
