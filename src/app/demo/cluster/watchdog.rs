//! Ends the nodes when the process that owns them dies without cleaning up.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::{ClusterError, Result};

/// Waits for the end of its input, a pipe that only our process holds, whatever ends us. Then it stops each
/// postmaster that still runs in a data directory under `$1` (its working directory proves that the pid is not
/// somebody else's by now; CONT, because a stopped one would not notice QUIT) and removes `$1`.
const SCRIPT: &str = r#"
read -r _
runs() { [ "$(readlink "/proc/$1/cwd")" = "$2" ]; }
for file in "$1"/*/postmaster.pid; do
    data=${file%/postmaster.pid}
    [ -f "$file" ] && read -r pid <"$file" && runs "$pid" "$data" && kill -QUIT "$pid" && kill -CONT "$pid"
done
for file in "$1"/*/postmaster.pid; do
    data=${file%/postmaster.pid}
    tries=0
    while [ -f "$file" ] && read -r pid <"$file" && runs "$pid" "$data" && [ $tries -lt 100 ]; do
        tries=$((tries + 1))
        sleep 0.1
    done
done
rm -rf "$1"
"#;

#[derive(Debug)]
pub struct Watchdog(Child);

impl Watchdog {
    /// `root` is the directory that holds the data directories.
    pub fn start(root: &Path) -> Result<Self> {
        Command::new("sh")
            .args(["-c", SCRIPT, "causeway-watchdog"])
            .arg(root)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal reaches the whole group; the watchdog has to outlive us.
            .process_group(0)
            .spawn()
            .map(Self)
            .map_err(ClusterError::io("start a watchdog for", root))
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        // `wait` closes the pipe first.
        if let Err(error) = self.0.wait() {
            tracing::warn!(%error, "the watchdog of a local cluster is lost");
        }
    }
}
