//! What an archive is to know us by: HTTP basic (RFC 7617) or a bearer token (RFC 6750), from the environment or a file and
//! never from the command line, which every user of the machine can read.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};

use super::address::Address;
use crate::failure;

const USER: &str = "HIRESMED_ARCHIVE_USER";
const PASSWORD: &str = "HIRESMED_ARCHIVE_PASSWORD";
const TOKEN: &str = "HIRESMED_ARCHIVE_TOKEN";

/// Where credentials may come from; at most one place gives some.
#[derive(Debug, clap::Args)]
pub struct Sources {
    /// File with a bearer token [otherwise: $HIRESMED_ARCHIVE_TOKEN, or $HIRESMED_ARCHIVE_USER with $HIRESMED_ARCHIVE_PASSWORD]
    #[arg(long, value_name = "FILE", conflicts_with = "netrc")]
    token_file: Option<PathBuf>,
    /// File with user and password in the form of .netrc: machine HOST login USER password PASSWORD
    #[arg(long, value_name = "FILE")]
    netrc: Option<PathBuf>,
}

/// Who we say that we are.
#[derive(Debug)]
enum Credentials {
    Basic { user: String, password: SecretString },
    Bearer(SecretString),
}

impl Sources {
    /// The value of the header `Authorization`; none where there are no credentials.
    ///
    /// # Errors
    /// A file cannot be read or has no entry for the host, or something is given twice or by half.
    pub fn authorization(&self, address: &Address) -> Result<Option<HeaderValue>> {
        let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let secret = |name: &str| match environment(name).map(|value| value.into_string()) {
            None => Ok(None),
            Some(Ok(value)) => Ok(Some(SecretString::from(value))),
            Some(Err(_)) => Err(anyhow!("${name} is no text")),
        };
        self.find(address.host(), secret)
            .and_then(|credentials| credentials.as_ref().map(header).transpose())
            .map_err(failure::refused)
    }

    fn find(
        &self,
        host: &str,
        environment: impl Fn(&str) -> Result<Option<SecretString>>,
    ) -> Result<Option<Credentials>> {
        let (user, password, token) = (environment(USER)?, environment(PASSWORD)?, environment(TOKEN)?);
        if let Some(path) = &self.token_file {
            let token = read(path)?.expose_secret().trim().to_owned();
            if token.is_empty() {
                bail!("{} is empty; it is to hold a bearer token", path.display());
            }
            return Ok(Some(Credentials::Bearer(token.into())));
        }
        if let Some(path) = &self.netrc {
            let entry = netrc(read(path)?.expose_secret(), host)
                .with_context(|| format!("{} cannot be understood", path.display()))?;
            let entry = entry.ok_or_else(|| anyhow!("{} has no `machine {host}`", path.display()))?;
            return Ok(Some(entry));
        }
        match (user, password, token) {
            (None, None, None) => Ok(None),
            (None, None, Some(token)) => Ok(Some(Credentials::Bearer(token))),
            (Some(user), Some(password), None) => {
                Ok(Some(Credentials::Basic { user: user.expose_secret().to_owned(), password }))
            }
            (_, _, Some(_)) => bail!("${TOKEN} is set beside ${USER} or ${PASSWORD}; unset what is not meant"),
            _ => bail!("set both ${USER} and ${PASSWORD}, or neither"),
        }
    }
}

fn read(path: &Path) -> Result<SecretString> {
    let unreadable = || format!("the credentials in {} cannot be read", path.display());
    let mode = fs::metadata(path).with_context(unreadable)?.mode();
    if mode & 0o077 != 0 {
        eprintln!("warning: others on this machine may read {}; chmod 600 prevents it", path.display());
    }
    Ok(fs::read_to_string(path).with_context(unreadable)?.into())
}

/// The entry for a host: words, as other programs that read such files take them; `macdef` is not understood.
fn netrc(text: &str, host: &str) -> Result<Option<Credentials>> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let mut words = lines.flat_map(str::split_whitespace);
    let (mut here, mut user, mut password) = (false, None, None);
    while let Some(word) = words.next() {
        let complete = here && user.is_some() && password.is_some();
        match word {
            "machine" | "default" if complete => break,
            "machine" => {
                here = words.next() == Some(host);
                (user, password) = (None, None);
            }
            "default" => {
                here = true;
                (user, password) = (None, None);
            }
            "login" => user = words.next(),
            "password" => password = words.next(),
            "account" => drop(words.next()),
            // The word is not repeated: it may be a part of a password with a space.
            _ => bail!("something other than machine, default, login, password and account is in it"),
        }
    }
    Ok(match (here, user, password) {
        (true, Some(user), Some(password)) => {
            Some(Credentials::Basic { user: user.to_owned(), password: password.into() })
        }
        _ => None,
    })
}

fn header(credentials: &Credentials) -> Result<HeaderValue> {
    let text = match credentials {
        Credentials::Basic { user, password } => {
            if user.contains(':') {
                bail!("the user's name holds a colon, which HTTP basic cannot say");
            }
            format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret())))
        }
        Credentials::Bearer(token) => format!("Bearer {}", token.expose_secret()),
    };
    let mut value =
        HeaderValue::from_str(&text).map_err(|_| anyhow!("the token holds characters that HTTP does not"))?;
    // Whoever prints the request prints no secret.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn sources() -> Sources {
        Sources { token_file: None, netrc: None }
    }

    fn with<'a>(set: &'a [(&str, &str)]) -> impl Fn(&str) -> Result<Option<SecretString>> + 'a {
        |name| Ok(set.iter().find(|(key, _)| *key == name).map(|(_, value)| SecretString::from(*value)))
    }

    #[test]
    fn each_way_gives_its_header_and_none_shows_it() {
        let given = sources().find("pacs", with(&[(USER, "me"), (PASSWORD, "p:w")])).unwrap().unwrap();
        let value = header(&given).unwrap();
        assert_eq!(value.to_str().unwrap(), "Basic bWU6cDp3");
        assert!(!format!("{value:?} {given:?}").contains("p:w") && !format!("{value:?}").contains("bWU6"));
        let given = sources().find("pacs", with(&[(TOKEN, "t0ken")])).unwrap().unwrap();
        assert_eq!(header(&given).unwrap().to_str().unwrap(), "Bearer t0ken");
        assert!(sources().find("pacs", with(&[])).unwrap().is_none());
        for half in [&[(USER, "me")][..], &[(PASSWORD, "p")], &[(USER, "me"), (PASSWORD, "p"), (TOKEN, "t")]] {
            sources().find("pacs", with(half)).unwrap_err();
        }
    }

    #[test]
    fn a_netrc_gives_the_entry_of_the_host() {
        let text = "# machine pacs login x password y\nmachine other login a password b\nmachine pacs\n  login me\n  \
                    password pw account z\ndefault login d password e";
        let entry = |host| netrc(text, host).unwrap().map(|found| header(&found).unwrap().to_str().unwrap().to_owned());
        assert_eq!(entry("pacs").unwrap(), "Basic bWU6cHc=");
        assert_eq!(entry("other").unwrap(), "Basic YTpi");
        assert_eq!(entry("third").unwrap(), "Basic ZDpl");
        assert!(netrc("machine a login b password c", "pacs").unwrap().is_none());
        assert!(netrc("machine pacs login b", "pacs").unwrap().is_none());
        let error = netrc("machine pacs login b password c d", "pacs").unwrap_err().to_string();
        assert!(!error.contains('`'), "{error}");
    }

    #[test]
    fn files_are_read_and_their_faults_said_without_what_they_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        fs::write(&path, "t0ken\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let sources = Sources { token_file: Some(path.clone()), netrc: None };
        assert_eq!(
            header(&sources.find("pacs", with(&[])).unwrap().unwrap()).unwrap().to_str().unwrap(),
            "Bearer t0ken"
        );
        fs::write(&path, "t0\nken").unwrap();
        let error = header(&sources.find("pacs", with(&[])).unwrap().unwrap()).unwrap_err().to_string();
        assert!(!error.contains("ken\""), "{error}");
        fs::write(&path, "").unwrap();
        sources.find("pacs", with(&[])).unwrap_err();
        let missing = Sources { token_file: None, netrc: Some(folder.path().join("none")) };
        missing.find("pacs", with(&[])).unwrap_err();
    }
}
