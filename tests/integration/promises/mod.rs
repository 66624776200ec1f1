//! What the levels promise, sentence by sentence: settings, where reads go while replay stands still, tokens, failover.

mod failover;
mod rescue;
mod settings;
mod spill;
pub mod stage;
mod tokens;
mod visible;

use crate::harness::Test;

pub const TESTS: &[Test] = &[
    ("promises::settings_are_postgresql_s", settings::settings_are_postgresql_s),
    ("promises::settings_of_a_session_that_keeps_its_server", settings::settings_of_a_session_that_keeps_its_server),
    ("promises::settings_come_from_configuration_and_startup", settings::they_come_from_configuration_and_startup),
    ("promises::what_cannot_be_is_refused_at_login", settings::what_cannot_be_is_refused_at_login),
    ("promises::a_session_sees_what_it_has_written", visible::a_session_sees_what_it_has_written),
    ("promises::who_only_reads_asks_nothing", visible::who_only_reads_asks_nothing),
    ("promises::no_session_goes_back", visible::no_session_goes_back),
    ("promises::transactions_on_replicas", visible::transactions_on_replicas),
    ("promises::a_refusal_ends_a_pipeline", visible::a_refusal_ends_a_pipeline),
    ("promises::tokens_lead_to_other_proxies", tokens::tokens_lead_to_other_proxies),
    ("promises::bad_tokens_are_refused", tokens::bad_tokens_are_refused),
    ("promises::what_cannot_be_served_is_said", spill::what_cannot_be_served_is_said),
    ("promises::so_many_reads_spill", spill::so_many_reads_spill),
    ("promises::a_failover_is_told_once", failover::a_failover_is_told_once),
    ("promises::nothing_runs_twice", rescue::nothing_runs_twice),
    ("promises::a_long_read_behind_a_guard_is_not_waited_for", rescue::a_long_read_behind_a_guard_is_not_waited_for),
];
