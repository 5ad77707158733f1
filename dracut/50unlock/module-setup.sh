#!/bin/bash
# dracut module: volumes on EC2 instances, opened with keys from AWS KMS.
# Sourced by dracut when an image is built; dracut calls the functions.
# shellcheck disable=SC2154 # variables of dracut

# Included wherever there is a configuration; as packages install it, it needs
# nothing. An image that lacks unlock would boot on in the clear, so what is missing
# ends the build.
check() {
    local needs
    [[ -e /etc/unlock.toml ]] || return 255
    for_another_job && return 1
    needs=$(/usr/lib/unlock/unlock needs 2> /dev/null) && [[ ! $needs ]] && return 1
    require_binaries dmsetup /usr/lib/unlock/unlock || {
        dfatal "/etc/unlock.toml is there, but dmsetup or /usr/lib/unlock/unlock is not"
        exit 1
    }
}

# Images that write a crash dump, rescue or install a system are not to ask for keys,
# let alone to format.
for_another_job() {
    local module
    [[ ${IN_KDUMP-} == 1 ]] && return 0
    for module in kdumpbase rescue anaconda dmsquash-live; do
        [[ " ${dracutmodules-} ${add_dracutmodules-} ${force_add_dracutmodules-} " == *" $module "* ]] && return 0
    done
    return 1
}

# dm: udev rules that keep the volumes known to udev across the pivot. Newer dracuts
# have the queue that runs unlock.sh as a module.
depends() {
    local queue=("$dracutbasedir"/modules.d/*initqueue)
    echo dm
    if [[ -d ${queue[0]} ]] && ! dracut_module_included "systemd"; then
        echo initqueue
    fi
}

# Drivers for every type of instance, whatever this one has.
installkernel() {
    local kind name needs
    needs=$(/usr/lib/unlock/unlock needs) || exit 1
    while read -r kind name; do
        case $kind in
            module)
                # dracut before 055 takes what is built in for missing.
                grep -qs "/$name\.ko$" "$srcmods/modules.builtin" && continue
                hostonly='' instmods -c "$name" || exit 1
                ;;
            driver) hostonly='' instmods "$name" ;;
        esac
    done <<< "$needs"
    return 0
}

# dracut goes on after a failed install, hence the exits.
install() {
    local kind name needs
    needs=$(/usr/lib/unlock/unlock needs) || {
        dfatal "unlock refuses /etc/unlock.toml; no image is made"
        exit 1
    }
    inst_multiple modprobe sleep /usr/lib/unlock/unlock || exit 1
    while read -r kind name; do
        case $kind in
            file) inst_multiple "$name" || exit 1 ;;
            program)
                rm -f -- "$initdir$name" # busybox may have taken the name
                inst_multiple "$name" || exit 1
                ;;
            directory) mkdir -p -- "${dracutsysrootdir-}$name" ;; # of the root, which may be read-only at boot
            shadow)
                mkdir -p "$initdir${name%/*}"
                (umask 077 && grep '^root:' "${dracutsysrootdir-}/etc/shadow" > "$initdir$name") || exit 1
                ;;
        esac
    done <<< "$needs"

    if dracut_module_included "systemd"; then
        install_units
    else
        inst_hook initqueue/settled 00 "$moddir/unlock.sh"
        inst_hook initqueue/finished 00 "$moddir/unlock-finished.sh"
        inst_hook pre-pivot 60 "$moddir/unlock-mount.sh"
        inst_hook emergency 00 "$moddir/unlock-cap.sh"
    fi
}

install_units() {
    local unit units=$systemdsystemunitdir
    inst_multiple udevadm || exit 1
    for unit in unlock unlock-mount; do # ours are there even where /lib is a directory of its own
        inst_simple "/usr/lib/systemd/system/$unit.service" "$units/$unit.service" || exit 1
    done
    inst_multiple -o "$units/cryptsetup-pre.target" # which dracut may not take along
    # dracut before 050 does not set SYSTEMCTL.
    "${SYSTEMCTL:-systemctl}" -q --root "$initdir" enable unlock.service unlock-mount.service || exit 1
    for unit in emergency rescue dracut-emergency; do
        inst_simple /usr/lib/unlock/emergency.conf "/etc/systemd/system/$unit.service.d/unlock.conf" || exit 1
    done
    inst_hook emergency 00 "$moddir/unlock-hold.sh"
    if dracut_module_included "network-legacy"; then
        inst_script "$moddir/unlock-network.sh" /usr/lib/unlock/network || exit 1
        inst_simple "$moddir/unlock-network.conf" /etc/systemd/system/unlock.service.d/network.conf || exit 1
    fi
}
