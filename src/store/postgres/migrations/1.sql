-- Schema version 1. Names in braces are put in, quoted, by names.rs: {name} with the schema, {.name} without.
--
-- No functions and operators of other roles are called, whatever the search_path of the role: the functions have one
-- of their own. ("expiry" has none, so that it is inlined; its operands have the very types of PostgreSQL's operators.)

-- One row a session. Without turns (count = 0) it is a tombstone. `touched` orders the sessions of one
-- principal by their newest turn, whatever the clock did. `fresh`: no deletion stands before the first turn. `bytes`:
-- the sum of the records that are kept. `opened`: the number of the newest turn that opens an exchange.
-- Keys compare byte by byte (collation "C"), so that no upgrade of the system's collations damages an index.
-- Every append writes its row anew: pages keep some room for that, and are cleaned up when a fiftieth has changed,
-- not, as by default, a fifth.
CREATE TABLE {sessions} (
    session    bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace  text        COLLATE "C" NOT NULL,
    principal  text        COLLATE "C" NOT NULL,
    id         text        COLLATE "C" NOT NULL,
    epoch      uuid        NOT NULL,
    fresh      boolean     NOT NULL,
    count      bigint      NOT NULL,
    trimmed    bigint      NOT NULL,
    newest     uuid,
    bytes      bigint      NOT NULL,
    opened     bigint      NOT NULL,
    model      text        COLLATE "C",
    title      text        COLLATE "C",
    touched    bigint      NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02);
CREATE UNIQUE INDEX {.sessions_by_key} ON {sessions} (namespace, principal, id);
CREATE INDEX {.sessions_by_touch} ON {sessions} (namespace, principal, touched) WHERE count > 0;
CREATE INDEX {.sessions_by_age} ON {sessions} (namespace, touched) WHERE count > 0;
CREATE INDEX {.sessions_by_expiry} ON {sessions} (expires_at);
CREATE SEQUENCE {touches};

-- A trimmed turn keeps its id for a while and loses its record. `opens`: it opens an exchange, so that a log may begin
-- with it. The index of ids begins with the id: ids grow with time, so new ones go to its end.
CREATE TABLE {turns} (
    session    bigint NOT NULL REFERENCES {sessions} ON DELETE CASCADE,
    seq        bigint NOT NULL,
    id         uuid   NOT NULL,
    opens      boolean NOT NULL,
    record     bytea,
    CONSTRAINT {.turns_by_seq} PRIMARY KEY (session, seq)
);
CREATE UNIQUE INDEX {.turns_by_id} ON {turns} (id, session);

-- The session's row, locked; made if it is not there, as one that has expired. The statements of a function
-- that is volatile each see what was committed before they began: after the lock is held, the newest.
CREATE FUNCTION {lock}(p_namespace text, p_principal text, p_id text, p_epoch uuid) RETURNS {sessions}
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    s {sessions};
BEGIN
    LOOP
        SELECT * INTO s FROM {sessions}
        WHERE namespace = p_namespace AND principal = p_principal AND id = p_id FOR UPDATE;
        IF FOUND THEN
            RETURN s;
        END IF;
        INSERT INTO {sessions} (namespace, principal, id, epoch, fresh, count, trimmed, bytes, opened, touched,
                                created_at, updated_at, expires_at)
        VALUES (p_namespace, p_principal, p_id, p_epoch, true, 0, 0, 0, 0, 0,
                clock_timestamp(), clock_timestamp(), '-infinity')
        ON CONFLICT (namespace, principal, id) DO NOTHING;
    END LOOP;
END
$function$;

-- Fails unless the server takes writes. What another one knows, a standby or a primary that was fenced off, may
-- be out of date, and a connection may come to such a one: a pooler's, or when a setting was changed.
CREATE FUNCTION {on_primary}() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    IF current_setting('transaction_read_only')::boolean THEN
        RAISE EXCEPTION 'the server takes no writes' USING ERRCODE = 'read_only_sql_transaction';
    END IF;
    RETURN true;
END
$function$;

CREATE FUNCTION {expiry}(p_seconds float8, p_from timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE AS $function$
    SELECT CASE WHEN p_seconds IS NULL THEN 'infinity'::timestamptz
                ELSE p_from + p_seconds * '1 second'::interval END
$function$;

-- Adds a turn: 'appended', 'already there' or 'gone', and where the log ends. p_at is the epoch that the turn
-- was built on (all zero: no session), p_epoch that of a log that begins with this turn. p_parent is null
-- unless the turn branches. Past the bounds the oldest turns go, in whole exchanges.
CREATE FUNCTION {append}(
    p_namespace text, p_principal text, p_id text, p_at uuid, p_epoch uuid,
    p_turn uuid, p_parent uuid, p_opens boolean, p_model text, p_title text, p_record bytea,
    p_ttl float8, p_max_turns bigint, p_max_bytes bigint, p_remembered bigint,
    OUT o_outcome text, OUT o_epoch uuid, OUT o_count bigint, OUT o_newest uuid
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    s {sessions};
    t timestamptz;
    trimmed_before bigint;
    oldest record;
    passed bigint := 0;
BEGIN
    o_outcome := 'gone';
    s := {lock}(p_namespace, p_principal, p_id, p_epoch);
    t := clock_timestamp();
    IF s.expires_at > t THEN
        IF EXISTS (SELECT FROM {turns} WHERE session = s.session AND id = p_turn) THEN
            o_outcome := 'already there';
            o_epoch := s.epoch; o_count := s.count; o_newest := s.newest;
            RETURN;
        END IF;
        IF s.epoch <> p_at AND NOT (s.fresh AND p_at = '00000000-0000-0000-0000-000000000000') THEN
            RETURN;
        END IF;
        IF p_parent IS NOT NULL AND NOT EXISTS (
            SELECT FROM {turns} WHERE session = s.session AND id = p_parent AND record IS NOT NULL
        ) THEN
            RETURN;
        END IF;
    ELSIF p_parent IS NOT NULL THEN
        RETURN;
    ELSE
        DELETE FROM {turns} WHERE session = s.session;
        s.epoch := p_epoch; s.fresh := true; s.count := 0; s.trimmed := 0; s.bytes := 0;
    END IF;

    IF s.count = 0 THEN
        s.model := NULL; s.title := NULL;
    END IF;
    IF s.count = 0 OR p_opens THEN
        s.opened := s.count + 1;
    END IF;
    s.count := s.count + 1;
    s.bytes := s.bytes + octet_length(p_record);
    INSERT INTO {turns} (session, seq, id, opens, record) VALUES (s.session, s.count, p_turn, p_opens, p_record);
    trimmed_before := s.trimmed;
    IF s.opened > s.trimmed + 1 AND (s.count - s.trimmed > p_max_turns OR s.bytes > p_max_bytes) THEN
        FOR oldest IN
            SELECT seq, octet_length(record) AS bytes, opens FROM {turns}
            WHERE session = s.session AND seq > s.trimmed AND seq <= s.opened ORDER BY seq
        LOOP
            -- The log may begin here.
            IF oldest.opens OR oldest.seq = s.opened THEN
                s.trimmed := oldest.seq - 1; s.bytes := s.bytes - passed;
                passed := 0;
                EXIT WHEN (s.count - s.trimmed > p_max_turns) IS NOT TRUE AND (s.bytes > p_max_bytes) IS NOT TRUE;
            END IF;
            passed := passed + oldest.bytes;
        END LOOP;
    END IF;
    UPDATE {sessions} SET
        epoch = s.epoch, fresh = s.fresh, count = s.count, trimmed = s.trimmed, newest = p_turn, bytes = s.bytes,
        opened = s.opened, model = coalesce(p_model, s.model), title = coalesce(p_title, s.title),
        touched = nextval('{touches}'::regclass), updated_at = t, expires_at = {expiry}(p_ttl, t),
        created_at = CASE WHEN s.count = 1 THEN t ELSE created_at END
    WHERE session = s.session;
    IF s.trimmed > trimmed_before THEN
        -- In this order, so that few are written anew however many go at once.
        DELETE FROM {turns} WHERE session = s.session AND seq <= s.trimmed - p_remembered;
        UPDATE {turns} SET record = NULL
        WHERE session = s.session AND seq > trimmed_before AND seq <= s.trimmed;
    END IF;
    o_outcome := 'appended'; o_epoch := s.epoch; o_count := s.count; o_newest := p_turn;
END
$function$;

-- Removes the turns of a session that is locked, and makes it a tombstone of this epoch.
CREATE FUNCTION {bury}(p_session bigint, p_epoch uuid, p_ttl float8) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    t timestamptz := clock_timestamp();
BEGIN
    DELETE FROM {turns} WHERE session = p_session;
    UPDATE {sessions} SET
        epoch = p_epoch, fresh = false, count = 0, trimmed = 0, newest = NULL, bytes = 0, opened = 0,
        model = NULL, title = NULL, created_at = t, updated_at = t, expires_at = {expiry}(p_ttl, t)
    WHERE session = p_session;
END
$function$;

-- Removes the log and leaves a tombstone of epoch p_epoch. Sent twice, it deletes once: what began on the
-- tombstone has its epoch.
CREATE FUNCTION {delete}(
    p_namespace text, p_principal text, p_id text, p_epoch uuid, p_ttl float8, OUT o_deleted boolean
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    s {sessions};
BEGIN
    s := {lock}(p_namespace, p_principal, p_id, p_epoch);
    o_deleted := s.epoch <> p_epoch OR s.expires_at = '-infinity';
    IF o_deleted THEN
        PERFORM {bury}(s.session, p_epoch, p_ttl);
    END IF;
END
$function$;

-- Erases some of a principal's sessions, each as a deletion does, from this place in the order of appends on, and answers
-- how much and where to go on. A session that is appended to meanwhile only moves ahead.
CREATE FUNCTION {erase}(
    p_namespace text, p_principal text, p_ttl float8, p_after bigint, p_sessions bigint, p_records bigint,
    OUT o_sessions bigint, OUT o_records bigint, OUT o_bytes bigint, OUT o_next bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    one record;
    s {sessions};
    looked bigint := 0;
BEGIN
    o_sessions := 0; o_records := 0; o_bytes := 0;
    FOR one IN
        SELECT session, touched FROM {sessions}
        WHERE namespace = p_namespace AND principal = p_principal AND count > 0 AND touched > p_after
        ORDER BY touched LIMIT p_sessions + 1
    LOOP
        IF o_sessions = p_sessions OR o_records >= p_records THEN
            RETURN;
        END IF;
        o_next := one.touched; looked := looked + 1;
        -- Another step may have erased it while this one waited.
        SELECT * INTO s FROM {sessions} WHERE session = one.session AND count > 0 FOR UPDATE;
        CONTINUE WHEN NOT FOUND;
        PERFORM {bury}(one.session, gen_random_uuid(), p_ttl);
        o_sessions := o_sessions + 1; o_records := o_records + s.count - s.trimmed; o_bytes := o_bytes + s.bytes;
    END LOOP;
    IF looked <= p_sessions THEN
        o_next := NULL;
    END IF;
END
$function$;

-- Removes some of a namespace's sessions that were appended to last longer ago than p_age, from this place in the order of
-- appends on, and answers how much and where to go on. That is the order of time, but for a clock that was set: so it
-- ends where it finds none for a while.
CREATE FUNCTION {expire}(
    p_namespace text, p_age float8, p_after bigint, p_sessions bigint, p_records bigint, p_looks bigint,
    OUT o_sessions bigint, OUT o_records bigint, OUT o_bytes bigint, OUT o_next bigint
) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    one record;
    s {sessions};
    oldest timestamptz := clock_timestamp() - p_age * '1 second'::interval;
    old boolean := false;
    last bigint;
BEGIN
    o_sessions := 0; o_records := 0; o_bytes := 0;
    FOR one IN
        SELECT session, touched, updated_at FROM {sessions}
        WHERE namespace = p_namespace AND count > 0 AND touched > p_after
        ORDER BY touched LIMIT p_looks
    LOOP
        IF one.updated_at < oldest THEN
            old := true;
            EXIT WHEN o_sessions = p_sessions OR o_records >= p_records;
            -- One that was appended to since is at another place.
            SELECT * INTO s FROM {sessions}
            WHERE session = one.session AND touched = one.touched AND count > 0 FOR UPDATE;
            IF FOUND THEN
                DELETE FROM {turns} WHERE session = one.session;
                DELETE FROM {sessions} WHERE session = one.session;
                o_sessions := o_sessions + 1; o_records := o_records + s.count - s.trimmed;
                o_bytes := o_bytes + s.bytes;
            END IF;
        END IF;
        last := one.touched;
    END LOOP;
    IF old THEN
        o_next := last;
    END IF;
END
$function$;

-- Removes some of what expired, the longest expired first, and answers whether there may be more. What another
-- replica is at is left to it.
CREATE FUNCTION {sweep}(p_sessions bigint, p_turns bigint, OUT o_more boolean)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $function$
DECLARE
    expired bigint;
    found_sessions bigint := 0;
    room bigint := p_turns;
    removed bigint;
BEGIN
    FOR expired IN
        SELECT session FROM {sessions} WHERE expires_at <= now()
        ORDER BY expires_at LIMIT p_sessions FOR UPDATE SKIP LOCKED
    LOOP
        found_sessions := found_sessions + 1;
        DELETE FROM {turns} WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {turns} WHERE session = expired ORDER BY seq LIMIT room
        ));
        GET DIAGNOSTICS removed = ROW_COUNT;
        room := room - removed;
        IF room <= 0 THEN
            o_more := true;
            RETURN;
        END IF;
        DELETE FROM {sessions} WHERE session = expired;
    END LOOP;
    o_more := found_sessions = p_sessions;
END
$function$;

-- A record as text, for psql. One that a wrapper made is not text: then its bytes, escaped.
CREATE FUNCTION {readable}(p_record bytea) RETURNS text
LANGUAGE plpgsql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $function$
BEGIN
    RETURN convert_from(p_record, 'UTF8'::name);
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN encode(p_record, 'escape');
END
$function$;
