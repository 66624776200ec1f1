//! PostgreSQL's own functions and views that are not what their volatility says, compiled in.
//!
//! From every volatile function of `pg_catalog` in PostgreSQL 15 to 18, and the stable ones that are not what they
//! seem. A `*` stands for any characters.

use std::collections::HashMap;

/// What a function means for routing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Category {
    /// Volatile, and does no harm on a replica.
    Harmless,
    /// Writes, or works on the primary only.
    Writes,
    /// Depends on or changes the session's state, or runs SQL given as text.
    Session,
    /// Reads about the node itself, or acts on it.
    Node,
}

const PG_CATALOG: &[(Category, &str)] = &[
    (
        Category::Harmless,
        "random clock_timestamp timeofday gen_random_uuid pg_sleep pg_sleep_for pg_sleep_until pg_relation_size \
         pg_table_size pg_indexes_size pg_total_relation_size pg_database_size pg_tablespace_size pg_partition_tree \
         pg_partition_ancestors pg_collation_actual_version pg_database_collation_actual_version amvalidate \
         pg_xact_status txid_status pg_xact_commit_timestamp pg_xact_commit_timestamp_origin bernoulli system \
         pg_get_multixact_members pg_jit_available pg_stat_have_stats random_normal array_sample array_shuffle uuidv4 \
         uuidv7",
    ),
    (
        Category::Writes,
        "nextval setval pg_notify lo_creat lo_create lo_from_bytea lo_import lo_put lo_truncate lo_truncate64 \
         lo_unlink lowrite pg_logical_emit_message pg_create_restore_point pg_switch_wal pg_import_system_collations \
         brin_desummarize_range brin_summarize_new_values brin_summarize_range gin_clean_pending_list pg_nextoid \
         pg_stop_making_pinned_objects pg_extension_config_dump pg_replication_origin_* pg_current_wal_lsn \
         pg_current_wal_insert_lsn pg_current_wal_flush_lsn pg_safe_snapshot_blocking_pids txid_current \
         pg_current_xact_id",
    ),
    (
        Category::Session,
        "currval lastval set_config setseed pg_advisory_* pg_try_advisory_* pg_export_snapshot pg_stat_clear_snapshot \
         pg_stat_force_next_flush lo_open lo_close lo_lseek lo_lseek64 lo_tell lo_tell64 loread lo_get lo_export \
         cursor_to_xml cursor_to_xmlschema query_to_xml query_to_xml_and_xmlschema query_to_xmlschema ts_stat \
         ts_rewrite currtid2 current_query pg_sequence_last_value current_setting inet_client_* pg_backend_pid \
         pg_listening_channels pg_my_temp_schema pg_cursor pg_prepared_statement",
    ),
    (
        Category::Node,
        "pg_is_in_recovery pg_is_wal_replay_paused pg_get_wal_replay_pause_state pg_last_* pg_lock_status \
         pg_blocking_pids pg_isolation_test_session_is_blocked pg_prepared_xact pg_notification_queue_usage \
         pg_control_* pg_current_logfile pg_get_backend_memory_contexts pg_get_shmem_allocations \
         pg_get_wal_resource_managers pg_hba_file_rules pg_ident_file_mappings pg_show_all_file_settings \
         pg_show_replication_origin_status pg_ls_* pg_read_* pg_stat_file pg_stat_get_* pg_get_replication_slots \
         pg_postmaster_start_time pg_conf_load_time pg_show_all_settings pg_config pg_available_extension* \
         pg_timezone_* inet_server_* pg_current_snapshot txid_current_snapshot pg_current_xact_id_if_assigned \
         txid_current_if_assigned \
         pg_backup_start pg_backup_stop pg_start_backup pg_stop_backup pg_cancel_backend pg_terminate_backend \
         pg_log_backend_memory_contexts pg_promote pg_reload_conf pg_rotate_logfile* pg_wal_replay_pause \
         pg_wal_replay_resume pg_stat_reset* pg_create_*_replication_slot pg_copy_*_replication_slot \
         pg_drop_replication_slot pg_replication_slot_advance pg_logical_slot_* pg_log_standby_snapshot \
         pg_sync_replication_slots pg_clear_*_stats pg_restore_*_stats",
    ),
];

/// These live in whatever schema their extension was created in.
const CONTRIB: &[(Category, &str)] = &[
    (
        Category::Harmless,
        "gen_random_bytes gen_random_uuid gen_salt pgp_sym_encrypt pgp_sym_encrypt_bytea pgp_pub_encrypt pgp_pub_encrypt_bytea \
         uuid_generate_v1 uuid_generate_v1mc uuid_generate_v4 normal_rand",
    ),
    (
        Category::Session,
        "dblink* postgres_fdw_* set_limit ssl_is_used ssl_version ssl_cipher ssl_client_cert_present ssl_client_serial \
         ssl_client_dn ssl_issuer_dn ssl_client_dn_field ssl_issuer_field ssl_extension_info",
    ),
    (
        Category::Node,
        "pgstattuple* pgstatindex* pgstatginindex* pgstathashindex* pg_relpages* get_raw_page page_header \
         page_checksum heap_page_* bt_metap bt_page_* brin_metapage_info brin_page_* brin_revmap_data gin_metapage_info \
         gin_page_* gin_leafpage_items gist_page_* hash_metapage_info hash_page_* hash_bitmap_info fsm_page_contents \
         pg_buffercache* pg_prewarm autoprewarm_* pg_visibility* pg_truncate_visibility_map pg_check_frozen \
         pg_check_visible pg_file_* pg_logdir_ls pg_stat_statements*",
    ),
];

/// Views of `pg_catalog` that answer for the node or the session.
const NODE_RELATIONS: &str = "pg_stat_* pg_statio_* pg_locks pg_settings pg_cursors pg_prepared_statements \
    pg_prepared_xacts pg_replication_slots pg_replication_origin_status pg_sequences pg_config pg_file_settings \
    pg_hba_file_rules pg_ident_file_mappings pg_shmem_allocations pg_shmem_allocations_numa \
    pg_backend_memory_contexts pg_available_extensions pg_available_extension_versions pg_timezone_abbrevs \
    pg_timezone_names pg_wait_events pg_aios pg_buffercache*";

/// The lists above, ready for lookup.
#[derive(Debug)]
pub(super) struct Builtins {
    exact: HashMap<&'static str, Category, foldhash::fast::FixedState>,
    patterns: Vec<(&'static str, &'static str, Category)>,
}

impl Builtins {
    pub(super) fn new() -> Self {
        let mut builtins = Self { exact: HashMap::default(), patterns: Vec::new() };
        for (category, names) in PG_CATALOG.iter().chain(CONTRIB) {
            for name in names.split_whitespace() {
                match name.split_once('*') {
                    Some((prefix, suffix)) => builtins.patterns.push((prefix, suffix, *category)),
                    None => _ = builtins.exact.insert(name, *category),
                }
            }
        }
        builtins
    }

    /// The names that are no patterns.
    pub(super) fn exact(&self) -> impl Iterator<Item = (&'static str, Category)> {
        self.exact.iter().map(|(name, category)| (*name, *category))
    }

    pub(super) fn category(&self, name: &[u8]) -> Option<Category> {
        let name = str::from_utf8(name).ok()?;
        if let Some(category) = self.exact.get(name) {
            return Some(*category);
        }
        let fits = |(prefix, suffix, _): &&(&str, &str, Category)| matches(name, prefix, suffix);
        self.patterns.iter().find(fits).map(|(_, _, category)| *category)
    }

    pub(super) fn is_contrib(name: &str) -> bool {
        CONTRIB.iter().any(|(_, names)| is_listed(names, name))
    }

    pub(super) fn is_node_relation(name: &[u8]) -> bool {
        str::from_utf8(name).is_ok_and(|name| is_listed(NODE_RELATIONS, name))
    }
}

fn is_listed(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|listed| match listed.split_once('*') {
        Some((prefix, suffix)) => matches(name, prefix, suffix),
        None => listed == name,
    })
}

fn matches(name: &str, prefix: &str, suffix: &str) -> bool {
    name.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(suffix))
}

/// What SQL calls a type of `pg_catalog` besides its name.
pub(super) fn type_aliases(schema: &str, name: &str) -> &'static [&'static str] {
    match (schema, name) {
        ("pg_catalog", "int2") => &["smallint"],
        ("pg_catalog", "int4") => &["int", "integer"],
        ("pg_catalog", "int8") => &["bigint"],
        ("pg_catalog", "float4") => &["real", "float"],
        ("pg_catalog", "float8") => &["double", "float"],
        ("pg_catalog", "numeric") => &["decimal", "dec"],
        ("pg_catalog", "bool") => &["boolean"],
        ("pg_catalog", "varchar" | "bpchar") => &["character", "char", "nchar", "national"],
        ("pg_catalog", "timestamptz") => &["timestamp"],
        ("pg_catalog", "timetz") => &["time"],
        ("pg_catalog", "varbit") => &["bit"],
        _ => &[],
    }
}
