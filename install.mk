# Included by Makefile: installs unlock and its hooks below DESTDIR, each where its
# initramfs generator looks for it. No generator needs to be there.
#
#	make install-hooks DESTDIR=/

UNLOCK_LIB       = $(DESTDIR)/usr/lib/unlock
UNIT_DIR         = $(DESTDIR)/usr/lib/systemd/system
DRACUT_DIR       = $(DESTDIR)/usr/lib/dracut/modules.d/50unlock
INITRAMFS_TOOLS  = $(DESTDIR)/usr/share/initramfs-tools
MKINITCPIO_DIR   = $(DESTDIR)/usr/lib/initcpio

install-hooks: bin/unlock
	install -D -m 755 bin/unlock $(UNLOCK_LIB)/unlock
	install -m 755 packaging/rebuild $(UNLOCK_LIB)/rebuild
	install -m 644 systemd/emergency.conf systemd/attached.rules $(UNLOCK_LIB)
	install -D -m 644 -t $(UNIT_DIR) systemd/unlock.service systemd/unlock-mount.service systemd/unlock-guard.service systemd/unlock-record.service systemd/unlock@.service
	mkdir -p $(UNIT_DIR)/local-fs.target.requires
	ln -sfn ../unlock-guard.service $(UNIT_DIR)/local-fs.target.requires/unlock-guard.service
	mkdir -p $(UNIT_DIR)/multi-user.target.wants
	ln -sfn ../unlock-record.service $(UNIT_DIR)/multi-user.target.wants/unlock-record.service
	install -D -m 755 -t $(DRACUT_DIR) $(wildcard dracut/50unlock/*.sh)
	install -D -m 644 -t $(DRACUT_DIR) dracut/50unlock/unlock-network.conf
	install -D -m 755 -t $(INITRAMFS_TOOLS)/hooks initramfs-tools/hooks/unlock
	install -D -m 644 -t $(INITRAMFS_TOOLS)/conf-hooks.d initramfs-tools/conf-hooks.d/unlock
	install -D -m 755 -t $(INITRAMFS_TOOLS)/scripts/init-top initramfs-tools/scripts/init-top/early-unlock
	install -D -m 755 -t $(INITRAMFS_TOOLS)/scripts/init-premount initramfs-tools/scripts/init-premount/unlock
	install -D -m 755 -t $(INITRAMFS_TOOLS)/scripts/init-bottom initramfs-tools/scripts/init-bottom/unlock
	install -D -m 755 -t $(INITRAMFS_TOOLS)/scripts/panic initramfs-tools/scripts/panic/unlock
	install -D -m 644 -t $(MKINITCPIO_DIR)/install mkinitcpio/install/unlock mkinitcpio/install/sd-unlock
	install -D -m 644 -t $(MKINITCPIO_DIR)/hooks mkinitcpio/hooks/unlock
	install -D -m 644 -t $(MKINITCPIO_DIR)/udev mkinitcpio/udev/11-unlock.rules

# For systems without systemd (Debian's sysvinit); then say: update-rc.d unlock-guard defaults
install-init:
	install -D -m 755 -t $(DESTDIR)/etc/init.d sysvinit/unlock-guard

# Removes what install-hooks put there; rebuild the initramfs afterwards.
uninstall-hooks:
	rm -rf $(UNLOCK_LIB) $(DRACUT_DIR)
	rm -f $(addprefix $(UNIT_DIR)/,unlock.service unlock-mount.service unlock-guard.service local-fs.target.requires/unlock-guard.service unlock@.service unlock-record.service multi-user.target.wants/unlock-record.service)
	rm -f $(DESTDIR)/etc/init.d/unlock-guard
	rm -f $(INITRAMFS_TOOLS)/hooks/unlock $(INITRAMFS_TOOLS)/conf-hooks.d/unlock $(INITRAMFS_TOOLS)/scripts/init-top/early-unlock $(INITRAMFS_TOOLS)/scripts/init-premount/unlock $(INITRAMFS_TOOLS)/scripts/init-bottom/unlock $(INITRAMFS_TOOLS)/scripts/panic/unlock
	rm -f $(MKINITCPIO_DIR)/install/unlock $(MKINITCPIO_DIR)/install/sd-unlock $(MKINITCPIO_DIR)/hooks/unlock $(MKINITCPIO_DIR)/udev/11-unlock.rules

.PHONY: install-hooks install-init uninstall-hooks
