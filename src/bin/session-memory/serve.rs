//! `serve`: build, listen, serve, drain.

use std::{process::ExitCode, sync::Arc};

use http::{HeaderName, header};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Layer;
use tower_session_memory::store::{Durability, DynHistoryStore};

use crate::{
    BoxError,
    admin::{self, Admin},
    admission::Admission,
    config::Config,
    connection::{Replies, Server},
    drain::{self, Signals, Work},
    gate::Gate,
    layer,
    listen::Listener,
    settings::{PrincipalFrom, Settings, StoreUrl, Value},
    store,
    upstream::{Forward, USER_TIMEOUT},
    workers::Workers,
};

/// Runs the proxy until a signal ends it.
///
/// # Errors
///
/// When the start fails: the store, an address, a certificate.
pub(crate) fn run(config: Config) -> Result<ExitCode, BoxError> {
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
    let opened = store::open(settings, &config.secrets, Some(&workers)).await?;
    let store = Arc::clone(&opened.store);
    let durability = store.durability_dyn().await?;
    let memory = layer::memory(&config, Arc::clone(&store))?;
    let apps = (0..workers.count()).map(|_| Ok(memory.layer(Forward::new(&config, work.clone())?)));
    let apps = apps.collect::<Result<Vec<_>, BoxError>>()?;
    let listener =
        Listener::bind(&settings.listen.0, settings.max_connections.get(), settings.send_timeout).await?;
    let admin_stop = CancellationToken::new();
    let admin = start_admin(&config, &store, durability, &work.draining, &admin_stop).await?;
    let server = Arc::new(Server {
        apps,
        workers,
        gate: gate(settings),
        admission: Admission::new(settings.max_requests),
        replies: Replies::new(),
        body_read_timeout: settings.body_read_timeout,
        header_read_timeout: settings.header_read_timeout,
        keep_alive_timeout: settings.keep_alive_timeout,
        send_timeout: settings.send_timeout,
        work: work.clone(),
    });

    announce(&config, &listener, &*store, durability)?;
    let name = tokio::select! {
        () = accept(&listener, &server) => "the listener",
        name = signals.next() => name,
    };
    work.draining.cancel();
    drop(listener);
    eprintln!("session-memory: {name}: finishing what has begun, within {:?}", settings.drain_deadline);
    let code = drain::drain(&work, &memory.commits(), settings.drain_deadline, &mut signals).await;
    admin_stop.cancel();
    admin.wait().await;
    opened.close().await;
    drop(memory);
    if let Some(server) = Arc::into_inner(server) {
        server.workers.stop();
    }
    Ok(code)
}

fn gate(settings: &Settings) -> Gate {
    let mut deciding = vec![
        header::AUTHORIZATION,
        HeaderName::from_static("x-api-key"),
        HeaderName::from_static("api-key"),
        header::COOKIE,
        HeaderName::from_static("session-memory"),
    ];
    deciding.extend(settings.session_header.iter().cloned());
    if let PrincipalFrom::Header(name) = &settings.principal {
        deciding.push(name.clone());
    }
    Gate { suffixes: settings.paths.iter().map(|suffix| suffix.0.clone()).collect(), deciding }
}

async fn accept(listener: &Listener, server: &Arc<Server>) {
    while let Some(accepted) = listener.accept(&server.work.draining).await {
        server.serve(accepted);
    }
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
            Listener::bind(&address.to_string(), admin::MAX_CONNECTIONS, Some(USER_TIMEOUT)).await?;
        let metrics = PrometheusBuilder::new().install_recorder()?;
        eprintln!("session-memory: admin on http://{}", listener.address()?);
        let admin = Arc::new(Admin::new(Arc::clone(store), durability, metrics, draining.clone()));
        tasks.spawn(admin.serve(listener, stop.clone()));
    }
    tasks.close();
    Ok(tasks)
}

/// The ready line, and what the operator should know.
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
