-- Schema version 3: without the index that version 2 replaced. In a transaction of its own: whoever adds a turn has read
-- others before, so with the lock that making an index takes, each would wait for the other.
DROP INDEX {turns_by_session};
