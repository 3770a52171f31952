//! The schema: what the tables look like, and how older ones become so.

use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::types::Type;

use super::{
    error::{OpenFailure, OpenProblem},
    names::Names,
    pool::Connections,
};

/// Each brings the schema from the version before to its own, in a transaction of its own; the first begins with
/// nothing. A migration that has been released is never changed.
const MIGRATIONS: &[&str] = &[include_str!("migrations/1.sql")];

/// The version that this program needs, and the newest that it knows.
pub(super) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// Before everything else a migration takes this lock, with a hash of the schema's name: replicas that start
/// at once migrate one after the other. "TSM1".
const LOCK: i32 = 0x5453_4D31;

/// Longer than any migration takes, the wait for another replica's included.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// On the server, so that nothing goes on there, and no lock is held, for a replica that is gone.
const PATIENCE: &str = "SET LOCAL statement_timeout = '10min'; SET LOCAL lock_timeout = '10min'";

type Client = deadpool_postgres::ClientWrapper;

/// Brings the schema up to date; the version that was found.
pub(super) async fn migrate(connections: &Connections, names: &Names) -> Result<i32, OpenFailure> {
    // Not one of the pool's: should this be dropped on the way, the connection ends, and the transaction with it.
    let client = connections.apart().await?;
    let found = look(connections, &client, names).await?;
    if found == NEWEST {
        return Ok(found); // needs no right to change the schema
    }
    timeout(LONGEST, raise(&client, names)).await.map_err(|_| OpenProblem::Timeout)?
}

/// Brings the schema from wherever it is to the newest version; where it was.
async fn raise(client: &Client, names: &Names) -> Result<i32, OpenFailure> {
    let found = step(client, names).await?;
    // Another replica may take some of them meanwhile.
    for _ in found + 1..NEWEST {
        step(client, names).await?;
    }
    Ok(found)
}

/// Takes the next step, if there is one; the version before it.
async fn step(client: &Client, names: &Names) -> Result<i32, OpenFailure> {
    client.batch_execute(&format!("BEGIN ISOLATION LEVEL READ COMMITTED; {PATIENCE}")).await?;
    let (class, name) = (LOCK, names.full(""));
    client
        .query_typed(
            "SELECT pg_catalog.pg_advisory_xact_lock($1, pg_catalog.hashtext($2))",
            &[(&class, Type::INT4), (&name, Type::TEXT)],
        )
        .await?;
    let found = version(client, names).await?;
    if found == 0 {
        create_schema(client, names).await?;
    }
    if let Some((step, number)) = MIGRATIONS.iter().zip(1..).find(|(_, number)| *number > found) {
        client.batch_execute(&names.fill(step)).await?;
        let record = names.fill("INSERT INTO {schema_version} (version) VALUES ($1)");
        client.query_typed(&record, &[(&number, Type::INT4)]).await?;
    }
    client.batch_execute("COMMIT").await?;
    Ok(found)
}

/// Fails unless the schema is up to date.
pub(super) async fn verify(connections: &Connections, names: &Names) -> Result<(), OpenFailure> {
    let client = connections.apart().await?;
    match look(connections, &client, names).await? {
        NEWEST => Ok(()),
        found => Err(OpenProblem::NeedsMigration { found, known: NEWEST }.into()),
    }
}

/// The schema's version, on a server that can be used.
async fn look(connections: &Connections, client: &Client, names: &Names) -> Result<i32, OpenFailure> {
    let look = async {
        check_server(client).await?;
        version(client, names).await
    };
    // What sets a limit to statements is not sent to every server, and a frozen one heeds none.
    timeout(connections.connect_timeout(), look).await.map_err(|_| OpenProblem::Timeout)?
}

async fn check_server(client: &Client) -> Result<(), OpenFailure> {
    let sql = "SELECT pg_catalog.current_setting('server_version_num')::int4,
                      pg_catalog.current_setting('server_version'),
                      pg_catalog.current_setting('server_encoding')";
    for row in client.query_typed(sql, &[]).await? {
        if row.try_get::<_, i32>(0)? < 140_000 {
            return Err(OpenProblem::TooOld(row.try_get(1)?).into());
        }
        let encoding: String = row.try_get(2)?;
        if encoding != "UTF8" {
            return Err(OpenProblem::Encoding(encoding).into());
        }
    }
    Ok(())
}

/// The schema's version; 0 where there is none.
///
/// The catalogue is read like any table. `to_regclass` would answer from a cache that may, within a transaction,
/// not know yet what another replica made while this one waited for the lock.
async fn version(client: &Client, names: &Names) -> Result<i32, OpenFailure> {
    let (schema, table) = (names.schema(), names.plain("schema_version"));
    let sql = "SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
               WHERE n.nspname = $1 AND c.relname = $2";
    if client.query_typed(sql, &[(&schema, Type::TEXT), (&table, Type::TEXT)]).await?.is_empty() {
        return Ok(0);
    }
    let sql = names.fill("SELECT coalesce(pg_catalog.max(version), 0) FROM {schema_version}");
    let found = client.query_typed(&sql, &[]).await?;
    let found = found.first().map(|row| row.try_get(0)).transpose()?.unwrap_or(0);
    match found > NEWEST {
        true => Err(OpenProblem::NewerSchema { found, known: NEWEST }.into()),
        false => Ok(found),
    }
}

/// `CREATE SCHEMA IF NOT EXISTS` alone would ask for the right to create schemas although there is nothing to
/// create.
async fn create_schema(client: &Client, names: &Names) -> Result<(), OpenFailure> {
    let schema = names.schema();
    let found = client
        .query_typed("SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1", &[(&schema, Type::TEXT)])
        .await?;
    if found.is_empty() {
        client.batch_execute(&format!("CREATE SCHEMA {}", names.quoted_schema())).await?;
    }
    let table = "CREATE TABLE {schema_version} (
                     version int4 PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT pg_catalog.now())";
    client.batch_execute(&names.fill(table)).await?;
    Ok(())
}
