//! Runs the API and the dispatchers until the process is asked to stop.

use std::{net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use axum_server::{
    Handle,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use hiresmed_services::Services;
use hiresmed_telemetry::Metrics;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::{
    Supervisor, dispatcher,
    http::{self, Api},
    settings::{self, Settings, Tls},
};

/// Serves until `stop` is cancelled, then lets calls in progress end.
///
/// # Errors
/// The address is taken, a certificate cannot be used, or a service fails at the start.
pub async fn serve(settings: &Settings, services: Services, stop: CancellationToken) -> Result<()> {
    let tls = settings.tls.as_ref().map(tls).transpose()?;
    let address = settings.listen;
    let listener = TcpListener::bind(address)
        .with_context(|| format!("cannot listen at {address}; choose another address with --listen"))?;
    listener.set_nonblocking(true)?;
    let local = listener.local_addr()?;

    let settings::Dispatch { window, ahead } = settings.dispatch;
    let options = dispatcher::Options { window, ahead, ..dispatcher::Options::default() };
    let supervisor = Supervisor::new(&services, options, stop.clone());
    supervisor.start().await.context("the dispatchers cannot be started")?;
    let metrics = Metrics::new()?;
    let api = Api::new(services.store, services.queue, supervisor.clone(), metrics, settings.limits, stop.clone());
    let service = http::router(&api).into_make_service();

    let handle = Handle::new();
    let (stopping, patience) = (handle.clone(), Duration::from_secs(settings.shutdown_s));
    let ending = stop.clone();
    tokio::spawn(async move {
        ending.cancelled().await;
        stopping.graceful_shutdown(Some(patience));
    });
    info!(address = %local, tls = tls.is_some(), "listening");
    let mut server = axum_server::from_tcp(listener)?.handle(handle);
    // Who connects and says nothing, or not the whole head of a call, does not keep the connection.
    let idle = Duration::from_secs(settings.limits.idle_s);
    server = server.first_request_timeout(idle);
    server.http_builder().http1().header_read_timeout(idle);
    let served = match tls {
        Some(config) => {
            let acceptor = RustlsAcceptor::new(RustlsConfig::from_config(Arc::new(config)));
            server.acceptor(acceptor).serve(service).await
        }
        None => server.serve(service).await,
    };
    stop.cancel();
    supervisor.stopped().await;
    served.context("the API stopped")
}

fn tls(files: &Tls) -> Result<ServerConfig> {
    let blame = |what: &str, path: &std::path::Path| format!("the {what} in {} cannot be used", path.display());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match &files.client_authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).with_context(|| blame("authority", path))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.with_context(|| blame("authorities", path))?)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| anyhow!("{}: {error}", blame("private key", &files.key)))?;
    let mut config = builder
        .with_single_cert(certificates(&files.certificate)?, key)
        .with_context(|| blame("certificate", &files.certificate))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates =
        read.map_err(|error| anyhow!("the certificates in {} cannot be read: {error}", path.display()))?;
    if certificates.is_empty() {
        return Err(anyhow!("{} holds no certificate in PEM", path.display()));
    }
    Ok(certificates)
}
