# Included by Makefile, after install.mk.
#
#	make release        deb and rpm for amd64 and arm64, unlockctl for other systems, SBOMs, SHA256SUMS, in bin/release
#	make deb-test       installs, upgrades, removes the deb in systems of Debian
#	make deploy-test    what can be checked of deploy/ without an account
#	make image          a raw disk image of Debian 13 with unlock, as EC2 imports it (as root)
#	make release-test   the same twice, in two directories: identical, and no errors of lintian and rpmlint
#
# Everything in bin/release depends on the commit, and on the version of Go, alone.

RELEASE       = bin/release
CACHE         = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/unlock-test
RELEASE_ARCHS = amd64 arm64
# Makes the packages; kept with the downloads of the tests.
NFPM          = $(CACHE)/nfpm-2.45.0/nfpm
RELEASE_PACKAGES = lintian rpm rpmlint

# A tag vX.Y.Z is a release; anything else is older than all of them, and newer
# than what was committed before.
RELEASE_VERSION := $(shell git describe --exact-match --match 'v[0-9]*' 2>/dev/null | sed 's/^v//' | grep . || \
	TZ=UTC git log -1 --abbrev=12 --date=format-local:%Y%m%d%H%M%S --format='0~git%cd.%h')$(shell git diff --quiet HEAD || echo +dirty)
export SOURCE_DATE_EPOCH := $(shell git log -1 --format=%ct)
export RELEASE_MAINTAINER ?= $(shell git log -1 --format='%an <%ae>')

# Go builds for the other architecture as it does for its own.
$(RELEASE)/%/unlock: FORCE
	GOARCH=$* $(UNLOCK_ENV) go build $(UNLOCK_FLAGS) -o $@ ./cmd/unlock
$(RELEASE)/%/unlockctl: FORCE
	GOARCH=$* CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$(VERSION)" -o $@ ./cmd/unlockctl
$(RELEASE)/%: VERSION = $(RELEASE_VERSION)

# What the packages of all architectures have in common. install-hooks brings
# bin/unlock, which each architecture replaces by its own.
MAN   = $(RELEASE)/common/usr/share/man
SHARE = $(RELEASE)/common/usr/share
release-common: DESTDIR = $(RELEASE)/common
release-common: release-clean install-hooks bin/unlockctl
	mkdir -p $(MAN)/man5 $(MAN)/man8 $(addprefix $(SHARE)/,bash-completion/completions zsh/vendor-completions fish/vendor_completions.d)
	for page in unlock.8 unlockctl.8 unlock.toml.5; do \
		bin/unlockctl man $$page | gzip -9n >$(MAN)/man$${page##*.}/$$page.gz || exit 1; \
	done
	bin/unlockctl completion bash >$(SHARE)/bash-completion/completions/unlockctl
	bin/unlockctl completion zsh >$(SHARE)/zsh/vendor-completions/_unlockctl
	bin/unlockctl completion fish >$(SHARE)/fish/vendor_completions.d/unlockctl.fish
	printf -- '- semver: "%s"\n  date: %s\n  packager: %s\n  deb: {urgency: medium, distributions: [unstable]}\n  changes: [{note: "See the log of the repository."}]\n' \
		'$(RELEASE_VERSION)-1' "$$(date -u -d @$$SOURCE_DATE_EPOCH +%FT%TZ)" "$$RELEASE_MAINTAINER" >$(RELEASE)/changelog.yaml

release-clean:
	rm -rf $(RELEASE)

release-%: release-common $(RELEASE)/%/unlock $(RELEASE)/%/unlockctl $(NFPM)
	cp -a $(RELEASE)/common $(RELEASE)/$*/root
	install -m 755 $(RELEASE)/$*/unlock $(RELEASE)/$*/root/usr/lib/unlock/unlock
	install -D -m 755 $(RELEASE)/$*/unlockctl $(RELEASE)/$*/root/usr/bin/unlockctl
	go run ./packaging/release licenses $(RELEASE)/$*/unlock $(RELEASE)/$*/unlockctl >$(RELEASE)/$*/licenses
	go run ./packaging/release sbom '$(RELEASE_VERSION)' $(RELEASE)/$*/unlock $(RELEASE)/$*/unlockctl >$(RELEASE)/unlock_$(RELEASE_VERSION)_$*.cdx.json
	mv $(RELEASE)/$*/root/usr/share/man $(RELEASE)/$*/
	chmod -R u=rwX,go=rX $(RELEASE)/$*
	find $(RELEASE)/$* -exec touch -h -d @$$SOURCE_DATE_EPOCH {} +
	for packager in deb rpm; do \
		ARCH=$* VERSION='$(RELEASE_VERSION)' TREE=$(RELEASE)/$* $(NFPM) package -f packaging/nfpm.yaml -p $$packager -t $(RELEASE) || exit 1; \
	done

# unlockctl alone, for administrators' machines. They come after the packages, whose
# making begins with an empty directory.
OTHER_SYSTEMS = darwin_amd64 darwin_arm64 windows_amd64.exe
$(addprefix tool-,$(OTHER_SYSTEMS)): tool-%: $(addprefix release-,$(RELEASE_ARCHS))
	GOOS=$(word 1,$(subst _, ,$*)) GOARCH=$(word 2,$(subst _, ,$(basename $*))) CGO_ENABLED=0 go build -trimpath -buildvcs=false \
		-ldflags "-s -w -X main.version=$(RELEASE_VERSION)" -o $(RELEASE)/unlockctl_$(RELEASE_VERSION)_$* ./cmd/unlockctl

release: $(addprefix release-,$(RELEASE_ARCHS)) $(addprefix tool-,$(OTHER_SYSTEMS))
	rm -rf $(RELEASE)/common $(addprefix $(RELEASE)/,$(RELEASE_ARCHS)) $(RELEASE)/changelog.yaml
	cd $(RELEASE) && sha256sum *.deb *.rpm *.json unlockctl_* >SHA256SUMS && cat SHA256SUMS

# Of the commit, in clones as others have them.
release-test: release-packages
	rm -rf bin/release-test
	for umask in 022 077; do \
		git clone -q . bin/release-test/umask-$$umask && (cd bin/release-test/umask-$$umask && umask $$umask && $(MAKE) release) || exit 1; \
	done
	cmp bin/release-test/umask-022/$(RELEASE)/SHA256SUMS bin/release-test/umask-077/$(RELEASE)/SHA256SUMS
	lintian --fail-on error --tag-display-limit 0 bin/release-test/umask-022/$(RELEASE)/*.deb
	rpmlint -c packaging/rpm/rpmlint.toml bin/release-test/umask-022/$(RELEASE)/*.rpm
	rm -rf bin/release-test

# FILES is a directory laid over the root of the image, with etc/unlock.toml; the
# other settings are those of packaging/image/build.
IMAGE_ARCH     = amd64
IMAGE          = bin/unlock-$(IMAGE_ARCH).img
IMAGE_TOOLS    = mmdebstrap mtools fdisk e2fsprogs
IMAGE_PACKAGES =
DEB            = $(RELEASE)/unlock_$(RELEASE_VERSION)-1_$(IMAGE_ARCH).deb
export UKI IMAGE_SIZE IMAGE_PACKAGES
image: image-tools $(DEB)
	packaging/image/build $(DEB) $(IMAGE) $(FILES)

$(RELEASE)/unlock_$(RELEASE_VERSION)-1_$(IMAGE_ARCH).deb: FORCE
	$(MAKE) release RELEASE_ARCHS=$(IMAGE_ARCH)

image-tools:
	@scripts/packages $(IMAGE_TOOLS)

# The systems are those of the scenarios of test/distro, which make them.
deb-test: RELEASE_ARCHS = amd64
deb-test: release
	systems=$$(scripts/qemu-test --systems) && packaging/install-test $(RELEASE)/*_amd64.deb $$systems

# Debian's packer knows no plugins, hence -syntax-only; no provider of terraform is at
# hand, hence no validate but of what needs none. cfn-lint is Amazon's, from PyPI. What
# runs Athena's queries in its place comes from npm: test/athena/run.mjs says what.
TERRAFORM = $(CACHE)/terraform-1.5.7/terraform
ATHENA    = $(CACHE)/athena
deploy-test: $(TERRAFORM) $(ATHENA)/node_modules/.package-lock.json
	@scripts/packages packer
	packer validate -syntax-only deploy/packer/unlock.pkr.hcl
	$(TERRAFORM) fmt -check -recursive deploy/terraform
	UNLOCK_TERRAFORM=$(TERRAFORM) go test -tags terraform ./cmd/unlockctl/internal/policy/deploytest
	UNLOCK_ATHENA=$(ATHENA) go test -tags athena -run Queries ./cmd/unlockctl/internal/audit
	if command -v cfn-lint >/dev/null; then cfn-lint deploy/cloudformation.yaml; else echo "cfn-lint is not installed: the template was not linted" >&2; fi

$(TERRAFORM):
	GOBIN=$(@D) go install github.com/hashicorp/terraform@v1.5.7

$(ATHENA)/node_modules/.package-lock.json: test/athena/package.json test/athena/package-lock.json
	@command -v npm >/dev/null || scripts/packages nodejs npm
	rm -rf $(ATHENA) && mkdir -p $(ATHENA) && cp $^ $(ATHENA)
	cd $(ATHENA) && npm ci --ignore-scripts --no-audit --no-fund --loglevel error
	touch $@

release-packages:
	@scripts/packages $(RELEASE_PACKAGES)

$(NFPM):
	GOBIN=$(@D) go install github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.0

.PHONY: image image-tools release release-clean release-common release-test release-packages deb-test deploy-test
