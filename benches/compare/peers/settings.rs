//! Settings that make the peers comparable: SCRAM logins, 20 servers in a pool, two threads where there are threads.

use std::path::Path;

use causeway::app::demo::cluster::LocalNode;

use crate::Result;
use crate::cluster::Stage;

/// Names and texts of files, and the arguments of the program, whose working directory holds them.
pub type Settings = (Vec<(&'static str, String)>, Vec<&'static str>);

const POOL: usize = 20;
const WORKERS: usize = 2;

/// The most clients that any measurement may want, with some to spare.
const CLIENTS: usize = 20_000;

pub fn haproxy(stage: &Stage, port: u16) -> Settings {
    let text = format!(
        "global\n  nbthread {WORKERS}\n  maxconn 4000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen postgresql\n  bind 127.0.0.1:{port}\n  server primary 127.0.0.1:{}\n",
        stage.cluster.primary().port()
    );
    (vec![("haproxy.cfg", text)], vec!["-db", "-f", "haproxy.cfg"])
}

/// With the role's SCRAM verifier, as it is recommended: of a plain password it would derive a new one at each login.
/// What it needs to log in to the node, it learns from its clients' logins.
pub fn pgbouncer(stage: &Stage, port: u16, prepared: bool) -> Result<Settings> {
    let text = format!(
        "[databases]\n\
         * = host=127.0.0.1 port={primary}\n\
         [pgbouncer]\n\
         listen_addr = 127.0.0.1\n\
         listen_port = {port}\n\
         unix_socket_dir =\n\
         auth_type = scram-sha-256\n\
         auth_file = users.txt\n\
         pool_mode = transaction\n\
         default_pool_size = {POOL}\n\
         max_client_conn = {CLIENTS}\n\
         log_connections = 0\n\
         log_disconnections = 0\n\
         ignore_startup_parameters = extra_float_digits\n\
         {prepared}",
        primary = stage.cluster.primary().port(),
        prepared = if prepared { "max_prepared_statements = 200\n" } else { "" },
    );
    let users = format!("\"{}\" \"{}\"\n", stage.app.user, stage.verifier()?);
    Ok((vec![("pgbouncer.ini", text), ("users.txt", users)], vec!["pgbouncer.ini"]))
}

/// It has no pool of servers that clients share: each of its processes keeps one to each node.
pub fn pgpool(stage: &Stage, port: u16, place: &Path, clients: usize) -> Settings {
    let backend = |(number, node): (usize, &LocalNode)| {
        let (weight, flag) = if number == 0 { (0, "|ALWAYS_PRIMARY") } else { (1, "") };
        format!(
            "backend_hostname{number} = '127.0.0.1'\n\
             backend_port{number} = {}\n\
             backend_weight{number} = {weight}\n\
             backend_flag{number} = 'DISALLOW_TO_FAILOVER{flag}'\n",
            node.port()
        )
    };
    let text = format!(
        "backend_clustering_mode = 'streaming_replication'\n\
         listen_addresses = '127.0.0.1'\n\
         port = {port}\n\
         pcp_listen_addresses = ''\n\
         unix_socket_directories = '{place}'\n\
         socket_dir = '{place}'\n\
         pcp_socket_dir = '{place}'\n\
         wd_ipc_socket_dir = '{place}'\n\
         pid_file_name = '{place}/pgpool.pid'\n\
         logdir = '{place}'\n\
         work_dir = '{place}'\n\
         {backends}\
         enable_pool_hba = on\n\
         pool_passwd = 'pool_passwd'\n\
         num_init_children = {clients}\n\
         max_pool = 1\n\
         connection_cache = on\n\
         load_balance_mode = on\n\
         sr_check_period = 10\n\
         sr_check_user = '{control}'\n\
         sr_check_password = '{password}'\n\
         sr_check_database = '{database}'\n\
         health_check_period = 0\n\
         failover_on_backend_error = off\n\
         log_min_messages = warning\n\
         use_watchdog = off\n\
         memory_cache_enabled = off\n",
        place = place.display(),
        backends = stage.cluster.nodes().iter().enumerate().map(backend).collect::<String>(),
        control = stage.control.user,
        password = stage.control.password,
        database = stage.control.database,
    );
    let files = vec![
        ("pgpool.conf", text),
        ("pool_passwd", format!("{}:TEXT{}\n", stage.app.user, stage.app.password)),
        ("pool_hba.conf", "host all all 127.0.0.1/32 scram-sha-256\n".to_owned()),
        ("pcp.conf", String::new()),
    ];
    (files, vec!["-n", "-f", "pgpool.conf", "-a", "pool_hba.conf", "-F", "pcp.conf"])
}

/// Splitting and session consistency are the defaults. The replicas take turns until there are `replicas`, each time
/// at the next address, as a node may be configured only once.
pub fn causeway(stage: &Stage, port: u16, metrics: u16, replicas: usize) -> Settings {
    let node = |name: &str, host: usize, node: &LocalNode| {
        let port = node.port();
        format!("[[clusters.bench.nodes]]\nname = \"{name}\"\nhost = \"127.0.0.{host}\"\nport = {port}\n")
    };
    let real = stage.cluster.replicas();
    let stand_ins = real.iter().cycle().take(replicas).enumerate();
    let stand_ins = stand_ins.map(|(at, replica)| node(&format!("replica{}", at + 1), 1 + at / real.len(), replica));
    let nodes: String = std::iter::once(node("primary", 1, stage.cluster.primary())).chain(stand_ins).collect();
    let text = format!(
        "workers = {WORKERS}\n\
         [[listeners]]\n\
         address = \"127.0.0.1:{port}\"\n\
         [clusters.bench]\n\
         control = {{ user = \"{control}\", password = \"{control_password}\", database = \"{control_database}\" }}\n\
         {nodes}\
         [users.{app}]\n\
         password = \"{app_password}\"\n\
         [pool]\n\
         default_pool_size = {POOL}\n\
         [limits]\n\
         max_client_conn = {CLIENTS}\n\
         [metrics]\n\
         address = \"127.0.0.1:{metrics}\"\n",
        control = stage.control.user,
        control_password = stage.control.password,
        control_database = stage.control.database,
        app = stage.app.user,
        app_password = stage.app.password,
    );
    (vec![("causeway.toml", text)], vec!["run", "--config", "causeway.toml"])
}
