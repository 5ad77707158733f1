# make          builds bin/unlock and bin/unlockctl
# make demo     boots a simulated EC2 instance twice and shows what happens
# make check    what needs neither root nor packages: vet, lint, unit tests
# make test     everything that CI runs, as root: some 30 minutes on two processors
# make test-boots, test-network, test-faults, test-attest, test-images, test-generators   all boots, of which CI runs some: hours
# make size     the sizes of unlock, against their budget

SHELL = /bin/bash -o pipefail
VERSION := $(shell git describe --always --dirty 2>/dev/null || echo devel)

# unlock is static, without paths of the build machine and without symbols; HTTP/2
# would be 400 kB that S3, KMS and IMDS never use. runtime/secret erases what code
# that handles keys leaves on stacks and heap. Functions begin at multiples of 8 bytes,
# not of 32: that is 140 kB of nothing.
UNLOCK_ENV   = CGO_ENABLED=0 GOEXPERIMENT=runtimesecret
UNLOCK_FLAGS = -trimpath -buildvcs=false -tags nethttpomithttp2 -ldflags "-s -w -funcalign=8 -X main.version=$(VERSION)" $(UNLOCK_INLINE)
# Inlining is more than 500 kB of unlock (330 kB compressed). What computes keeps it, and the
# certified cryptographic module stays as it was compiled when it was certified: it has a
# path of its own. TLS, certificates, RSA and the curves of NIST call what computes.
UNLOCK_INLINE = -gcflags=all=-l $(patsubst %,-gcflags=%=,crypto/... vendor/golang.org/x/crypto/... golang.org/x/crypto/... \
	hash/... encoding/binary encoding/base64 encoding/hex unlock/internal/luks/material) \
	$(patsubst %,-gcflags=%=-l,crypto/tls/... crypto/x509/... crypto/rsa crypto/ecdsa crypto/elliptic crypto/ecdh crypto/hpke crypto/dsa vendor/golang.org/x/crypto/cryptobyte/... \
	crypto/mlkem crypto/ed25519 crypto/rand crypto/des crypto/rc4 crypto/hkdf \
	$(addprefix crypto/internal/fips140/,rsa ecdsa ecdh ed25519 nistec drbg tls12 tls13 hkdf))

SIZE_MAX      = 7600000
SIZE_ZSTD_MAX = 2600000

# What the tests and the demonstration need besides Go, git and make.
VM_PACKAGES   = qemu-system-x86 fdisk mmdebstrap kmod e2fsprogs xfsprogs btrfs-progs cryptsetup-bin awscli zstd
# Makers of everything that must be told from a blank disk.
FS_PACKAGES   = apfsprogs attr bcache-tools dosfstools drbd-utils erofs-utils exfatprogs f2fs-tools fdisk gdisk genisoimage \
	genromfs gfs2-utils hfsutils jfsutils lvm2 mount nilfs-tools ntfs-3g ocfs2-tools parted reiser4progs reiserfsprogs \
	squashfs-tools udftools util-linux
# Servers of networks, by which our clients are judged.
NET_PACKAGES  = dnsmasq-base iproute2 isc-dhcp-server kea-dhcp4-server kea-dhcp6-server procps radvd unbound
TEST_PACKAGES = $(VM_PACKAGES) $(FS_PACKAGES) $(NET_PACKAGES) $(IMAGE_TOOLS) ovmf qemu-system-arm mtools osslsigncode sbsigntool swtpm busybox-static groff-base jq prometheus shellcheck systemd tidy

all: bin/unlock bin/unlockctl

bin/unlock: FORCE
	$(UNLOCK_ENV) go build $(UNLOCK_FLAGS) -o $@ ./cmd/unlock

bin/arm64/unlock: FORCE
	GOARCH=arm64 $(UNLOCK_ENV) go build $(UNLOCK_FLAGS) -o $@ ./cmd/unlock

# The same with Go's certified cryptographic module, in FIPS 140-3 mode.
bin/fips/unlock: FORCE
	GOFIPS140=v1.0.0 $(UNLOCK_ENV) go build $(UNLOCK_FLAGS) -o $@ ./cmd/unlock

bin/unlockctl: FORCE
	CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/unlockctl

bin/qemu-test: FORCE
	$(TEST_ENV) go build -o $@ ./test/qemu

demo: vm-packages
	scripts/demo

# Two at a time, as tests wait and packages are compressed by one processor; benchmarks and
# machines have both for themselves.
test: test-packages
	$(MAKE) -j2 -O unit test-rest
	$(MAKE) size benchmarks
	scripts/qemu-test --soak 5 $(BOOTS)
# In turn, as a release is made step by step. It takes as long as unit.
test-rest:
	+@$(MAKE) -j1 lint vulnerabilities emulators release-test deploy-test fips

# One or more of each kind of boot. Three run at a time: those that make a system come first, then
# those that take longest, but no two beside each other that wait for a minute; all are in one queue.
BOOTS = debian13-dracut-systemd debian12-initramfs-tools denied-reboots al2023-denied disks-24 half-formatted no-initramfs \
	attest-cmdline recover root-volume optional-failed attest-first-boot mirror shares-cut kms-denied secrets-header \
	stripe-missing-member ephemeral open-close-grow converted-luks1 swapped-disk prompt \
	cut-forming second-boot stock-tools header-source two-disks secret-source \
	udev-ready fips confined bad-config foreign-disk binds \
	net-ipv6-only net-imds-behind-second-card net-dns-first-of-two-silent net-mtu-black-hole net-proxy

# It downloads nothing but Go modules, and runs the longest tests in part (go test -short). Tests that need root or a program
# say so and are skipped; CI, as root and with all programs, skips none. All is compiled once, and not for other systems, and
# vetted on the way. More runs at a time than there are processors, as tests wait.
check:
	$(GOFMT)
	@if command -v shellcheck >/dev/null; then shellcheck $(SHELL_TABS) $(SHELL_SPACES); else echo "make: shellcheck is not installed: scripts were not checked"; fi
	$(SHFMT) -d $(SHELL_TABS)
	$(SHFMT) -i 4 -bn -ci -sr -d $(SHELL_SPACES)
	$(TEST_ENV) go test -short -vet=all -p $$((2 * $$(nproc))) $(GO_TIMEOUT) ./...

# Longer: all boots of one distribution and of one machine; subnets; 81 faults; and disk images under UEFI firmware, arm64,
# the deb in its systems.
test-boots: test-packages
	scripts/qemu-test --group distributions,secrets,disks,volumes,standalone
test-network: test-packages
	scripts/qemu-test --group network,trail
test-faults: test-packages
	scripts/qemu-test --group faults
test-attest: test-packages
	scripts/qemu-test --group attest
test-images: test-packages deb-test
	scripts/qemu-test --group images-real
	scripts/qemu-test --group images
# Every generator that a suite of Debian brings, from the oldest to the newest.
test-generators: test-packages
	scripts/qemu-test --group generators

# Boots one Debian in several ways, one after the other in each round, and writes bin/bench-boot.md: docs/comparison.md.
ROUNDS = 5
RTT    = 500us
bench-boot: test-packages
	scripts/qemu-test --bench $(ROUNDS) --rtt $(RTT)

# A package's tests may take longer than Go's ten minutes where others keep all processors busy.
GO_TIMEOUT = -timeout 60m
# As unlock is built; what is to be compiled once is compiled with it.
TEST_ENV   = CGO_ENABLED=0 GOEXPERIMENT=runtimesecret
unit fips emulators: export UNLOCK_NEED_ALL = 1
unit:
	$(TEST_ENV) go test $(GO_TIMEOUT) ./...

# What does not depend on how things are encrypted is left out.
fips:
	GOFIPS140=v1.0.0 go test $(GO_TIMEOUT) -skip 'TestCrash|TestStorm|TestArgon2' ./cmd/unlock ./internal/ec2/attest ./internal/ec2 ./internal/keys ./internal/luks/... ./internal/secret ./internal/unlock

# Emulators of AWS that others wrote, kept with the other downloads of the tests.
EMULATORS = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/unlock-test/emulators
emulators: export UNLOCK_EMULATORS = $(EMULATORS)
emulators: $(EMULATORS)/ec2-metadata-mock $(EMULATORS)/versitygw
	$(TEST_ENV) go test $(GO_TIMEOUT) -tags emulators -run Emulators ./internal/keys ./cmd/unlockctl

$(EMULATORS)/ec2-metadata-mock:
	GOBIN=$(@D) go install github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock@v1.13.0

$(EMULATORS)/versitygw:
	GOBIN=$(@D) go install github.com/versity/versitygw/cmd/versitygw@v1.8.0

# govulncheck exits with 3 where it finds something; without its database it cannot look.
vulnerabilities: $(EMULATORS)/govulncheck
	@$< ./... || { test $$? -ne 3 && echo "make: no judgement on vulnerabilities: govulncheck could not look"; }

$(EMULATORS)/govulncheck:
	GOBIN=$(@D) go install golang.org/x/vuln/cmd/govulncheck@v1.9.0

# They fail when a budget is exceeded.
benchmarks:
	$(TEST_ENV) go test -run '^$$' -bench . -skip Hostile -benchtime 20x ./internal/luks/luks2 ./internal/block
	$(TEST_ENV) go test -run '^$$' -bench Hostile -benchtime 1x ./internal/luks/luks2
	$(TEST_ENV) go test -run '^$$' -bench Audit -benchtime 1x ./cmd/unlockctl
	$(TEST_ENV) go test -run '^$$' -bench SilentNameServer -benchtime 10x ./internal/netup

size: bin/unlock
	@raw=$$(stat -c %s bin/unlock) && zst=$$(zstd -19 -c -q bin/unlock | wc -c) && \
	echo "unlock: $$raw bytes (at most $(SIZE_MAX)); zstd -19: $$zst bytes (at most $(SIZE_ZSTD_MAX))" && \
	! readelf -d bin/unlock | grep -q NEEDED && test $$raw -le $(SIZE_MAX) -a $$zst -le $(SIZE_ZSTD_MAX)

# Each fuzz target briefly. What they found runs with the unit tests; what they will find
# is chance, so make test leaves them out. Runs are counted: where a time ends them, Go now
# and then takes that for a finding.
FUZZ = go test -run '^$$' -fuzzminimizetime 1x
fuzz:
	$(FUZZ) -fuzz FuzzParse -fuzztime 60000x ./internal/config
	$(FUZZ) -fuzz FuzzScan -fuzztime 80000x ./cmd/unlockctl/internal/trail
	$(FUZZ) -fuzz 'FuzzRead$$' -fuzztime 20000x ./cmd/unlockctl/internal/measure
	$(FUZZ) -fuzz FuzzReadLog -fuzztime 40000x ./cmd/unlockctl/internal/measure
	$(FUZZ) -fuzz FuzzProbe -fuzztime 15000x ./internal/block
	$(FUZZ) -fuzz FuzzRead -fuzztime 6000x ./internal/luks/luks2
	$(FUZZ) -fuzz FuzzCMS -fuzztime 60000x ./internal/ec2/attest
	$(FUZZ) -fuzz FuzzNSM -fuzztime 60000x ./internal/ec2/attest
	$(FUZZ) -fuzz FuzzTPM -fuzztime 30000x ./internal/ec2/tpm

# The generators' communities indent differently.
SHELL_TABS   = .ci/run scripts/demo scripts/packages scripts/qemu-test $(wildcard test/*/*.sh test/qemu/guest/*.sh) test/qemu/image/usr/local/sbin/scenario \
	docs/check-attestation.sh packaging/install-test packaging/rebuild packaging/image/build packaging/image/system deploy/packer/install.sh deploy/mkosi/mkosi.postinst.chroot \
	$(wildcard initramfs-tools/hooks/* initramfs-tools/scripts/*/* initramfs-tools/conf-hooks.d/* packaging/rpm/post* packaging/deb/post* sysvinit/*)
SHELL_SPACES = $(wildcard dracut/50unlock/*.sh mkinitcpio/hooks/* mkinitcpio/install/*)
SHFMT        = $(TEST_ENV) go tool shfmt
GOFMT        = @files=$$(gofmt -l .) && test -z "$$files" || { echo "make: gofmt would change: $$files"; exit 1; }
lint: other-systems
	$(GOFMT)
	$(TEST_ENV) go vet ./...
	shellcheck $(SHELL_TABS) $(SHELL_SPACES)
	$(SHFMT) -d $(SHELL_TABS)
	$(SHFMT) -i 4 -bn -ci -sr -d $(SHELL_SPACES)

# The administrator's tool is for machines of administrators, too.
other-systems:
	for system in darwin windows; do CGO_ENABLED=0 GOOS=$$system go build -o /dev/null ./cmd/unlockctl || exit 1; done

vm-packages:
	@scripts/packages $(VM_PACKAGES)

test-packages:
	@scripts/packages $(TEST_PACKAGES)

clean:
	rm -rf bin

FORCE:

include install.mk
include packaging/release.mk

.PHONY: all demo check test test-rest test-network test-faults test-attest test-images test-generators bench-boot unit fips vulnerabilities emulators benchmarks size fuzz lint other-systems vm-packages test-packages clean FORCE
