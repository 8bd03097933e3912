//! TLS, one-sided and mutual.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use ureq::http::Method;

use crate::{
    harness::Site,
    process::{Coordinator, Identity, key},
};

/// An authority, and a certificate of it for `name` with its key; all in PEM.
fn issue(name: &str) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    (issuer.pem().into(), certificate.pem().into(), key.serialize_pem().into())
}

fn write(folder: &Path, name: &str, bytes: &[u8]) -> String {
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_is_served_by_tls_and_asks_for_a_certificate_where_it_should() {
    let site = Site::open().await;
    let reader = key(site.path(), "charite", &["read"]);
    let (authority, certificate, private) = issue("127.0.0.1");
    let (client_authority, client_certificate, client_key) = issue("charite");
    let certificate = write(site.path(), "api.pem", &certificate);
    let private = write(site.path(), "api.key", &private);
    let clients = write(site.path(), "clients.pem", &client_authority);
    let one_sided = ["--tls-certificate", &certificate, "--tls-key", &private];
    let identity = |client| Some(Identity { authority: authority.clone(), client });

    let coordinator = Coordinator::start_with(site.path(), &one_sided, identity(None));
    assert_eq!(coordinator.get(&reader, "/v1/requests").status, 200);
    drop(coordinator);

    let mutual = [&one_sided[..], &["--tls-client-authorities", &clients]].concat();
    let known = identity(Some((client_certificate, client_key)));
    let coordinator = Coordinator::start_with(site.path(), &mutual, known);
    assert_eq!(coordinator.get(&reader, "/v1/requests").status, 200);
    assert_eq!(coordinator.get("", "/v1/requests").status, 401, "a certificate is no key");
    drop(coordinator);
    let coordinator = Coordinator::start_with(site.path(), &mutual, identity(None));
    assert!(coordinator.try_call(&reader, Method::GET, "/v1/requests", &[], &[]).is_err());
}
