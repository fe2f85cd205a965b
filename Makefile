# What one runs, by name; how it is done is in e2e/tools/.
# Variables: OFA_CACHE (where servers and tools are installed), and those named below.

.DEFAULT_GOAL := help
.PHONY: help demo test e2e e2e-swarm bench soak chaos fuzz fmt lint generate check-generated

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: ## the whole on this machine, with a live view (DEMO_SECONDS=30, REPLAY=file, ASSETS=1000)
	@e2e/tools/demo

test: ## all tests, against real servers
	@e2e/tools/test

e2e: ## a factory on a Kubernetes of three real nodes: rolled, reconfigured, a power cut (root; ten minutes)
	@e2e/tools/e2e

e2e-swarm: ## a factory on a Docker Swarm of three engines, a shard rolled under load (root; five minutes)
	@e2e/tools/e2e-swarm

bench: ## the benchmarks, one line each
	@e2e/tools/bench

soak: ## the simulations of faults with 100,000 schedules
	@OFA_SIM_SCHEDULES=100000 cargo test --release -p ofa-forwarder -p ofa-client --lib simulation

chaos: ## 200 schedules of faults against real processes (OFA_CHAOS_SCHEDULES, OFA_CHAOS_SEED)
	@OFA_CHAOS_SCHEDULES=$${OFA_CHAOS_SCHEDULES:-200} e2e/tools/test --test chaos -- --nocapture

fuzz: ## what comes from outside, fed with anything (FUZZ_SECONDS=60 for each target)
	@e2e/tools/fuzz

fmt: ## format the code
	@cargo fmt --all

lint: ## clippy, formatting, licences and sources of dependencies
	@e2e/tools/lint

generate: ## write the generated files anew (manifests of the resources)
	@e2e/tools/generate

check-generated: ## fail if a generated file is not up to date
	@e2e/tools/generate --check
