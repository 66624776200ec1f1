//! Where PostgreSQL's programs are, and as whom they run.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User};

use super::{ClusterError, Result};

/// The directory that Debian's and Ubuntu's packages put `<version>/bin` into.
const DISTRIBUTION: &str = "/usr/lib/postgresql";

/// An installed PostgreSQL.
#[derive(Debug)]
pub struct Install {
    bin: PathBuf,
    /// Whom the nodes run as when we are root: PostgreSQL refuses to be root.
    user: Option<User>,
}

impl Install {
    /// Looks at `PGBIN`, `PG_CONFIG`, the distribution's newest version and `PATH`, in this order.
    ///
    /// # Errors
    /// None is found, what the environment names holds no `initdb`, or we are root and there is no other user to run
    /// it as.
    pub fn find() -> Result<Self> {
        let bin = from_environment()
            .or_else(|| newest(&versions(Path::new(DISTRIBUTION))))
            .or_else(|| env::split_paths(&env::var_os("PATH")?).find(|bin| bin.join("initdb").exists()))
            .ok_or(ClusterError::NoPostgres)?;
        if !bin.join("initdb").exists() {
            return Err(ClusterError::NoInitdb(bin));
        }
        Ok(Self { bin, user: unprivileged_user()? })
    }

    /// A program that works on a node's files, run as the user who owns them.
    pub fn command(&self, program: &str) -> Command {
        let mut command = self.client(program);
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    /// A program that only connects, run as ourselves. Settings of libpq in our environment don't reach it.
    pub fn client(&self, program: &str) -> Command {
        let installed = self.bin.join(program);
        // Some packages come without psql and pg_basebackup.
        let mut command = if installed.exists() { Command::new(installed) } else { Command::new(program) };
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"PG")) {
            command.env_remove(name);
        }
        // One language in the logs, and a directory that any user may be in.
        command.env("LC_ALL", "C").current_dir("/");
        command
    }

    /// Gives `path` to the user the nodes run as.
    pub fn own(&self, path: &Path) -> Result<()> {
        let Some(user) = &self.user else { return Ok(()) };
        std::os::unix::fs::chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(ClusterError::io("give to PostgreSQL's user", path))
    }
}

/// What is said explicitly is taken, or else is an error.
fn from_environment() -> Option<PathBuf> {
    let said = |name| env::var_os(name).filter(|value| !value.is_empty());
    if let Some(bin) = said("PGBIN") {
        return Some(PathBuf::from(bin));
    }
    let output = Command::new(said("PG_CONFIG")?).arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

fn versions(distribution: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(distribution) else { return Vec::new() };
    // A version may be there with its client programs only.
    entries.flatten().map(|entry| entry.path()).filter(|path| path.join("bin/initdb").exists()).collect()
}

/// `<version>/bin` of the highest version; names that are no version number don't count.
fn newest(versions: &[PathBuf]) -> Option<PathBuf> {
    let number = |path: &&PathBuf| path.file_name().and_then(OsStr::to_str)?.parse::<u32>().ok();
    versions.iter().filter(|path| number(path).is_some()).max_by_key(number).map(|path| path.join("bin"))
}

fn unprivileged_user() -> Result<Option<User>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    let user = ["postgres", "nobody"].into_iter().find_map(|name| User::from_name(name).ok().flatten());
    user.map(Some).ok_or(ClusterError::NoUser)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_wins() {
        for (names, want) in [
            (&["9", "15", "16"][..], Some("16")),
            (&["15"], Some("15")),
            (&["9", "15", "old", "17.bak"], Some("15")),
            (&["old"], None),
            (&[], None),
        ] {
            let found: Vec<_> = names.iter().map(|name| Path::new(DISTRIBUTION).join(name)).collect();
            let want = want.map(|name| Path::new(DISTRIBUTION).join(name).join("bin"));
            assert_eq!(newest(&found), want, "{names:?}");
        }
    }
}
