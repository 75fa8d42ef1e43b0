//! One suite of promises that both implementations of the change log keep.

#![allow(missing_docs)]

mod embedded_only;
mod foreign_headers;
mod kafka_broker;
mod kafka_failures;
mod kafka_only;
mod kafka_security;
mod kill;
mod record_headers;
mod suite;
mod test_log;

/// Makes each function of the suite a test of each implementation.
macro_rules! conformance {
    ($($module:ident::$name:ident,)*) => {
        mod embedded {
            $(#[test] fn $name() { super::$module::$name(&super::test_log::embedded(stringify!($name))); })*
        }
        mod kafka {
            $(#[test] fn $name() {
                if let Some(log) = super::test_log::kafka(stringify!($name)) { super::$module::$name(&log); }
            })*
        }
    };
}

conformance! {
    suite::records_of_a_topic_keep_their_order,
    suite::records_keep_key_value_and_time,
    record_headers::headers_come_back_in_order,
    record_headers::a_compacted_topic_takes_no_headers,
    suite::nothing_is_visible_before_the_commit,
    suite::uncommitted_records_of_a_dropped_writer_never_appear,
    suite::position_is_read_back_after_reopening,
    suite::position_alone_can_be_committed,
    suite::position_stands_in_its_topic,
    suite::a_second_writer_fences_the_first,
    suite::a_second_writer_fences_a_large_open_transaction,
    suite::readers_read_side_by_side,
    suite::a_hundred_thousand_records_arrive_once,
    suite::reading_goes_on_from_an_offset,
    suite::a_paused_topic_waits_and_loses_nothing,
    suite::topics_take_turns,
    suite::a_compacted_topic_keeps_the_last_record_of_each_key,
    suite::a_topic_that_does_not_exist_yet_can_be_waited_for,
    suite::an_offset_beyond_the_end_is_refused,
    suite::the_same_topic_gives_the_same_handle,
    suite::topics_are_listed_by_prefix,
    suite::a_topic_of_another_kind_is_refused,
    suite::acknowledging_is_harmless,
    kill::a_killed_writer_leaves_whole_commits,
}
