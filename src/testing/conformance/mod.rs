//! What every store must do, as tests: one for each sentence of the contract in
//! [`HistoryStore`].
//!
//! A crate that brings a store, or a wrapper around one, implements [`Harness`] and writes one line; each check
//! is then a test of its own.
//!
//! ```
//! use tower_session_memory::{
//!     store::InMemoryStore,
//!     testing::conformance::{Harness, Options},
//! };
//!
//! struct InMemory;
//!
//! impl Harness for InMemory {
//!     type Store = InMemoryStore;
//!
//!     async fn store(&self, options: &Options) -> InMemoryStore {
//!         let mut store = InMemoryStore::new().with_ttl_refresh(options.ttl_refresh);
//!         if let Some(ttl) = options.ttl {
//!             store = store.with_ttl(ttl);
//!         }
//!         if let Some(turns) = options.max_turns {
//!             store = store.with_max_turns(turns);
//!         }
//!         store
//!     }
//! }
//!
//! tower_session_memory::conformance_tests!(InMemory);
//! # // The macro makes `#[test]`s, which a doctest does not run.
//! # tower_session_memory::testing::conformance::run("an_unknown_session_is_empty", &InMemory);
//! ```
//!
//! A check fails by panicking. It uses a namespace of its own, so that stores may share a server.

#![expect(clippy::expect_used, reason = "a check fails by panicking")]

mod append;
mod cancel;
mod delete;
mod expiry;
mod fixture;
mod keys;
mod listing;
mod load;
mod records;
mod trim;

use std::{future::Future, num::NonZeroUsize, time::Duration};

use crate::store::{HistoryStore, TtlRefresh};

/// Makes the stores that the checks are run on.
pub trait Harness: Send + Sync {
    /// The store, or the wrapper, that is checked.
    type Store: HistoryStore;

    /// A store with these settings. It need not be empty. A check may ask for several, one after the other.
    fn store(&self, options: &Options) -> impl Future<Output = Self::Store> + Send;

    /// Lets so much time pass for the store, a few seconds at most. Sleeps, unless the store has a clock that
    /// can be moved.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

/// What a check needs a store to be set to; everything else is the harness's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// When sessions expire; `None`: not while the check runs.
    pub ttl: Option<Duration>,
    /// Whether a load puts the expiry off.
    pub ttl_refresh: TtlRefresh,
    /// How many turns of a session are kept; `None`: all.
    pub max_turns: Option<NonZeroUsize>,
}

/// Makes one `#[test]` of each check. The argument is an expression that makes the [`Harness`]; it is
/// evaluated once for each test.
#[macro_export]
macro_rules! conformance_tests {
    ($harness:expr) => {
        $crate::__conformance_checks! { __conformance_tests ($harness) }
    };
}

/// Calls a macro of this crate with its arguments and the list of all checks.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_checks {
    ($macro:ident ($($argument:tt)*)) => {
        $crate::$macro! { ($($argument)*)
            load an_unknown_session_is_empty
            load turns_come_back_in_the_order_of_their_commits
            load an_acknowledged_turn_is_in_every_later_load
            load a_load_after_a_cursor_holds_only_what_came_after_it
            load a_cursor_that_says_nothing_here_starts_over
            append a_turn_that_is_sent_twice_is_stored_once
            append the_same_turn_sent_at_once_is_stored_once
            append first_turns_that_race_share_one_log
            append concurrent_turns_of_a_session_are_all_stored_in_one_order
            append a_branch_and_a_new_root_keep_their_parents
            append a_turn_whose_parent_is_not_in_the_log_is_gone
            append a_turn_of_another_session_is_refused
            append the_store_names_itself_and_its_durability
            delete a_deleted_session_is_empty_and_takes_new_turns
            delete deleting_what_is_not_there_is_fine
            delete a_turn_in_flight_does_not_resurrect_its_session
            delete a_first_turn_in_flight_does_not_resurrect_its_session
            delete a_turn_in_flight_does_not_join_the_session_that_came_after
            delete a_deletion_amid_appends_leaves_nothing_of_what_was_before
            expiry an_expired_session_is_unknown
            expiry an_expired_session_starts_a_new_log
            expiry a_branch_of_an_expired_session_is_gone
            expiry every_append_puts_the_expiry_of_the_whole_session_off
            expiry a_load_puts_the_expiry_off_where_it_is_asked_to
            expiry a_load_does_not_put_the_expiry_off_by_itself
            trim only_the_newest_turns_are_kept
            trim a_turn_that_was_trimmed_is_not_stored_again
            listing sessions_are_listed_from_the_newest_page_by_page
            listing a_turn_moves_its_session_to_the_front
            listing a_session_that_moves_while_pages_are_read_is_never_listed_twice
            listing deleted_sessions_are_not_listed
            listing a_listing_is_of_one_principal_in_one_namespace
            listing a_page_that_no_listing_named_is_an_error
            keys keys_that_look_alike_are_different_sessions
            keys another_principal_cannot_reach_a_session
            records records_come_back_byte_for_byte
            records what_a_newer_version_recorded_is_kept
            records what_a_newer_version_recorded_survives_trimming
            records a_record_of_an_unknown_kind_is_kept
            records a_record_of_eight_mebibytes_is_stored_whole
            cancel calls_that_are_dropped_disturb_nobody
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    (($harness:expr) $($file:ident $check:ident)*) => {
        $(
            #[test]
            fn $check() {
                $crate::testing::conformance::run(stringify!($check), &$harness);
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_table {
    (() $($file:ident $check:ident)*) => {
        /// The names of all checks.
        pub const CHECKS: &[&str] = &[$(stringify!($check)),*];

        /// Runs the check of this name, one of [`CHECKS`], on a runtime of its own.
        ///
        /// # Panics
        ///
        /// When the store does not do what the check is named after; when there is no such check.
        pub fn run<H: Harness>(check: &str, harness: &H) {
            match check {
                $(stringify!($check) => block_on($file::$check(harness)),)*
                unknown => panic!("there is no check named {unknown}"),
            }
        }
    };
}

crate::__conformance_checks! { __conformance_table () }

fn block_on(check: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime starts")
        .block_on(check);
}
