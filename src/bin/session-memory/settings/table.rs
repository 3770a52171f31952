//! Every setting, once.
//!
//! The table below makes the TOML file's keys, the flags, the environment variables, the output of `check` and the
//! README's table. A new setting is one entry here, and one use of the field of its name.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use http::HeaderName;
use tower_session_memory::{
    Instructions, OnAppendError, OnDisconnect, OnLoadError, OnMissing, protocol::openai_chat::OpenAiChat,
    store::Durability,
};

use super::{
    pick::{Pick, SetBy, SettingsError, from_toml},
    place::{Listen, Origin, PathSuffix, StoreUrl, UpstreamUrl},
    row::Row,
    value::{Filter, LogFormat, PrincipalFrom, Threads, Value},
};

macro_rules! settings {
    ($($group:literal { $($(#[doc = $help:literal])+ $name:ident: $type:ty = $default:expr,)+ })+) => {
        /// The table, in the order in which it is shown.
        pub(super) const TABLE: &[Row] = &[$($(Row {
            group: $group,
            name: stringify!($name),
            placeholder: <$type as Value>::PLACEHOLDER,
            default: $default,
            help: concat!($($help),+),
        }),+),+];

        /// The settings in force, and the source of each.
        pub(crate) struct Settings {
            $($(pub(crate) $name: $type,)+)+
            sources: Vec<SetBy>,
        }

        /// A configuration file.
        #[derive(Default, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub(crate) struct ConfigFile {
            $($(#[serde(default, deserialize_with = "from_toml")] $name: Option<$type>,)+)+
        }

        impl Settings {
            /// # Errors
            ///
            /// [`SettingsError::Value`], which names the flag or the variable.
            pub(super) fn resolve(file: ConfigFile, pick: &Pick<'_>) -> Result<Self, SettingsError> {
                let mut sources = Vec::with_capacity(TABLE.len());
                $($(let $name = pick.one(stringify!($name), $default, file.$name, &mut sources)?;)+)+
                Ok(Self { $($($name,)+)+ sources })
            }

            /// Each value as it would be written in a file, with its source, in the table's order.
            pub(super) fn shown(&self) -> impl Iterator<Item = (&'static Row, String, SetBy)> {
                let values = vec![$($(self.$name.show()),+),+];
                TABLE.iter().zip(values).zip(&self.sources).map(|((row, value), source)| (row, value, *source))
            }
        }
    };
}

settings! {
    "The upstream and the listeners" {
        /// URL of the server that answers, http or https. Its path is put before each request's own path.
        upstream: Option<UpstreamUrl> = "none",
        /// PEM file with certificates to trust for the upstream besides the system's own.
        upstream_ca: Option<PathBuf> = "none",
        /// Sends the client's Host header instead of the upstream's. An https upstream is then asked in HTTP/1.1.
        preserve_host: bool = "false",
        /// Appends the client to X-Forwarded-For, and sets X-Forwarded-Proto and X-Forwarded-Host.
        forwarded_headers: bool = "false",
        /// Address for clients: plain HTTP/1.1 and HTTP/2 (prior knowledge). Put a TLS terminator in front of any
        /// address but loopback. Port 0 takes a free port.
        listen: Listen = "127.0.0.1:8080",
        /// Address of /healthz, /readyz and /metrics.
        admin: Option<SocketAddr> = "none",
    }
    "The store" {
        /// `sqlite:PATH`, the URL of a Redis or a PostgreSQL, or `memory`, which forgets when the process ends.
        /// Flags are seen by every user of the machine: give a password in the file or the environment.
        store: StoreUrl = "sqlite:session-memory.db",
        /// PostgreSQL schema that holds the tables.
        store_schema: String = "session_memory",
        /// Whether `serve` creates and migrates the tables in PostgreSQL. If not, run `session-memory migrate`.
        store_migrate: bool = "true",
        /// Whether PostgreSQL stands behind a pooler in transaction mode, such as PgBouncer's.
        store_pooler: bool = "false",
        /// Size of the store `memory`; beyond it, the sessions unused for longest are dropped.
        max_memory: ByteSize = "256 MiB",
        /// Refuses to start if an acknowledged turn survives less than this level.
        require_durability: Durability = "none",
        /// Name that keeps deployments with one store apart.
        namespace: String = "default",
        /// Time from a session's last turn to its expiry.
        session_ttl: Option<Duration> = "30days",
        /// Whether reading a session postpones its expiry, too.
        session_ttl_on_load: bool = "false",
        /// Number of a session's newest turns that are kept. Instructions of older turns are forgotten with these.
        max_turns: Option<NonZeroUsize> = "none",
        /// Size of a session's turns in the store; beyond it, the oldest go, tool exchanges as a whole.
        max_log: Option<ByteSize> = "32 MiB",
        /// Size of the cache of sessions: only the newest turns of a cached session are read from the store. Not used
        /// with `memory`.
        cache_bytes: Option<ByteSize> = "128 MiB",
        /// Compresses new turns (zstd). Compressed turns are read either way.
        compress: bool = "false",
        /// File with the keys that encrypt turns, one a line, an id and 32 random bytes in base64: the first
        /// encrypts, all decrypt. Or set SESSION_MEMORY_ENCRYPTION_KEY.
        encryption_key_file: Option<PathBuf> = "none",
        /// Reads turns that are not encrypted, too, while a store with such turns is taken over.
        encryption_accept_plain: bool = "false",
    }
    "Sessions and their owners" {
        /// Request headers that may carry the session id; the first one that does counts. Headers of known clients:
        /// x-openwebui-chat-id (Open WebUI), x-litellm-session-id (LiteLLM), helicone-session-id (Helicone).
        session_header: Vec<HeaderName> = "x-session-id",
        /// Cookie that may carry the session id, if no header does. A cookie secret makes it signed.
        session_cookie: Option<String> = "none",
        /// File with the secrets that sign session cookies, one a line, 32 bytes or more each: the first
        /// signs, all verify. Or set SESSION_MEMORY_COOKIE_SECRET.
        cookie_secret_file: Option<PathBuf> = "none",
        /// Marks session cookies `Secure`. Set it to false only for clients that speak plain HTTP.
        cookie_secure: bool = "true",
        /// A request without a session id: `pass` it untouched, `issue` an id, or `reject` it.
        missing_session: OnMissing = "pass",
        /// Owner of a session: `credential` (a digest of authorization, x-api-key or api-key), `header:NAME`, or `none`
        /// (shared by all clients).
        principal: PrincipalFrom = "credential",
        /// File with the secret that keys the digest of credentials, 32 bytes or more. Or set
        /// SESSION_MEMORY_PRINCIPAL_SECRET.
        principal_secret_file: Option<PathBuf> = "none",
        /// Origins that may use a session cookie across sites.
        trusted_origins: Vec<Origin> = "none",
        /// Header that carries the session id to the upstream.
        forward_session_id: Option<HeaderName> = "none",
    }
    "What is remembered" {
        /// Ends of the paths that are chats, if the method is POST.
        paths: Vec<PathSuffix> = OpenAiChat::PATH_SUFFIX,
        /// `remember` the newest instructions of a session, or use only those that the `client` sends.
        instructions: Instructions = "remember",
        /// Number of the newest turns that the upstream sees.
        window_turns: Option<NonZeroUsize> = "256",
        /// Size of the history that the upstream sees, at most.
        window_bytes: Option<ByteSize> = "512 KiB",
        /// Takes a stream that ends in [DONE] as complete although it names no finish reason.
        accept_done_without_finish_reason: bool = "false",
    }
    "When something fails" {
        /// A session that cannot be loaded: `reject` the request, or `bypass` memory.
        on_load_error: OnLoadError = "reject",
        /// A turn that cannot be stored in time: `deliver` the reply's end all the same, or `cut` it.
        on_append_error: OnAppendError = "deliver",
        /// A client that leaves: `keep` what it was sent, `discard` the turn, or `drain` the upstream.
        on_disconnect: OnDisconnect = "keep",
        /// Limit of a load.
        load_timeout: Duration = "1s",
        /// Limit for which the end of a reply waits for its turn to be stored.
        commit_wait: Duration = "2s",
        /// Limit of one attempt to store a turn; beyond it, the same turn is sent again.
        append_attempt: Duration = "5s",
        /// Time for which a turn that could not be stored is sent again.
        append_retry: Duration = "1min",
        /// Number of turns that may wait to be stored.
        append_queue_turns: NonZeroUsize = "1024",
        /// Size of the turns that may wait to be stored.
        append_queue_bytes: ByteSize = "64 MiB",
    }
    "Limits" {
        /// Largest request body with a session.
        max_request_body: ByteSize = "32 MiB",
        /// Largest reply that is recorded; a larger one passes unrecorded.
        max_reply: ByteSize = "8 MiB",
        /// Largest event of a stream that is recorded.
        max_event: ByteSize = "4 MiB",
        /// Largest history that is inserted into a request. A single turn that is larger is not recorded.
        max_history: ByteSize = "32 MiB",
        /// Number of requests at once; more are refused with 503. Keep it below `max_connections`, so that a client
        /// beyond the limit is refused instead of waiting to be accepted.
        max_requests: NonZeroUsize = "2048",
        /// Size of all request bodies with a session together; beyond it, requests are refused with 503. A compressed
        /// body counts twice, as it came and decoded.
        max_buffered: ByteSize = "512 MiB",
        /// Number of connections at once; more wait to be accepted.
        max_connections: NonZeroUsize = "4096",
        /// Number of threads that serve connections; each connection stays on one thread.
        worker_threads: Threads = "cores",
    }
    "Timeouts" {
        /// To look up the upstream's name, and to connect, with TLS.
        connect_timeout: Duration = "5s",
        /// From a request to the head of its reply. A reply that is not streamed must be generated within this time.
        head_timeout: Option<Duration> = "15min",
        /// Between two pieces of a reply; beyond it, the reply is cut.
        idle_timeout: Option<Duration> = "5min",
        /// To receive a request's head.
        header_read_timeout: Duration = "10s",
        /// Between two requests of a client's connection.
        keep_alive_timeout: Duration = "75s",
        /// Between two pieces of a request's body.
        body_read_timeout: Option<Duration> = "30s",
        /// To receive a request's body, if it has a session.
        body_deadline: Option<Duration> = "10min",
        /// For which a client may take nothing of a reply (over HTTP/2: less than 16 KiB of a stream); beyond it, the
        /// reply is cut.
        send_timeout: Option<Duration> = "1min",
        /// On SIGTERM or SIGINT, to finish replies; beyond it, they are cut.
        drain_deadline: Duration = "30s",
    }
    "Logs" {
        /// `text` or `json`, on stderr.
        log_format: LogFormat = "text",
        /// Filter of log lines, in the form of RUST_LOG, which is read if this is not set.
        log: Filter = "info",
    }
}

#[cfg(test)]
mod tests {
    use tower_session_memory::session::PrincipalPolicy;

    use super::*;

    #[test]
    fn every_setting_has_a_group_and_a_sentence() {
        for row in TABLE {
            assert!(row.help.trim_end().ends_with('.'), "the help of {} is no sentence", row.name);
            assert!(!row.placeholder.is_empty(), "{} does not say what it takes", row.name);
        }
    }

    #[test]
    fn help_names_every_header_that_may_carry_a_credential() {
        let principal = TABLE.iter().find(|row| row.name == "principal").map_or("", |row| row.help);
        for header in PrincipalPolicy::credential().headers() {
            assert!(principal.contains(header.as_str()), "{header} is not named");
        }
    }
}
