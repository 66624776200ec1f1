//! Users: what they log in with, and what logs in for them.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;

use super::consistency::overrides;
use super::limits::{CLIENTS, SERVERS, timeouts};
use super::report::{FoundSecret, Report, SecretSource};
use super::{POOL_MODES, POOL_SIZES};
use crate::config::{AuthType, Credential, User, raw};
use crate::types::Secret;

pub fn users(file: &raw::File, auth_type: AuthType, report: &mut Report<'_>) -> BTreeMap<String, User> {
    if file.users.is_empty() {
        let problem = "there is none; add [users.app] with password_file = \"app.password\"";
        report.missing(&(0..0), "users", problem);
    }
    let users = file.users.iter();
    users.map(|(name, raw)| (report.name(name), user(name, raw.get_ref(), file, auth_type, report))).collect()
}

/// Names of users that there are.
pub fn known(names: &[Spanned<String>], file: &raw::File, report: &mut Report<'_>) -> Vec<String> {
    for name in names.iter().filter(|name| !file.users.contains_key(*name)) {
        let problem = format!("there is no user {:?}: add [users.{}]", name.get_ref(), name.get_ref());
        // With errors of form, the user may have been left out.
        if !report.incomplete {
            report.at(&name.span(), problem);
        }
    }
    names.iter().map(|name| name.get_ref().clone()).collect()
}

fn user(
    name: &Spanned<String>,
    raw: &raw::User,
    file: &raw::File,
    auth_type: AuthType,
    report: &mut Report<'_>,
) -> User {
    let password = report.secret(SecretSource {
        key: "password",
        text: raw.password.as_ref(),
        file: raw.password_file.as_ref(),
        env: raw.password_env.as_ref(),
    });
    if password.is_none() && auth_type != AuthType::Trust {
        let problem = format!(
            "is missing: auth_type {:?} needs one; write password, password_file or password_env, or set auth_type = \
             \"trust\"",
            file.auth_type.get_ref()
        );
        report.missing(&name.span(), "password", problem);
    }
    let credential = password.map_or(Credential::None, |found| credential(found, auth_type, report));
    let server_password = report.secret(SecretSource {
        key: "server_password",
        text: raw.server_password.as_ref(),
        file: raw.server_password_file.as_ref(),
        env: raw.server_password_env.as_ref(),
    });
    let server_password = match (server_password, &credential) {
        (Some(found), _) => server_secret(found, report),
        (None, Credential::Plain(secret)) => Some(secret.clone()),
        (None, _) => None,
    };
    let pool_size = raw.pool_size.as_ref().map(|size| (size.span(), report.count(size, &POOL_SIZES)));
    if let Some((span, size)) = &pool_size {
        above_minimum(span, *size, file, report);
    }
    User {
        credential,
        server_password,
        pool_mode: raw.pool_mode.as_ref().map(|mode| report.word(mode, &POOL_MODES)),
        pool_size: pool_size.map(|(_, size)| size),
        replication: raw.replication.as_ref().is_some_and(|allowed| *allowed.get_ref()),
        max_client_connections: raw.max_user_client_connections.as_ref().map(|most| report.count(most, &CLIENTS)),
        max_connections: raw.max_user_connections.as_ref().map(|most| report.count(most, &SERVERS)),
        timeouts: Arc::new(timeouts(raw, &file.limits, report)),
        consistency: overrides(raw, &file.probe, report),
    }
}

fn credential(found: FoundSecret, auth_type: AuthType, report: &mut Report<'_>) -> Credential {
    let Some(secret) = found.secret else {
        return Credential::None;
    };
    let text = secret.expose();
    if text.starts_with("SCRAM-SHA-256$") {
        if !is_scram(text) {
            let problem = "is no SCRAM verifier; allowed is \"SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey\" as \
                           in pg_authid.rolpassword";
            report.at(&found.span, problem);
        }
        return Credential::Scram(secret);
    }
    if is_md5(text) {
        if auth_type == AuthType::ScramSha256 {
            let problem = "an md5 hash cannot serve auth_type \"scram-sha-256\"; allowed are a plain password and a \
                           SCRAM-SHA-256 verifier, or another auth_type: \"md5\", \"password\"";
            report.at(&found.span, problem);
        }
        return Credential::Md5(secret);
    }
    Credential::Plain(secret)
}

/// Nodes ask for the password itself.
fn server_secret(found: FoundSecret, report: &mut Report<'_>) -> Option<Secret> {
    let secret = found.secret?;
    if is_md5(secret.expose()) || is_scram(secret.expose()) {
        report.at(&found.span, "is a verifier; to log in to the nodes it must be the plain password");
    }
    Some(secret)
}

fn above_minimum(span: &Range<usize>, size: usize, file: &raw::File, report: &mut Report<'_>) {
    let min = &file.pool.min_pool_size;
    if u64::try_from(size).is_ok_and(|size| size < *min.get_ref()) {
        let problem = format!("{size} is less than pool.min_pool_size, which is {}", min.get_ref());
        report.at(span, problem);
    }
}

/// As PostgreSQL's `get_password_type` tells it from a plain password.
fn is_md5(text: &str) -> bool {
    let digits = text.strip_prefix("md5");
    digits.is_some_and(|digits| digits.len() == 32 && digits.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f')))
}

fn is_scram(text: &str) -> bool {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    const KEY_BYTES: usize = 32;
    let key = |text: &str| BASE64_STANDARD.decode(text).is_ok_and(|key| key.len() == KEY_BYTES);
    let parts: Vec<_> = text.split('$').collect();
    let [_, cost, keys] = parts.as_slice() else {
        return false;
    };
    let (Some((iterations, salt)), Some((stored, server))) = (cost.split_once(':'), keys.split_once(':')) else {
        return false;
    };
    let cost_ok = iterations.parse::<u32>().is_ok_and(|count| count > 0);
    text.starts_with("SCRAM-SHA-256$")
        && cost_ok
        && BASE64_STANDARD.decode(salt).is_ok_and(|salt| !salt.is_empty())
        && key(stored)
        && key(server)
}
