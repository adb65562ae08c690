SHELL := /bin/bash
NODE := ./node_modules/.bin/hangar-node
export PATH := $(CURDIR)/scripts:$(PATH)

.PHONY: check
check:
	npx tsc --noEmit
	npx oxlint --type-aware
	npx oxfmt --check
