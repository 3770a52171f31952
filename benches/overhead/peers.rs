//! What people use today, each with one worker, its fastest event loop and nothing logged.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use crate::{error::BoxError, process::Process, python, servers};

/// The peers, for all of a run: they take half a minute to start.
pub(crate) struct Peers {
    pub(crate) litellm: Process,
    pub(crate) langchain: Process,
    pub(crate) agents: Process,
}

impl Peers {
    /// # Errors
    ///
    /// When they cannot be installed, or do not start.
    pub(crate) fn start(upstream: SocketAddr, redis: &str, directory: &Path) -> Result<Self, BoxError> {
        let programs = python::environment("peers")?;
        eprintln!("starting the peers");
        let app = |name: &str| {
            let port = servers::free_port().to_string();
            let mut command = Command::new(programs.join("uvicorn"));
            command.args([&format!("{name}_app:app"), "--app-dir"]).arg(python::source("peers"));
            command.args(["--port", &port, "--loop", "uvloop", "--http", "httptools"]);
            command.args(["--workers", "1", "--no-access-log", "--log-level", "error"]);
            command.env("BENCH_REDIS", redis).env("BENCH_UPSTREAM", format!("http://{upstream}/v1"));
            command.env("PYTHONDONTWRITEBYTECODE", "1").env("LANGCHAIN_TRACING_V2", "false");
            start(&command, name, &port, directory)
        };
        Ok(Self {
            litellm: litellm(upstream, &programs, directory)?,
            langchain: app("langchain")?,
            agents: app("agents")?,
        })
    }
}

/// The proxy alone: no database, no key, no cache, no retries.
fn litellm(upstream: SocketAddr, programs: &Path, directory: &Path) -> Result<Process, BoxError> {
    let file = directory.join("litellm.yaml");
    let settings = format!(
        "model_list:\n\
         - model_name: bench\n  litellm_params:\n    model: openai/bench\n    api_base: http://{upstream}/v1\n    \
         api_key: sk-bench\n\
         litellm_settings:\n  num_retries: 0\n  telemetry: false\n  set_verbose: false\n\
         router_settings:\n  num_retries: 0\n"
    );
    fs::write(&file, settings)?;
    let port = servers::free_port().to_string();
    let mut command = Command::new(programs.join("litellm"));
    command.arg("--config").arg(&file).args(["--host", "127.0.0.1", "--port", &port, "--num_workers", "1"]);
    command.args(["--telemetry", "False"]);
    // Its list of models' prices comes with it; otherwise it looks for a newer one at each start.
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
    // Only this benchmark can reach it, and asking for a key would cost it time.
    command.env("LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY", "true");
    command.env("LITELLM_MODE", "PRODUCTION");
    start(&command, "litellm", &port, directory)
}

fn start(command: &Command, name: &str, port: &str, directory: &Path) -> Result<Process, BoxError> {
    let address = format!("127.0.0.1:{port}").parse()?;
    Process::foreign(command, "KILL", address, &directory.join(format!("{name}.log")))
}
