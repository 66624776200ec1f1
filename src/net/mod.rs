//! Sockets: listening, dialling, TLS material, and the stream that everything above reads and writes.

use crate::config::Address;

pub mod dial;
pub mod fence;
pub mod listen;
pub mod login;
pub mod names;
pub mod stream;
pub mod timers;
pub mod tls;

/// An address as errors and logs show it: `host:port`, or the path of a Unix socket.
pub fn describe(address: &Address) -> String {
    match address {
        Address::Tcp { host, port } if host.contains(':') => format!("[{host}]:{port}"),
        Address::Tcp { host, port } => format!("{host}:{port}"),
        Address::Unix { directory, port } => socket_path(directory, *port).display().to_string(),
    }
}

fn socket_path(directory: &std::path::Path, port: u16) -> std::path::PathBuf {
    directory.join(format!(".s.PGSQL.{port}"))
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
