# Two commands matter: `make demo` and `make test`. Each does all the set-up that it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
DATA ?= data
OUT ?= out
runtimes := infra/runtimes/fetch.py
environment := . infra/runtimes/environment

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1\t\2/' | expand -t 18

.PHONY: runtimes runtimes-cuda trainer-runtime
runtimes:
	@$(PYTHON) $(runtimes) onnxruntime
runtimes-cuda: ## fetch ONNX Runtime's CUDA build, for `--device cuda`; the machine brings CUDA 13, cuDNN 9 and the driver
	@$(PYTHON) $(runtimes) onnxruntime-cuda
trainer-runtime:
	@$(PYTHON) $(runtimes) libtorch

.PHONY: build
build: runtimes ## fetch ONNX Runtime and build target/release/hiresmed; FEATURES=s3 adds what takes minutes: images from buckets
	cargo build --release --locked -p hiresmed-cli --features "$(FEATURES)"

.PHONY: trainer
trainer: build trainer-runtime ## fetch libtorch and build target/release/hiresmed-trainer
	$(environment); cargo build --release --locked -p hiresmed-worker --features training --bin hiresmed-trainer

.PHONY: demo
demo: build ## make twelve labelled synthetic lung CT slices in out/demo
	target/release/hiresmed demo --out $(OUT)/demo

.PHONY: test-tools
test-tools: runtimes trainer-runtime
	@tests/tools/install

# With the features of all members, so that dependencies are built once for the programs, which end-to-end tests start, and for both
# runs of the tests. `--test trainer` builds the trainer.
training := hiresmed-models/training,hiresmed-worker/training

.PHONY: test
test: test-tools ## run every test, the ones against libtorch and the end-to-end ones included
	$(environment); \
	export HIRESMED_TEST_PYTHON="$$PWD/.runtimes/test-python/bin/python"; \
	cargo build --locked --workspace --bins --tests --features hiresmed-cli/s3; \
	cargo test --locked --workspace --features hiresmed-cli/s3,$(training) --lib --test trainer --test training_memory; \
	cargo test --locked --workspace --features hiresmed-cli/s3

.PHONY: bench
bench: build trainer-runtime ## measure speed and memory beside PyTorch; the last line is JSON (20 minutes)
	@tests/peers/install
	$(environment); cargo build --release --locked -p hiresmed-models --features training --example steps
	$(environment); .runtimes/peer-python/bin/python tests/peers/bench.py

SECONDS ?= 300
TARGET ?= dicom
.PHONY: fuzz
fuzz: ## fuzz what reads images: TARGET=dicom, codecs, raster or volume, for SECONDS (shared/imaging/fuzz/README.md)
	@shared/imaging/fuzz/fuzz $(TARGET) $(SECONDS)

JOBS ?= 100000
.PHONY: soak
soak: test-tools ## JOBS no-op jobs through a fleet whose parts and servers are killed at random; the last line is JSON
	cargo build --release --locked -p hiresmed-tests --bins
	target/release/soak $(JOBS)

.PHONY: bench-queue
bench-queue: test-tools ## our queue beside Celery and Dramatiq on one RabbitMQ, and fair shares; the last line is JSON
	tests/peers/install-queue
	cargo build --release --locked -p hiresmed-tests --bins
	target/release/bench-queue .runtimes/queue-peers/bin/python

.PHONY: bench-worker
bench-worker: fleet test-tools ## a real worker's cold start, and its memory over 2,000 jobs; the last line is JSON
	$(PYTHON) tests/peers/bench_worker.py

.PHONY: fleet fleet-up fleet-down
fleet: runtimes ## build the fleet's programs: target/release/hiresmed-coordinator and hiresmed-worker
	cargo build --release --locked -p hiresmed-coordinator --features fleet --bin hiresmed-coordinator
	cargo build --release --locked -p hiresmed-worker --features fleet --bin hiresmed-worker
fleet-up: fleet ## start a whole fleet on this machine as processes, without containers (infra/docs/FLEET.md)
	@infra/local-fleet/local-fleet up
fleet-down: ## stop what fleet-up started
	@infra/local-fleet/local-fleet down

.PHONY: models
models: trainer ## train the shipped model pack from DATA=folder of data sets (hours; resumes where it stopped)
	infra/pack/train $(DATA)
