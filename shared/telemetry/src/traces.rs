//! Traces: spans to an OpenTelemetry collector by OTLP over HTTP (protobuf), and the W3C trace context that joins those of several
//! processes.
//!
//! Spans have the names and fields of the logs, so what is kept out of these is kept out of them. Without the feature `otlp` a
//! context is not followed, and a collector in the settings is refused.

use tracing::Span;

#[cfg(feature = "otlp")]
pub(crate) use self::exported::layer;

/// Makes `span` a child of the remote span that `traceparent` names (Trace Context level 1, 3.2); does nothing where it names none, or
/// nothing is exported. To be called before the span is entered.
pub fn follow(span: &Span, traceparent: &str) {
    #[cfg(feature = "otlp")]
    exported::follow(span, traceparent);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, traceparent);
}

/// Keeps spans going to the collector; dropped at the program's end, it sends what is left. Not to be dropped in an async task.
#[derive(Debug, Default)]
#[must_use]
pub struct Export {
    #[cfg(feature = "otlp")]
    pub(crate) provider: Option<opentelemetry_sdk::trace::SdkTracerProvider>,
}

#[cfg(feature = "otlp")]
impl Drop for Export {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.take() {
            // A collector that is away must not hold up the end; what it misses is gone.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(3));
        }
    }
}

#[cfg(feature = "otlp")]
mod exported {
    use std::{collections::HashMap, time::Duration};

    use opentelemetry::{
        propagation::TextMapPropagator,
        trace::{TraceContextExt, TracerProvider},
    };
    use opentelemetry_otlp::{SpanExporter, WithExportConfig};
    use opentelemetry_sdk::{
        Resource,
        propagation::TraceContextPropagator,
        trace::{SdkTracer, SdkTracerProvider},
    };
    use tracing::{Span, Subscriber};
    use tracing_opentelemetry::{OpenTelemetryLayer, OpenTelemetrySpanExt};
    use tracing_subscriber::registry::LookupSpan;

    /// Longest time for a batch of spans.
    const TIMEOUT: Duration = Duration::from_secs(5);

    pub(super) fn follow(span: &Span, traceparent: &str) {
        let header = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
        let context = TraceContextPropagator::new().extract(&header);
        if context.span().span_context().is_valid() {
            // Refused where spans go nowhere.
            let _ = span.set_parent(context);
        }
    }

    /// A layer that sends the spans of `service` to the collector at `url`, as `http://127.0.0.1:4318`, and what sends them.
    pub(crate) fn layer<S>(
        url: &str,
        service: &'static str,
    ) -> Result<(OpenTelemetryLayer<S, SdkTracer>, SdkTracerProvider), String>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        if !url.starts_with("http://") {
            return Err("it does not start with http://".to_owned());
        }
        let endpoint = format!("{}/v1/traces", url.trim_end_matches('/'));
        let exporter = SpanExporter::builder().with_http().with_endpoint(endpoint).with_timeout(TIMEOUT).build();
        let exporter = exporter.map_err(|error| error.to_string())?;
        let resource = Resource::builder_empty().with_service_name(service).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        Ok((tracing_opentelemetry::layer().with_tracer(provider.tracer("hiresmed")), provider))
    }
}
