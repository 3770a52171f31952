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
//!         InMemoryStore::new().with_retention(options.retention)
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
mod erasure;
mod expiry;
mod fixture;
mod keys;
mod listing;
mod load;
mod principals;
mod read;
mod records;
mod trim;

use std::{future::Future, time::Duration};

use crate::store::{HistoryStore, Retention};

/// Makes the stores that the checks are run on.
pub trait Harness: Send + Sync {
    /// The store, or the wrapper, that is checked.
    type Store: HistoryStore + 'static;

    /// A store with these settings. It need not be empty. A check may ask for several, one after the other.
    fn store(&self, options: &Options) -> impl Future<Output = Self::Store> + Send;

    /// Lets this time pass for the store, a few seconds at most. Sleeps, unless the store has a clock that
    /// can be moved.
    fn pass(&self, time: Duration) -> impl Future<Output = ()> + Send {
        tokio::time::sleep(time)
    }
}

/// What a check needs a store to be set to; everything else is the harness's choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// How long sessions are kept, and how much of each.
    pub retention: Retention,
}

impl From<Retention> for Options {
    fn from(retention: Retention) -> Self {
        Self { retention }
    }
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
            read a_log_is_read_page_by_page_from_any_place
            read a_page_is_bounded_in_bytes_and_holds_at_least_one_record
            read a_read_after_trimming_begins_with_the_oldest_record_that_is_kept
            read a_read_of_what_is_not_there_is_an_empty_page
            append a_turn_that_is_sent_twice_is_stored_once
            append the_same_turn_sent_at_once_is_stored_once
            append first_turns_that_race_share_one_log
            append concurrent_turns_of_a_session_are_all_stored_in_one_order
            append a_branch_and_a_new_root_keep_their_parents
            append a_turn_whose_parent_is_not_in_the_log_is_gone
            append a_turn_of_another_session_is_refused
            append the_store_names_itself_and_its_durability
            append a_store_can_be_closed_more_than_once
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
            trim a_log_past_its_bytes_loses_its_oldest_turns
            trim a_turn_that_is_larger_than_the_bound_is_kept_alone
            trim half_a_tool_exchange_is_never_kept
            listing sessions_are_listed_from_the_newest_page_by_page
            listing a_turn_moves_its_session_to_the_front
            listing a_session_that_moves_while_pages_are_read_is_never_listed_twice
            listing deleted_sessions_are_not_listed
            listing a_listing_is_of_one_principal_in_one_namespace
            listing a_page_that_no_listing_named_is_an_error
            listing a_listing_describes_each_session
            principals principals_are_listed_from_the_most_recently_active_page_by_page
            principals a_turn_moves_its_principal_to_the_front
            principals a_principal_without_sessions_is_not_listed
            principals a_principal_whose_sessions_expired_is_not_listed
            principals principals_of_another_namespace_are_not_listed
            principals a_page_of_principals_that_no_listing_named_is_an_error
            erasure a_principal_is_erased_whole_and_no_other
            erasure what_was_erased_stays_erased
            erasure an_erasure_goes_in_bounded_steps
            erasure an_erasure_begun_anew_at_each_step_ends_as_well
            erasure an_erasure_that_is_dropped_on_the_way_harms_no_other_session
            erasure old_sessions_are_erased_and_young_ones_stay
            erasure a_session_that_was_erased_by_age_starts_a_new_log
            erasure an_expiry_by_age_goes_in_bounded_steps
            erasure an_expiry_that_is_dropped_on_the_way_harms_no_young_session
            erasure a_step_that_no_step_named_is_an_error
            keys keys_that_look_alike_are_different_sessions
            keys another_principal_cannot_reach_a_session
            records records_come_back_byte_for_byte
            records what_a_newer_version_recorded_is_kept
            records what_a_newer_version_recorded_survives_trimming
            records a_record_of_an_unknown_kind_is_kept
            records a_record_of_eight_mebibytes_is_stored_whole
            cancel calls_that_are_dropped_disturb_no_other
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
