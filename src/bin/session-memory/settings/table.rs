//! Every setting, once.
//!
//! The table below makes the TOML file's keys, the flags, the environment variables, the output of `check` and the
//! README's table. A new setting is one entry here, and one use of the field of its name.

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, time::Duration};

use bytesize::ByteSize;
use http::HeaderName;
use tower_session_memory::{
    OnAppendError, OnDisconnect, OnLoadError, OnMissing, history::Instructions,
    protocol::openai_chat::OpenAiChat, store::Durability,
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
        pub(crate) struct File {
            $($(#[serde(default, deserialize_with = "from_toml")] $name: Option<$type>,)+)+
        }

        impl Settings {
            /// # Errors
            ///
            /// [`SettingsError::Value`], which names the flag or the variable.
            pub(super) fn resolve(file: File, pick: &Pick<'_>) -> Result<Self, SettingsError> {
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
    "Where requests go" {
        /// The server that answers, http or https. A path is put in front of every request's own path.
        upstream: Option<UpstreamUrl> = "none",
        /// PEM file with certificates that are trusted for the upstream besides the system's own.
        upstream_ca: Option<PathBuf> = "none",
        /// Send the client's Host header instead of the upstream's. An https upstream is then spoken to in HTTP/1.1.
        preserve_host: bool = "false",
        /// Append the client to X-Forwarded-For and set X-Forwarded-Proto and X-Forwarded-Host.
        forwarded_headers: bool = "false",
        /// Where clients connect. Plain HTTP/1.1 and HTTP/2 (prior knowledge): put a TLS terminator in front
        /// of anything but loopback. Port 0 takes a free one.
        listen: Listen = "127.0.0.1:8080",
        /// Where /healthz, /readyz and /metrics are answered.
        admin: Option<SocketAddr> = "none",
    }
    "Where conversations are kept" {
        /// `sqlite:PATH`, the URL of a Redis or a PostgreSQL, or `memory`, which forgets when the process ends.
        /// Flags are seen by every user of the machine: give a password in the file or the environment.
        store: StoreUrl = "sqlite:session-memory.db",
        /// The PostgreSQL schema that holds the tables.
        store_schema: String = "session_memory",
        /// Whether `serve` makes and migrates the tables in PostgreSQL; if not, `session-memory migrate` does.
        store_migrate: bool = "true",
        /// Whether PostgreSQL stands behind a pooler in transaction mode, such as PgBouncer's.
        store_pooler: bool = "false",
        /// The most that the store `memory` holds; past it the sessions that rested longest go.
        max_memory: ByteSize = "256 MiB",
        /// Refuse to start if an acknowledged turn survives less than this.
        require_durability: Durability = "none",
        /// Keeps deployments that share a store apart.
        namespace: String = "default",
        /// A session expires so long after its last turn.
        session_ttl: Option<Duration> = "30days",
        /// Whether reading a session counts as use, too.
        session_ttl_on_load: bool = "false",
        /// The newest turns of a session that are kept; instructions that older ones brought are forgotten with them.
        max_turns: Option<NonZeroUsize> = "none",
        /// Memory for sessions that were loaded lately: of these only the newest turns are read from the store.
        /// Not used with `memory`.
        cache_bytes: Option<ByteSize> = "128 MiB",
        /// Compress new turns (zstd). Compressed ones are read either way.
        compress: bool = "false",
        /// File with the keys that encrypt turns, one a line, an id and 32 random bytes in base64: the first
        /// encrypts, all decrypt. Or set SESSION_MEMORY_ENCRYPTION_KEY.
        encryption_key_file: Option<PathBuf> = "none",
        /// Read turns that are not encrypted, too: while a store that has some is taken over.
        encryption_accept_plain: bool = "false",
    }
    "Who is talking" {
        /// Request headers that may carry the session id; the first that does counts. Some clients have their
        /// own: x-openwebui-chat-id (Open WebUI), x-litellm-session-id (LiteLLM), helicone-session-id (Helicone).
        session_header: Vec<HeaderName> = "x-session-id",
        /// Cookie that may carry the session id, if no header does. It is signed if there is a cookie secret.
        session_cookie: Option<String> = "none",
        /// File with the secrets that sign session cookies, one a line, 32 bytes or more each: the first
        /// signs, all verify. Or set SESSION_MEMORY_COOKIE_SECRET.
        cookie_secret_file: Option<PathBuf> = "none",
        /// Mark session cookies `Secure`. Only for clients that speak plain HTTP set it to false.
        cookie_secure: bool = "true",
        /// A request without a session id: `pass` it untouched, `issue` an id, or `reject` it.
        missing_session: OnMissing = "pass",
        /// Whose session it is: `credential` (a digest of authorization, x-api-key or api-key),
        /// `header:NAME`, or `none`.
        principal: PrincipalFrom = "credential",
        /// File with the secret that keys the digest of credentials, 32 bytes or more. Or set
        /// SESSION_MEMORY_PRINCIPAL_SECRET.
        principal_secret_file: Option<PathBuf> = "none",
        /// Origins that may use a session cookie across sites.
        trusted_origins: Vec<Origin> = "none",
        /// Header in which the upstream is told the session id.
        forward_session_id: Option<HeaderName> = "none",
    }
    "What is remembered" {
        /// A POST to a path that ends so is a chat.
        paths: Vec<PathSuffix> = OpenAiChat::PATH_SUFFIX,
        /// `remember` the newest instructions of a session, or take only those that the `client` sends.
        instructions: Instructions = "remember",
        /// The newest turns that the upstream is shown.
        window_turns: Option<NonZeroUsize> = "256",
        /// The most history that the upstream is shown.
        window_bytes: Option<ByteSize> = "512 KiB",
        /// Take a stream that ends in [DONE] as whole although it named no finish reason.
        accept_done_without_finish_reason: bool = "false",
    }
    "When something fails" {
        /// A session that cannot be loaded: `reject` the request, or `bypass` memory.
        on_load_error: OnLoadError = "reject",
        /// A turn that cannot be stored in time: `deliver` the reply's end all the same, or `cut` it.
        on_append_error: OnAppendError = "deliver",
        /// A client that leaves: `keep` what it was sent, `discard` the turn, or `drain` the upstream.
        on_disconnect: OnDisconnect = "keep",
        /// How long a load may take.
        load_timeout: Duration = "1s",
        /// How long the end of a reply waits for its turn to be stored.
        commit_wait: Duration = "2s",
        /// How long one attempt to store a turn may take; then the same turn is sent again.
        append_attempt: Duration = "5s",
        /// How long a turn that could not be stored is tried again.
        append_retry: Duration = "1min",
        /// How many turns may wait to be stored.
        append_queue_turns: NonZeroUsize = "1024",
        /// How much may wait to be stored.
        append_queue_bytes: ByteSize = "64 MiB",
    }
    "Limits" {
        /// The largest request body with a session.
        max_request_body: ByteSize = "32 MiB",
        /// The largest reply that is recorded; a larger one passes, unrecorded.
        max_reply: ByteSize = "8 MiB",
        /// The largest event of a stream that is recorded.
        max_event: ByteSize = "4 MiB",
        /// The most history that is put into a request. A single turn that is larger is not recorded.
        max_history: ByteSize = "32 MiB",
        /// Requests that are answered at once; more are refused with 503. Below `max_connections`, so that who is
        /// refused is told so, and does not wait to be accepted.
        max_requests: NonZeroUsize = "2048",
        /// The most that request bodies with a session take at once, all together; past it they are refused with 503.
        /// One that comes compressed counts twice, as it came and decoded.
        max_buffered: ByteSize = "512 MiB",
        /// Connections at once; more wait to be accepted.
        max_connections: NonZeroUsize = "4096",
        /// Threads that serve connections; each connection stays on one of them.
        worker_threads: Threads = "cores",
    }
    "Timeouts" {
        /// To look up, reach and greet the upstream.
        connect_timeout: Duration = "5s",
        /// From a request to the head of its reply. Long generations that are not streamed count.
        head_timeout: Option<Duration> = "15min",
        /// Between two pieces of a reply; past it the reply is cut.
        idle_timeout: Option<Duration> = "5min",
        /// To receive a request's head.
        header_read_timeout: Duration = "10s",
        /// Between two requests of a client's connection.
        keep_alive_timeout: Duration = "75s",
        /// Between two pieces of a request's body.
        body_read_timeout: Option<Duration> = "30s",
        /// To receive a request's body, if it has a session.
        body_deadline: Option<Duration> = "10min",
        /// For which a client may take nothing of a reply that is ready (over HTTP/2: less than 16 KiB of a stream); past it the reply is cut.
        send_timeout: Option<Duration> = "1min",
        /// On SIGTERM or SIGINT, to finish replies; then they are cut.
        drain_deadline: Duration = "30s",
    }
    "Logs" {
        /// `text` or `json`, on stderr.
        log_format: LogFormat = "text",
        /// What is logged, in the form of RUST_LOG, which is read if this is not set.
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
