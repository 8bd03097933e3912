//! The SDK's client, set up for servers of every make.

use std::time::Duration;

use aws_config::{
    BehaviorVersion, environment::region::EnvironmentVariableRegionProvider, meta::region::RegionProviderChain,
};
use aws_sdk_s3::{
    Client,
    config::{
        Builder, Credentials, Region, RequestChecksumCalculation, ResponseChecksumValidation, retry::RetryConfig,
        timeout::TimeoutConfig,
    },
};
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use secrecy::ExposeSecret;

use super::{Address, clock::ServerClock};

/// The longest time to connect, to get the first byte of an answer, and for one attempt with its body.
const TIMEOUTS: (Duration, Duration, Duration) =
    (Duration::from_secs(3), Duration::from_secs(20), Duration::from_secs(60));

/// Attempts at one request, with the SDK's growing waits between them.
const ATTEMPTS: u32 = 4;

/// A client for the server at `url`, or AWS.
pub(super) async fn new(address: &Address, url: Option<&str>, clock: &ServerClock) -> Client {
    let http = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let (connect, read, attempt) = TIMEOUTS;
    let timeouts =
        TimeoutConfig::builder().connect_timeout(connect).read_timeout(read).operation_attempt_timeout(attempt).build();
    let mut chain = aws_config::defaults(BehaviorVersion::latest()).http_client(http).timeout_config(timeouts);
    if let Some((id, secret)) = &address.credentials {
        let credentials = Credentials::new(id, secret.expose_secret(), None, None, "settings");
        chain = chain.credentials_provider(credentials);
    }
    if let Some(region) = &address.region {
        chain = chain.region(Region::new(region.clone()));
    } else if url.is_some() {
        // Servers that are not AWS take any, but a signature needs one; AWS itself is not asked for it.
        let environment = EnvironmentVariableRegionProvider::new();
        chain = chain.region(RegionProviderChain::first_try(environment).or_else("us-east-1"));
    }
    let chain = chain.load().await;
    let mut config = Builder::from(&chain)
        .force_path_style(address.path_style)
        .time_source(clock.clone())
        .interceptor(clock.clone())
        .retry_classifier(clock.clone())
        .retry_config(RetryConfig::standard().with_max_attempts(ATTEMPTS))
        // The newer checksums change how bodies are sent, which not every server understands. Bodies are signed by their
        // SHA-256, and objects checked by ours.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Some(url) = url {
        config = config.endpoint_url(url);
    }
    Client::from_conf(config.build())
}
