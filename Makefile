# What people, the README and CI call. Each target installs what it is missing (scripts/setup).

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run build demo test bench lint clean

# Where rustup puts cargo, on a machine where setup has just installed it.
CARGO_HOME ?= $(HOME)/.cargo
export PATH := $(CARGO_HOME)/bin:$(PATH)

target := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
sudo := $(if $(filter 0,$(shell id -u)),,sudo)
# Extra arguments for `plimsoll run`: make run ARGS='--listen 127.0.0.1:7576'
ARGS ?=

help: ## list these targets
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 16

run: build ## build, then watch every container on this machine (root or sudo)
	$(sudo) $(target)/release/plimsoll run $(ARGS)

build: ## build the release binary, installing what that needs
	@scripts/setup build
	cargo build --release --locked -p plimsoll-cli

demo: ## the story in three minutes: learn, attack, remove the container, ask what happened
	@scripts/setup demo
	cargo build --release --locked -p plimsoll-cli
	@PLIMSOLL_BIN=$(abspath $(target))/release/plimsoll demo/run

test: ## all tests; as root with real containers in a private Docker
	@if [ "$$(id -u)" = 0 ]; then scripts/setup test; else scripts/setup build; fi
	scripts/test

bench: ## ratios with and without the sensor, alternating in one run (root)
	@scripts/setup bench
	scripts/bench

lint: ## formatting, clippy, shellcheck, and cargo-deny where it is installed
	@scripts/setup lint
	scripts/lint

clean: ## remove what was built, and the cached container images
	cargo clean
	@. scripts/lib/common.sh && rm -rf "$$(cache_dir)/images"
