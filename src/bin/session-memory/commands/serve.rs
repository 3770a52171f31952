//! `serve`: build, listen, serve, drain. This is the story of the proxy.
//!
//! The order matters in three places. The store is opened before an address is bound, so that a proxy that listens can
//! answer. The recorder of metrics is installed before the server's counters are made. The admin listener answers
//! through the drain, and ends before the store is closed.

use std::{process::ExitCode, sync::Arc};

use clap::{ArgMatches, Command};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_session_memory::store::{Durability, DynHistoryStore};

use super::flags::{environment, read, unknown_variables, with_settings};
use crate::{
    build,
    error::BoxError,
    server::{Admin, Listener, MAX_ADMIN_CONNECTIONS, Signals, Workers, drain},
    settings::{Config, Secrets, StoreUrl, Value},
    traffic::{USER_TIMEOUT, Work},
};

/// `serve`, and its flags.
pub(super) fn command() -> Command {
    with_settings(Command::new("serve").about("Run the proxy"))
}

/// Runs the proxy until a signal ends it.
///
/// # Errors
///
/// When the start fails: the settings, the store, an address, a certificate.
pub(super) fn run(flags: &ArgMatches) -> Result<ExitCode, BoxError> {
    let settings = read(flags)?;
    let secrets = Secrets::load(&settings, &environment)?;
    let config = Config::new(settings, secrets)?;
    build::install_log(&config.settings)?;
    for name in unknown_variables() {
        tracing::warn!(name, "this environment variable looks like a setting, but there is none of its name");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let workers = Workers::start(config.settings.worker_threads.count())?;
    let ended = runtime.block_on(serve(config, workers));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    ended
}

async fn serve(config: Config, workers: Workers) -> Result<ExitCode, BoxError> {
    let settings = &config.settings;
    let mut signals = Signals::new()?;
    let work = Work::default();
    let store = build::open(settings, &config.secrets, Some(&workers)).await?;
    let durability = store.durability_dyn().await?;
    let memory = build::memory(&config, Arc::clone(&store))?;
    let apps = build::apps(&config, &memory, workers.count(), &work)?;
    let listener =
        Listener::bind(&settings.listen.0, settings.max_connections.get(), settings.send_timeout).await?;
    let admin_stop = CancellationToken::new();
    let admin = start_admin(&config, &store, durability, &work.draining, &admin_stop).await?;
    let server = build::server(&config, workers, apps, &work);

    announce(&config, &listener, &*store, durability)?;
    let name = tokio::select! {
        () = server.accept(&listener) => "the listener",
        name = signals.next() => name,
    };
    work.draining.cancel();
    drop(listener);
    eprintln!("session-memory: {name}: finishing what has begun, within {:?}", settings.drain_deadline);
    let code = drain(&work, &memory.commits(), settings.drain_deadline, &mut signals).await;
    admin_stop.cancel();
    admin.wait().await;
    store.close_dyn().await;
    drop(memory);
    if let Some(server) = Arc::into_inner(server) {
        server.workers.stop();
    }
    Ok(code)
}

async fn start_admin(
    config: &Config,
    store: &Arc<dyn DynHistoryStore>,
    durability: Durability,
    draining: &CancellationToken,
    stop: &CancellationToken,
) -> Result<TaskTracker, BoxError> {
    let tasks = TaskTracker::new();
    if let Some(address) = config.settings.admin {
        let listener =
            Listener::bind(&address.to_string(), MAX_ADMIN_CONNECTIONS, Some(USER_TIMEOUT)).await?;
        let metrics = PrometheusBuilder::new().install_recorder()?;
        eprintln!("session-memory: admin on http://{}", listener.address()?);
        let admin = Arc::new(Admin::new(Arc::clone(store), durability, metrics, draining.clone()));
        tasks.spawn(admin.serve(listener, stop.clone()));
    }
    tasks.close();
    Ok(tasks)
}

/// Prints the ready line, and the warnings that an operator should read before it.
fn announce(
    config: &Config,
    listener: &Listener,
    store: &dyn DynHistoryStore,
    durability: Durability,
) -> Result<(), BoxError> {
    let address = listener.address()?;
    if durability == Durability::Unknown {
        eprintln!(
            "session-memory: WARNING: store={} does not tell what an acknowledged turn survives: its user may not \
             read the server's settings",
            store.name_dyn()
        );
    }
    match &config.settings.store {
        StoreUrl::Memory => eprintln!(
            "session-memory: WARNING: store=memory: every conversation is FORGOTTEN when this process ends"
        ),
        StoreUrl::Redis(..) if durability == Durability::None => eprintln!(
            "session-memory: WARNING: store=redis without an append-only file, or with a maxmemory-policy that \
             removes sessions: every conversation is FORGOTTEN when that server ends or its memory runs out"
        ),
        StoreUrl::Postgres(_) if durability == Durability::None => eprintln!(
            "session-memory: WARNING: store=postgres with synchronous_commit = off: \
             the newest turns are LOST when that server ends"
        ),
        StoreUrl::Postgres(_) | StoreUrl::Redis(..) | StoreUrl::Sqlite(_) => {}
    }
    if !address.ip().is_loopback() {
        eprintln!(
            "session-memory: WARNING: {address} is not loopback, and this listener speaks plain HTTP: \
             put a TLS terminator in front of it"
        );
    }
    eprintln!(
        "session-memory: listening on http://{address} -> {} store={} durability={durability}",
        config.upstream.show(),
        store.name_dyn()
    );
    Ok(())
}
