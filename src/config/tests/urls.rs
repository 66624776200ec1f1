//! Configurations from the command line.

use super::*;
use crate::config::urls::from_urls_and_password;

fn urls(
    primary: &str,
    replicas: &[&str],
    listen: Option<&str>,
    password: Option<&str>,
) -> Result<Config, ConfigErrors> {
    let replicas: Vec<_> = replicas.iter().map(ToString::to_string).collect();
    from_urls_and_password(primary, &replicas, listen, Some("127.0.0.1:9187"), password.map(str::to_owned))
}

#[test]
fn urls_make_a_configuration() {
    let config = urls(
        "postgres://app%40x:s%3Acret%2F@db1:5433/shop?sslmode=verify-full&sslrootcert=Cargo%2Etoml",
        &["postgresql://[::1]", "postgres://%2Frun%2Fpg/shop", "postgres://app%40x@db1?port=5434&sslmode=verify-full"],
        Some("*:7000"),
        None,
    )
    .unwrap();
    let cluster = &config.clusters[0];
    let nodes: Vec<_> = cluster.nodes.iter().map(|node| (node.name.clone(), node.address.to_string())).collect();
    for ((name, address), expected) in nodes.iter().zip(["db1:5433", "[::1]:5432", "/run/pg/.s.PGSQL.5432", "db1:5434"])
    {
        assert_eq!((name.as_str(), address.as_str()), (expected, expected));
    }
    assert_eq!(nodes.len(), 4);
    assert_eq!(cluster.server_tls.mode, SslMode::VerifyFull);
    assert_eq!(cluster.server_tls.root_cert_file.as_deref(), Some(Path::new("Cargo.toml")));
    assert_eq!((cluster.control.user.as_str(), cluster.control.database.as_str()), ("app@x", "shop"));
    assert_eq!(cluster.control.password, Some(Secret::new("s:cret/")));
    assert_eq!(config.users["app@x"].server_password, Some(Secret::new("s:cret/")));
    assert_eq!((config.auth_type, config.users.len()), (AuthType::ScramSha256, 1));
    assert_eq!(
        (config.listeners[0].address.to_string(), config.listeners[0].origin.as_str()),
        ("*:7000".into(), "--listen")
    );
    assert_eq!(config.metrics.unwrap().origin, "--metrics");
}

#[test]
fn urls_without_a_password() {
    let config = urls("postgres://app@db", &[], None, Some("from env")).unwrap();
    assert_eq!(config.users["app"].server_password, Some(Secret::new("from env")));
    assert_eq!(config.auth_type, AuthType::ScramSha256);
    assert_eq!(config.listeners[0].address.to_string(), "127.0.0.1:6432");
    assert_eq!(config.clusters[0].control.database, "postgres");
    for private in [None, Some("localhost:1"), Some("[::1]:1"), Some("/run/causeway")] {
        let config = urls("postgres://app@db", &[], private, None).unwrap();
        assert_eq!((config.auth_type, &config.users["app"].server_password), (AuthType::Trust, &None));
    }
}

#[test]
fn mistakes_in_urls() {
    const GOOD: &str = "postgres://app:SECRET@db/shop";
    for (primary, replica, listen, expected) in [
        ("db:5432", GOOD, None, "--primary: is no URL such as postgres://"),
        ("host=db user=app", GOOD, None, "--primary: is no URL such as postgres://"),
        ("postgres://app:SECRET@db:x/shop", GOOD, None, "--primary: is no URL"),
        ("postgres://app:SECRET@", GOOD, None, "--primary: has no host"),
        ("postgres://app:SEC@RET@db", "postgres://x", None, "--primary: has an @ in its password; write %40"),
        ("postgres://app:SECRET@a,b", "postgres://x", None, "--primary: has more than one host"),
        ("postgres://app:SECRET%ff@a", "postgres://x", None, "--primary: has a password that is not UTF-8"),
        ("postgres://db", "postgres://x", None, "--primary: has no user"),
        ("postgres://app:SECRET@a b", "postgres://x", None, "--primary: \"a b\" is no host"),
        (
            "postgres://app:SECRET@a?sslmod=x",
            "postgres://x",
            None,
            "--primary: unknown parameter \"sslmod\"; did you mean",
        ),
        (
            "postgres://app:SECRET@a?sslmode=x",
            "postgres://x",
            None,
            "--primary: unknown sslmode \"x\"; Allowed: disable",
        ),
        ("postgres://app:SECRET@a?connect_timeout=1", "postgres://x", None, "--primary: unknown parameter"),
        (GOOD, "postgres://db", None, "--replica (number 1): db:5432 is the address of --primary too"),
        (GOOD, "postgres://you@x", None, "--replica (number 1): has another user than --primary"),
        (GOOD, "postgres://x?sslmode=require", None, "--replica (number 1): has another sslmode than --primary"),
        (GOOD, "postgres://x", Some("x:y"), "--listen: \"x:y\" is no address to listen on"),
        (GOOD, "postgres://x", Some("*:9187"), "--metrics: 127.0.0.1:9187 is taken by --listen"),
        ("postgres://app@db", "postgres://x", Some("0.0.0.0:1"), "--listen: everyone who can reach this address"),
    ] {
        let errors = urls(primary, &[replica], listen, None).unwrap_err().to_string();
        assert!(errors.lines().count() <= 2 && errors.contains(expected), "{primary} {replica}\n{errors}");
        assert!(!errors.contains("SECRET") && !errors.contains("RET"), "{errors}");
    }
}
