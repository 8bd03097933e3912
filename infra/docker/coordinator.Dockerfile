# syntax=docker/dockerfile:1
# The coordinator: the HTTP API and the dispatchers. From the project's root:
#   docker build -f infra/docker/coordinator.Dockerfile -t hiresmed-coordinator .
FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY . .
# The registry and the compiled crates are kept between builds by the engine, and are in no image.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,id=hiresmed-coordinator-target,sharing=locked \
    cargo build --release --locked -p hiresmed-coordinator --features fleet --bin hiresmed-coordinator \
    && install -D target/release/hiresmed-coordinator /out/hiresmed-coordinator

FROM debian:bookworm-slim
# Certificates of public authorities, for an object store over TLS; curl asks for health.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /nonexistent --shell /usr/sbin/nologin hiresmed
COPY --from=build /out/hiresmed-coordinator /usr/local/bin/hiresmed-coordinator
USER 10001:10001
WORKDIR /
EXPOSE 8420
ENV HIRESMED_CONFIG=/etc/hiresmed/coordinator.toml
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--show-error", "--output", "/dev/null", "http://127.0.0.1:8420/healthz"]
ENTRYPOINT ["hiresmed-coordinator"]
CMD ["serve"]
