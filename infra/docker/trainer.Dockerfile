# syntax=docker/dockerfile:1
# A trainer: trains the models by libtorch, on the CPU, and judges what it made through ONNX Runtime. From the project's root:
#   docker build -f infra/docker/trainer.Dockerfile -t hiresmed-trainer .
FROM python:3.11-slim-bookworm AS runtimes
WORKDIR /source
# By digest, out of its Python package; nothing of Python is in the last image.
COPY infra/runtimes infra/runtimes
RUN python3 infra/runtimes/fetch.py libtorch onnxruntime --to /out

FROM rust:1.95-bookworm AS build
WORKDIR /source
COPY --from=runtimes /out /opt/hiresmed/runtimes
ENV LIBTORCH=/opt/hiresmed/runtimes/libtorch \
    LD_LIBRARY_PATH=/opt/hiresmed/runtimes/libtorch/lib
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/source/target,id=hiresmed-trainer-target,sharing=locked \
    cargo build --release --locked -p hiresmed-worker --features training --bin hiresmed-trainer \
    && install -D target/release/hiresmed-trainer /out/hiresmed-trainer

FROM debian:bookworm-slim
# libstdc++ is libtorch's; certificates are for an object store over TLS; curl asks for health.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl libstdc++6 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --user-group --home-dir /nonexistent --shell /usr/sbin/nologin hiresmed \
    && install -d -o 10001 -g 10001 /var/lib/hiresmed
COPY --from=runtimes /out/libtorch/lib /opt/hiresmed/runtimes/libtorch/lib
COPY --from=runtimes /out/onnxruntime /opt/hiresmed/runtimes/onnxruntime
COPY --from=build /out/hiresmed-trainer /usr/local/bin/hiresmed-trainer
USER 10001:10001
WORKDIR /var/lib/hiresmed
# The disk cache of models and data; it may be lost at any time, and a warm one starts faster.
VOLUME /var/lib/hiresmed
EXPOSE 8421
ENV HIRESMED_CONFIG=/etc/hiresmed/worker.toml \
    HIRESMED_RUNTIMES=/opt/hiresmed/runtimes \
    LD_LIBRARY_PATH=/opt/hiresmed/runtimes/libtorch/lib \
    GOMP_SPINCOUNT=0 \
    GLIBC_TUNABLES=glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=4294967296 \
    HIRESMED_SCRATCH=/var/lib/hiresmed/scratch \
    TMPDIR=/var/lib/hiresmed
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--show-error", "--output", "/dev/null", "http://127.0.0.1:8421/healthz"]
ENTRYPOINT ["hiresmed-trainer", "work"]
