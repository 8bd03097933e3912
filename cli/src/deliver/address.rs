//! Where an archive is, and whether what is sent there can be read on the way.

use std::net::IpAddr;

use anyhow::{Result, anyhow};
use http::Uri;

use crate::failure;

/// The root of an archive's DICOMweb services (PS3.18 8.2): what `/studies` is appended to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    root: String,
    host: String,
    secure: bool,
}

impl Address {
    /// Reads an address.
    ///
    /// # Errors
    /// It is none, it holds credentials, or it is plain HTTP to another machine and `insecure` does not allow that.
    pub fn parse(text: &str, insecure: bool) -> Result<Self> {
        let refused = |text: String| failure::refused(anyhow!(text));
        if text.contains('@') {
            // It is not repeated: it may hold a password.
            return Err(refused(
                "--to holds credentials, which everybody on this machine can see on a command line; give them as `hiresmed deliver \
                 --help` says"
                    .to_owned(),
            ));
        }
        let wrong = || {
            refused(format!(
                "--to `{text}` is no address of DICOMweb services; write it as https://pacs.example/dicom-web"
            ))
        };
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let (Some(scheme), Some(host)) = (uri.scheme_str(), uri.host()) else { return Err(wrong()) };
        if !["http", "https"].contains(&scheme) || host.is_empty() || uri.query().is_some() || text.contains('#') {
            return Err(wrong());
        }
        let secure = scheme == "https";
        if !secure && !insecure && !is_loopback(host) {
            return Err(refused(format!(
                "--to `{text}` is plain HTTP: images and credentials could be read on their way; use https, or allow it with \
                 --insecure-http"
            )));
        }
        let root = text.trim_end_matches('/').to_owned();
        Ok(Self { root, host: host.trim_matches(['[', ']']).to_owned(), secure })
    }

    /// As it was given, without a slash at the end.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The host alone.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether what is sent is encrypted.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// The address of a resource below the root.
    pub fn resource(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }
}

/// `localhost` is the loopback by RFC 6761 6.3.
fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_cannot_be_read_on_the_way_is_taken_without_a_word() {
        for (text, insecure) in [
            ("https://pacs/dicom-web/", false),
            ("http://127.0.0.1:8042/dicom-web", false),
            ("http://[::1]:8042", false),
            ("http://LOCALHOST/x", false),
            ("http://pacs/dicom-web", true),
        ] {
            let address = Address::parse(text, insecure).unwrap();
            assert_eq!(address.resource("studies"), format!("{}/studies", text.trim_end_matches('/')));
            assert_eq!(address.is_secure(), text.starts_with("https"));
        }
        for text in ["http://pacs/dicom-web", "http://127.0.0.1.pacs.example/", "http://128.0.0.1/"] {
            let error = Address::parse(text, false).unwrap_err().to_string();
            assert!(error.contains("--insecure-http"), "{error}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_and_a_password_is_not_repeated() {
        for text in
            ["pacs", "/dicom-web", "ftp://pacs/x", "https://", "https://pacs/x?y=1", "https://pacs/#x", "https://a b/"]
        {
            let error = Address::parse(text, true).unwrap_err().to_string();
            assert!(error.contains("https://pacs.example/dicom-web"), "{error}");
        }
        let error = Address::parse("https://me:secret@pacs/x", true).unwrap_err().to_string();
        assert!(error.contains("credentials") && !error.contains("secret"), "{error}");
    }
}
