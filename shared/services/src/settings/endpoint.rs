//! The texts that say where a service is.

use std::path::PathBuf;

use super::Error;

/// Where a queue is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueEndpoint {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A RabbitMQ broker.
    Amqp {
        /// Whether the connection is encrypted.
        tls: bool,
        /// Host name or address; an IPv6 address without its brackets.
        host: String,
        /// 5672, or 5671 with TLS, where the text has none.
        port: u16,
        /// The virtual host, `/` where the text has none.
        virtual_host: String,
    },
}

/// Where a store is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreEndpoint {
    /// A folder.
    Directory(PathBuf),
    /// A bucket.
    S3 {
        /// Its name.
        bucket: String,
        /// What comes before every key: empty, or ending with `/`.
        prefix: String,
    },
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CacheEndpoint {
    /// The process's own memory.
    Memory {
        /// Its bound.
        most_bytes: usize,
    },
    /// A Redis server.
    Redis {
        /// Whether the connection is encrypted.
        tls: bool,
        /// Host name or address; an IPv6 address without its brackets.
        host: String,
        /// 6379 where the text has none.
        port: u16,
        /// The number of its database, 0 where the text has none.
        database: i64,
    },
    /// No cache: nothing is kept, every lock is granted.
    Nothing,
}

impl QueueEndpoint {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Endpoint`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |cause: String| Error::Endpoint {
            service: "queue",
            endpoint: shown(text),
            cause,
            expected: "`sqlite:PATH`, `amqp://HOST:PORT/VHOST` or `amqps://HOST:PORT/VHOST`",
        };
        match split(text) {
            ("sqlite", path) => Ok(Self::Sqlite(file(path).map_err(refuse)?)),
            (scheme @ ("amqp" | "amqps"), rest) => {
                let tls = scheme == "amqps";
                let (host, port, path) = address(rest, if tls { 5671 } else { 5672 }).map_err(refuse)?;
                // `%2f` is how AMQP URLs write the virtual host `/`.
                let virtual_host = match path {
                    "" | "%2f" | "%2F" => "/",
                    path if path.contains(['%', '?', '#']) => {
                        return Err(refuse("the virtual host has one of the characters `%?#`".to_owned()));
                    }
                    path => path,
                };
                Ok(Self::Amqp { tls, host, port, virtual_host: virtual_host.to_owned() })
            }
            (scheme, _) => Err(refuse(unknown(scheme))),
        }
    }
}

impl StoreEndpoint {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Endpoint`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |cause: String| Error::Endpoint {
            service: "store",
            endpoint: shown(text),
            cause,
            expected: "`directory:PATH` or `s3://BUCKET/PREFIX`",
        };
        match split(text) {
            ("directory", path) => Ok(Self::Directory(file(path).map_err(refuse)?)),
            ("s3", rest) => {
                let rest = rest.strip_prefix("//").ok_or_else(|| refuse("`//` is missing".to_owned()))?;
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
                if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(plain) {
                    return Err(refuse(format!(
                        "`{}` is no bucket's name (3 to 63 of a-z, 0-9, `-`, `.`)",
                        shown(bucket)
                    )));
                }
                if prefix.is_empty() {
                    return Ok(Self::S3 { bucket: bucket.to_owned(), prefix: String::new() });
                }
                let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
                crate::store::check_key(prefix).map_err(|error| refuse(error.to_string()))?;
                Ok(Self::S3 { bucket: bucket.to_owned(), prefix: format!("{prefix}/") })
            }
            (scheme, _) => Err(refuse(unknown(scheme))),
        }
    }
}

impl CacheEndpoint {
    /// Reads the text.
    ///
    /// # Errors
    /// [`Error::Endpoint`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        let refuse = |cause: String| Error::Endpoint {
            service: "cache",
            endpoint: shown(text),
            cause,
            expected: "`memory:BYTES`, `redis://HOST:PORT/DATABASE`, `rediss://HOST:PORT/DATABASE` or `none`",
        };
        match split(text) {
            ("none", "") => Ok(Self::Nothing),
            ("memory", bytes) => match bytes.parse() {
                Ok(most_bytes) => Ok(Self::Memory { most_bytes }),
                Err(error) => Err(refuse(format!("`{}` is no number of bytes: {error}", shown(bytes)))),
            },
            (scheme @ ("redis" | "rediss"), rest) => {
                let (host, port, path) = address(rest, 6379).map_err(refuse)?;
                let database = match path {
                    "" => Some(0),
                    path => path.parse().ok().filter(|number| (0..i64::from(i32::MAX)).contains(number)),
                };
                let database = database.ok_or_else(|| refuse(format!("`{}` is no database's number", shown(path))))?;
                Ok(Self::Redis { tls: scheme == "rediss", host, port, database })
            }
            (scheme, _) => Err(refuse(unknown(scheme))),
        }
    }
}

fn split(text: &str) -> (&str, &str) {
    text.split_once(':').unwrap_or((text, ""))
}

fn unknown(scheme: &str) -> String {
    format!("`{}` is no scheme that is known here", shown(scheme))
}

/// A text that may hold a password by mistake is shown without what stands before an `@`.
fn shown(text: &str) -> String {
    let text = text.rsplit_once('@').map_or(text, |(_, rest)| rest);
    text.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn file(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() { Err("the path is missing".to_owned()) } else { Ok(PathBuf::from(path)) }
}

/// Host, port and what follows the first `/` of `//HOST[:PORT][/PATH]`.
fn address(text: &str, default_port: u16) -> Result<(String, u16, &str), String> {
    let text = text.strip_prefix("//").ok_or("`//` is missing")?;
    let (authority, path) = text.split_once('/').unwrap_or((text, ""));
    if text.contains('@') {
        return Err("user and password have settings of their own: an endpoint is shown and logged".to_owned());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or("`]` is missing")?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or("after `]` comes no `:PORT`")?)),
            }
        }
        None => authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control() || "?#%\\".contains(c)) {
        return Err("the host's name is missing or has characters that no name has".to_owned());
    }
    let port = match port {
        None => default_port,
        Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or("the port is no number from 1 to 65535")?,
    };
    Ok((host.to_owned(), port, path))
}
