# One command each. HANGAR_HOME=DIR picks another cloud; REGIONS=ord,fra and HOSTS_PER_REGION=2 shape a new one.
SHELL := /bin/bash
CPU := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x64)
NODE := $(CURDIR)/node_modules/node-linux-$(CPU)/bin/node
export PATH := $(CURDIR)/node_modules/node-linux-$(CPU)/bin:$(CURDIR)/node_modules/.bin:$(PATH)
SUDO := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=HANGAR_HOME,DATABASE_URL,PATH)
UP_FLAGS := $(if $(REGIONS),--regions $(REGIONS)) $(if $(HOSTS_PER_REGION),--hosts-per-region $(HOSTS_PER_REGION))
# Whole-system tests run clouds of their own, two at a time; the unit tests share the cores.
UNIT_TESTS = $(shell find src -name '*.test.ts')
SYSTEM_TESTS = $(wildcard test/*.test.ts)

.PHONY: up down destroy status doctor setup setup-test check guest test test-unit test-images bench fmt

up:
	@begun=$$EPOCHREALTIME; scripts/setup && UP_BEGUN=$$begun scripts/up $(UP_FLAGS)

down:
	@$(SUDO) ./hangar down

destroy:
	@$(SUDO) ./hangar destroy --yes

status:
	@./hangar status -a hello

doctor:
	@./hangar doctor

setup:
	@scripts/setup

setup-test:
	@scripts/setup test

# PID 1 of machines; setup builds it too.
guest:
	@guest/build

check: setup
	tsc --noEmit
	oxlint --type-aware
	oxfmt --check

# The last lines are the summary of Node's test runner.
test: setup-test check
	@$(SUDO) $(NODE) --import ./test/support/whole-report.ts \
		--test --test-concurrency=2 --test-timeout=1800000 --test-force-exit $(UNIT_TESTS) $(SYSTEM_TESTS)

test-unit: setup-test
	@$(SUDO) $(NODE) --test --test-concurrency=2 $(UNIT_TESTS)

# Stand-ins for public images, made from Debian packages.
test-images: setup-test
	@$(SUDO) $(NODE) test/images/build.ts

bench:
	@scripts/setup bench
	@for file in bench/*.ts; do $(SUDO) $(NODE) $$file || exit 1; done

fmt:
	@oxfmt
