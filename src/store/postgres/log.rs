//! The statements, and what their answers mean.

use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::{Row, types::Type};
use uuid::Uuid;

use super::{
    error::{damaged, unreadable},
    names::Names,
    pool::{Connections, Parameter},
};
use crate::{
    history::{Parent, Record, RecordId},
    session::{Principal, SessionId, SessionKey},
    store::{
        Appended, Cursor, Durability, Epoch, Erased, Loaded, Page, PrincipalPage, PrincipalSummary,
        ReadOptions, RecordPage, Retention, Scope, SessionPage, SessionSummary, StoreError, StoreErrorKind,
        TtlRefresh, erasure::place, trim,
    },
};

/// The statements, with the names of this store's tables in them.
///
/// Whatever the role's `search_path` is, they call no function but PostgreSQL's and the store's own: functions have
/// their schema, and the operands of an operator exactly its types, since then PostgreSQL's own comes first.
pub(super) struct Statements {
    load: String,
    append: String,
    delete: String,
    read: String,
    sessions: String,
    principals: String,
    erase: String,
    expire: String,
    sweep: String,
}

/// What one round of the sweep removes at most.
const SWEPT_SESSIONS: i64 = 64;
const SWEPT_TURNS: i64 = 2048;

/// Records after which a step of an erasure takes no further session.
const ENOUGH_RECORDS: i64 = Erased::ENOUGH_RECORDS as i64;
/// Sessions that one step of a listing of principals or of an expiry looks at.
const LOOKED_THROUGH: i64 = 1024;

/// One snapshot: the head and the turns after the cursor, or all of them where the cursor says nothing here. A
/// session without such turns is one row whose record is null. Materialized, so that the cursor is looked up once.
const LOAD: &str = "
    WITH s AS MATERIALIZED (
        SELECT session, epoch, count, trimmed, newest, expires_at,
               epoch = $4 AND (
                   ($6 IS NULL AND $5 = 0 AND trimmed = 0)
                   OR ($5 > trimmed AND $5 <= count AND EXISTS (
                       SELECT FROM {turns} t WHERE t.session = sessions.session AND t.seq = $5 AND t.id = $6))
               ) IS TRUE AS known
        FROM {sessions} AS sessions
        WHERE {on_primary}() AND namespace = $1 AND principal = $2 AND id = $3 AND expires_at > pg_catalog.now()
    )";
const LOADED: &str = "
    SELECT s.epoch, s.count, s.newest, s.known, CASE WHEN s.known THEN $5 ELSE s.trimmed END AS skipped,
           s.trimmed, t.record
    FROM s LEFT JOIN LATERAL (
        SELECT seq, record FROM {turns}
        WHERE session = s.session AND seq > CASE WHEN s.known THEN $5 ELSE s.trimmed END
    ) t ON true
    ORDER BY t.seq";
/// Puts the expiry off, once a sixteenth of the time to live has passed.
const REFRESH: &str = ",
    refreshed AS (
        UPDATE {sessions} r SET expires_at = {expiry}($7, pg_catalog.now()) FROM s
        WHERE r.session = s.session AND s.count > 0 AND r.epoch = s.epoch
          AND r.expires_at > pg_catalog.now() AND r.expires_at <= {expiry}($7 * 0.9375::float8, pg_catalog.now())
          AND r.expires_at < 'infinity'
    )";
const APPEND: &str = "
    SELECT o_outcome, o_epoch, o_count, o_newest
    FROM {append}($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)";
const DELETE: &str = "SELECT {delete}($1, $2, $3, $4, $5)";
const READ: &str = "
    SELECT s.epoch, s.count, s.newest, greatest($4, s.trimmed), t.record
    FROM {sessions} s LEFT JOIN LATERAL (
        SELECT seq, record FROM (
            SELECT seq, record, pg_catalog.sum(pg_catalog.octet_length(record)) OVER (ORDER BY seq) AS upto FROM (
                SELECT seq, record FROM {turns}
                WHERE session = s.session AND seq > greatest($4, s.trimmed) ORDER BY seq LIMIT $5
            ) part
        ) measured
        WHERE upto <= $6 OR seq = greatest($4, s.trimmed) + 1
    ) t ON true
    WHERE {on_primary}() AND namespace = $1 AND principal = $2 AND id = $3 AND expires_at > pg_catalog.now()
    ORDER BY t.seq";
const SESSIONS: &str = "
    SELECT id, count - trimmed AS turns, bytes, created_at, updated_at,
           CASE WHEN expires_at < 'infinity' THEN expires_at END, model, title, touched
    FROM {sessions}
    WHERE {on_primary}() AND namespace = $1 AND principal = $2 AND count > 0 AND touched < $3
      AND expires_at > pg_catalog.now()
    ORDER BY touched DESC LIMIT $4";
/// A principal stands where its newest session does; the others of it are passed over. The last row counts all that were
/// looked at, and says where they end.
const PRINCIPALS: &str = "
    WITH looked AS MATERIALIZED (
        SELECT principal, updated_at, touched FROM {sessions}
        WHERE {on_primary}() AND namespace = $1 AND count > 0 AND touched < $2 AND expires_at > pg_catalog.now()
        ORDER BY touched DESC LIMIT $3
    ), newest AS (
        SELECT principal, updated_at, touched FROM looked
        WHERE NOT EXISTS (
            SELECT FROM {sessions} s
            WHERE s.namespace = $1 AND s.principal = looked.principal AND s.count > 0
              AND s.touched > looked.touched AND s.expires_at > pg_catalog.now()
        )
        ORDER BY touched DESC LIMIT $4
    )
    SELECT principal, updated_at, touched, NULL::int8 FROM newest
    UNION ALL
    SELECT NULL, NULL, pg_catalog.min(touched), pg_catalog.count(*) FROM looked";
const ERASE: &str = "SELECT o_sessions, o_records, o_bytes, o_next FROM {erase}($1, $2, $3, $4, $5, $6)";
const EXPIRE: &str = "SELECT o_sessions, o_records, o_bytes, o_next FROM {expire}($1, $2, $3, $4, $5, $6)";
const SWEEP: &str = "SELECT {sweep}($1, $2)";
const DURABILITY: &str = "
    SELECT pg_catalog.current_setting('fsync'), pg_catalog.current_setting('full_page_writes'),
           pg_catalog.current_setting('synchronous_commit'), pg_catalog.current_setting('synchronous_standby_names')";

impl Statements {
    pub(super) fn new(names: &Names, refresh: TtlRefresh) -> Self {
        let load = match refresh {
            TtlRefresh::OnAppend => format!("{LOAD}{LOADED}"),
            TtlRefresh::OnLoad => format!("{LOAD}{REFRESH}{LOADED}"),
        };
        Self {
            load: names.fill(&load),
            append: names.fill(APPEND),
            delete: names.fill(DELETE),
            read: names.fill(READ),
            sessions: names.fill(SESSIONS),
            principals: names.fill(PRINCIPALS),
            erase: names.fill(ERASE),
            expire: names.fill(EXPIRE),
            sweep: names.fill(SWEEP),
        }
    }

    pub(super) async fn load(
        &self,
        connections: &Connections,
        retention: &Retention,
        key: &SessionKey,
        after: Option<&Cursor>,
    ) -> Result<Loaded, StoreError> {
        let scope = KeyColumns::of(key);
        let epoch = after.map(|at| Uuid::from_bytes(*at.epoch.as_bytes()));
        let count = after.and_then(|at| i64::try_from(at.count).ok());
        let newest = after.and_then(|at| at.newest).map(uuid);
        let ttl = seconds(retention.ttl);
        let mut parameters =
            scope.parameters(&[(&epoch, Type::UUID), (&count, Type::INT8), (&newest, Type::UUID)]);
        if retention.refresh == TtlRefresh::OnLoad {
            parameters.push((&ttl, Type::FLOAT8));
        }
        let rows = connections.query(&self.load, &parameters).await?;
        if rows.is_empty() {
            return Ok(Loaded::unknown(after));
        }
        loaded(key, &rows)
    }

    pub(super) async fn append(
        &self,
        connections: &Connections,
        retention: &Retention,
        key: &SessionKey,
        at: &Cursor,
        turn: &Record,
    ) -> Result<Appended, StoreError> {
        let scope = KeyColumns::of(key);
        let built_on = Uuid::from_bytes(*at.epoch.as_bytes());
        let begins = Uuid::from_bytes(*Epoch::random().as_bytes());
        let id = uuid(turn.id());
        let parent = match turn.parent() {
            Parent::At(place) => Some(uuid(place.turn)),
            Parent::Previous | Parent::Root => None,
        };
        let record: &[u8] = turn.bytes();
        let ttl = seconds(retention.ttl);
        let max_turns = retention.max_turns.map(|max| clamped(max.get() as u64));
        let max_bytes = retention.max_bytes.map(clamped);
        let opens = trim::opens_exchange(turn);
        let (model, title) = (trim::model(turn).map(escape), trim::title(turn).map(escape));
        let remembered = Retention::REMEMBERED as i64;
        let parameters = scope.parameters(&[
            (&built_on, Type::UUID),
            (&begins, Type::UUID),
            (&id, Type::UUID),
            (&parent, Type::UUID),
            (&opens, Type::BOOL),
            (&model, Type::TEXT),
            (&title, Type::TEXT),
            (&record, Type::BYTEA),
            (&ttl, Type::FLOAT8),
            (&max_turns, Type::INT8),
            (&max_bytes, Type::INT8),
            (&remembered, Type::INT8),
        ]);
        let rows = connections.query(&self.append, &parameters).await?;
        let row = only(&rows)?;
        match row.try_get(0).map_err(unreadable)? {
            "appended" => Ok(Appended::Appended { cursor: cursor(row, 1)?, before: None }),
            "already there" => Ok(Appended::AlreadyThere(cursor(row, 1)?)),
            "gone" => Ok(Appended::Gone),
            _ => Err(StoreError::new(StoreErrorKind::Corrupt)),
        }
    }

    pub(super) async fn delete(
        &self,
        connections: &Connections,
        retention: &Retention,
        key: &SessionKey,
    ) -> Result<(), StoreError> {
        let scope = KeyColumns::of(key);
        let tombstone = Uuid::from_bytes(*Epoch::random().as_bytes());
        let ttl = seconds(retention.tombstone_ttl);
        let parameters = scope.parameters(&[(&tombstone, Type::UUID), (&ttl, Type::FLOAT8)]);
        connections.query(&self.delete, &parameters).await.map(drop)
    }

    pub(super) async fn read(
        &self,
        connections: &Connections,
        key: &SessionKey,
        options: &ReadOptions,
    ) -> Result<RecordPage, StoreError> {
        let scope = KeyColumns::of(key);
        let from = clamped(options.from);
        let most = clamped(options.max_records.max(1) as u64);
        let bytes = clamped(options.max_bytes);
        let parameters = scope.parameters(&[(&from, Type::INT8), (&most, Type::INT8), (&bytes, Type::INT8)]);
        let rows = connections.query(&self.read, &parameters).await?;
        let Some(head) = rows.first() else { return Ok(RecordPage::unknown()) };
        let cursor = cursor(head, 0)?;
        let first = number(head, 3)?.min(cursor.count);
        let mut records = Vec::with_capacity(rows.len());
        for row in &rows {
            if let Some(record) = row.try_get::<_, Option<&[u8]>>(4).map_err(unreadable)? {
                records.push(decode(record, key)?);
            }
        }
        // A page without records goes nowhere: the log is damaged.
        if records.is_empty() && first < cursor.count {
            return Err(StoreError::new(StoreErrorKind::Corrupt));
        }
        Ok(RecordPage::new(cursor, first, records))
    }

    pub(super) async fn sessions(
        &self,
        connections: &Connections,
        scope: &Scope,
        page: &Page,
    ) -> Result<SessionPage, StoreError> {
        let before = clamped(place(page, u64::MAX)?);
        let (namespace, principal) = (escape(&scope.namespace), escape(scope.principal.as_str()));
        let limit = page.size();
        let one_more = limit as i64 + 1;
        let mut rows = connections
            .query(
                &self.sessions,
                &[
                    (&namespace, Type::TEXT),
                    (&principal, Type::TEXT),
                    (&before, Type::INT8),
                    (&one_more, Type::INT8),
                ],
            )
            .await?;
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last: Option<i64> = rows.last().map(|row| row.try_get(8)).transpose().map_err(unreadable)?;
        let next = last.filter(|_| more).map(|touched| touched.to_string());
        Ok(SessionPage { sessions: rows.iter().map(summary).collect::<Result<_, _>>()?, next })
    }

    pub(super) async fn principals(
        &self,
        connections: &Connections,
        namespace: &str,
        page: &Page,
    ) -> Result<PrincipalPage, StoreError> {
        let before = clamped(place(page, u64::MAX)?);
        let (namespace, limit) = (escape(namespace), page.size());
        let one_more = limit as i64 + 1;
        let mut rows = connections
            .query(
                &self.principals,
                &[
                    (&namespace, Type::TEXT),
                    (&before, Type::INT8),
                    (&LOOKED_THROUGH, Type::INT8),
                    (&one_more, Type::INT8),
                ],
            )
            .await?;
        let looked = rows.pop().ok_or_else(|| StoreError::new(StoreErrorKind::Corrupt))?;
        let touched = |row: &Row| row.try_get::<_, Option<i64>>(2).map_err(unreadable);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let last = match rows.last() {
            Some(last) if more => touched(last)?,
            _ if number(&looked, 3)? == LOOKED_THROUGH as u64 => touched(&looked)?,
            _ => None,
        };
        let principal = |row: &Row| {
            let principal: &str = row.try_get(0).map_err(unreadable)?;
            let updated_at = row.try_get(1).map_err(unreadable)?;
            Ok(PrincipalSummary::new(Principal::new(unescape(principal)), updated_at))
        };
        let principals = rows.iter().map(principal).collect::<Result<_, StoreError>>()?;
        Ok(PrincipalPage { principals, next: last.map(|last| last.to_string()) })
    }

    pub(super) async fn delete_principal(
        &self,
        connections: &Connections,
        retention: &Retention,
        scope: &Scope,
        page: &Page,
    ) -> Result<Erased, StoreError> {
        let after = clamped(place(page, 0)?);
        let (namespace, principal) = (escape(&scope.namespace), escape(scope.principal.as_str()));
        let ttl = seconds(retention.tombstone_ttl);
        let sessions = Erased::sessions_of(page) as i64;
        let rows = connections
            .query(
                &self.erase,
                &[
                    (&namespace, Type::TEXT),
                    (&principal, Type::TEXT),
                    (&ttl, Type::FLOAT8),
                    (&after, Type::INT8),
                    (&sessions, Type::INT8),
                    (&ENOUGH_RECORDS, Type::INT8),
                ],
            )
            .await?;
        erased(only(&rows)?)
    }

    pub(super) async fn expire(
        &self,
        connections: &Connections,
        namespace: &str,
        age: Duration,
        page: &Page,
    ) -> Result<Erased, StoreError> {
        let (namespace, after) = (escape(namespace), clamped(place(page, 0)?));
        let Some(age) = seconds(age) else { return Ok(Erased::default()) };
        let sessions = Erased::sessions_of(page) as i64;
        let rows = connections
            .query(
                &self.expire,
                &[
                    (&namespace, Type::TEXT),
                    (&age, Type::FLOAT8),
                    (&after, Type::INT8),
                    (&sessions, Type::INT8),
                    (&ENOUGH_RECORDS, Type::INT8),
                    (&LOOKED_THROUGH, Type::INT8),
                ],
            )
            .await?;
        erased(only(&rows)?)
    }

    /// Removes some of what expired; whether there may be more.
    pub(super) async fn sweep(&self, connections: &Connections) -> Result<bool, StoreError> {
        let limits = [(&SWEPT_SESSIONS as _, Type::INT8), (&SWEPT_TURNS as _, Type::INT8)];
        let rows = connections.query(&self.sweep, &limits).await?;
        only(&rows)?.try_get(0).map_err(unreadable)
    }
}

/// What the server's settings make of an acknowledged commit:
/// <https://www.postgresql.org/docs/current/runtime-config-wal.html>.
pub(super) async fn durability(connections: &Connections) -> Result<Durability, StoreError> {
    let rows = connections.query(DURABILITY, &[]).await?;
    let row = only(&rows)?;
    let setting = |column: usize| row.try_get::<_, &str>(column).map_err(unreadable);
    // Without either a machine that dies may leave pages that are half old, half new.
    let survives_power_loss = setting(0)? == "on" && setting(1)? == "on";
    Ok(worth(survives_power_loss, setting(2)?, setting(3)?))
}

fn worth(survives_power_loss: bool, synchronous_commit: &str, standbys: &str) -> Durability {
    match (survives_power_loss, synchronous_commit) {
        // Up to three times wal_writer_delay (600 ms) of acknowledged commits is lost already when the *server's
        // process* dies, which is less than `about-1s` promises.
        (_, "off") => Durability::None,
        (false, _) => Durability::Process,
        (true, "local") => Durability::Fsync,
        (true, "on" | "remote_write" | "remote_apply") if standbys.trim().is_empty() => Durability::Fsync,
        (true, "on" | "remote_write" | "remote_apply") => Durability::Replicated,
        _ => Durability::Unknown,
    }
}

/// A key as the columns hold it.
struct KeyColumns {
    namespace: String,
    principal: String,
    id: String,
}

impl KeyColumns {
    fn of(key: &SessionKey) -> Self {
        Self {
            namespace: escape(key.namespace()),
            principal: escape(key.principal().as_str()),
            id: key.id().as_str().to_owned(),
        }
    }

    fn parameters<'a>(&'a self, more: &[Parameter<'a>]) -> Vec<Parameter<'a>> {
        let mut parameters: Vec<Parameter<'a>> = Vec::with_capacity(3 + more.len());
        parameters.extend([
            (&self.namespace as _, Type::TEXT),
            (&self.principal as _, Type::TEXT),
            (&self.id as _, Type::TEXT),
        ]);
        parameters.extend_from_slice(more);
        parameters
    }
}

/// PostgreSQL's text takes every character but NUL, which is written `\0`, and a backslash therefore `\\`.
fn escape(text: &str) -> String {
    match text.contains(['\\', '\0']) {
        true => text.replace('\\', "\\\\").replace('\0', "\\0"),
        false => text.to_owned(),
    }
}

/// The text that was [escaped](escape).
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(char) = rest.next() {
        match char {
            '\\' if rest.as_str().starts_with('0') => {
                rest.next();
                plain.push('\0');
            }
            '\\' => plain.extend(rest.next()),
            char => plain.push(char),
        }
    }
    plain
}

/// A time for the server's interval arithmetic; `None` is for ever: what lies past the server's calendar.
fn seconds(time: Duration) -> Option<f64> {
    const MILLENNIUM: u64 = 1000 * 366 * 24 * 60 * 60;
    (time.as_secs() < MILLENNIUM).then_some(time.as_secs_f64())
}

fn uuid(id: RecordId) -> Uuid {
    Uuid::from_bytes(*id.as_bytes())
}

fn only(rows: &[Row]) -> Result<&Row, StoreError> {
    match rows {
        [row] => Ok(row),
        _ => Err(StoreError::new(StoreErrorKind::Corrupt)),
    }
}

/// The cursor of three columns: epoch, count, newest.
fn cursor(row: &Row, first: usize) -> Result<Cursor, StoreError> {
    let epoch: Uuid = row.try_get(first).map_err(unreadable)?;
    let newest: Option<Uuid> = row.try_get(first + 2).map_err(unreadable)?;
    let cursor = Cursor {
        epoch: Epoch::from_bytes(epoch.into_bytes()),
        count: number(row, first + 1)?,
        newest: newest.map(|id| RecordId::from_bytes(id.into_bytes())),
    };
    match cursor.newest.is_none() == (cursor.count == 0) {
        true => Ok(cursor),
        false => Err(StoreError::new(StoreErrorKind::Corrupt)),
    }
}

fn number(row: &Row, column: usize) -> Result<u64, StoreError> {
    let number: i64 = row.try_get(column).map_err(unreadable)?;
    u64::try_from(number).map_err(|_| StoreError::new(StoreErrorKind::Corrupt))
}

/// The answer to a load, whose turns must all be there.
fn loaded(key: &SessionKey, rows: &[Row]) -> Result<Loaded, StoreError> {
    let corrupt = || StoreError::new(StoreErrorKind::Corrupt);
    let head = rows.first().ok_or_else(corrupt)?;
    let cursor = cursor(head, 0)?;
    let known: bool = head.try_get(3).map_err(unreadable)?;
    let expected = cursor.count.checked_sub(number(head, 4)?).ok_or_else(corrupt)?;
    let mut turns = Vec::new();
    for row in rows {
        if let Some(record) = row.try_get::<_, Option<&[u8]>>(6).map_err(unreadable)? {
            turns.push(decode(record, key)?);
        }
    }
    let ends = turns.last().is_none_or(|turn| Some(turn.id()) == cursor.newest);
    if turns.len() as u64 != expected || !ends {
        return Err(corrupt());
    }
    Ok(Loaded { cursor, records: turns.into(), from_start: !known, trimmed: number(head, 5)? })
}

fn decode(record: &[u8], key: &SessionKey) -> Result<Record, StoreError> {
    Record::decode(Bytes::copy_from_slice(record), key.digest()).map_err(damaged)
}

fn summary(row: &Row) -> Result<SessionSummary, StoreError> {
    let id: &str = row.try_get(0).map_err(unreadable)?;
    let id = SessionId::from_bytes(id.as_bytes()).map_err(|_| StoreError::new(StoreErrorKind::Corrupt))?;
    let name =
        |column| row.try_get::<_, Option<&str>>(column).map(|name| name.map(unescape)).map_err(unreadable);
    Ok(SessionSummary {
        id,
        turns: number(row, 1)?,
        bytes: number(row, 2)?,
        created_at: row.try_get(3).map_err(unreadable)?,
        updated_at: row.try_get(4).map_err(unreadable)?,
        expires_at: row.try_get(5).map_err(unreadable)?,
        model: name(6)?,
        title: name(7)?,
    })
}

/// The answer of one step of an erasure.
fn erased(row: &Row) -> Result<Erased, StoreError> {
    let next: Option<i64> = row.try_get(3).map_err(unreadable)?;
    Ok(Erased {
        sessions: number(row, 0)?,
        records: number(row, 1)?,
        bytes: number(row, 2)?,
        next: next.map(|next| next.to_string()),
    })
}

fn clamped(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_acknowledgement_is_worth_what_the_settings_say() {
        assert_eq!(worth(true, "on", ""), Durability::Fsync);
        assert_eq!(worth(true, "local", "ANY 1 (a, b)"), Durability::Fsync);
        assert_eq!(worth(true, "on", "ANY 1 (a, b)"), Durability::Replicated);
        assert_eq!(worth(true, "remote_apply", "*"), Durability::Replicated);
        assert_eq!(worth(false, "on", "*"), Durability::Process, "a standby may run without fsync as well");
        assert_eq!(worth(true, "off", ""), Durability::None);
        assert_eq!(worth(true, "novel", ""), Durability::Unknown);
    }

    #[test]
    fn two_principals_never_share_a_column() {
        let texts = ["a", "a\0", "a\\0", "a\\", "a\\\\", "a\\\0"];
        let escaped: std::collections::HashSet<_> = texts.iter().map(|text| escape(text)).collect();
        assert_eq!(escaped.len(), texts.len());
        assert!(escaped.iter().all(|text| !text.contains('\0')));
        assert_eq!(texts.map(|text| unescape(&escape(text))), texts);
    }
}
