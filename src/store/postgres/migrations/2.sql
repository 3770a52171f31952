-- Schema version 2: the index of ids begins with the id. Ids grow with time, so new ones go to the end of the index; and
-- where most sessions are short, no load takes it for the index of places, to walk through all turns of a long one.
--
-- Turns can be read while the index is made, and are added after.
ALTER INDEX {turns_by_id} RENAME TO {.turns_by_session};
CREATE UNIQUE INDEX {.turns_by_id} ON {turns} (id, session);
