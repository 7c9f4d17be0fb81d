#!/usr/bin/env bash
#    Licensed under the Apache License, Version 2.0 (the "License"); you may
#    not use this file except in compliance with the License. You may obtain
#    a copy of the License at
#
#         http://www.apache.org/licenses/LICENSE-2.0
#
#    Unless required by applicable law or agreed to in writing, software
#    distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
#    WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
#    License for the specific language governing permissions and limitations
#    under the License.

# Makes the environment that the other scripts run in, once: .venv with this
# package, Cinder and the test tools, and what throw-away guests boot. Says
# nothing when it is up to date.
#
#   VENV     where, if not .venv beside this directory
#   PYTHON   which Python to make it with, if not python3 (3.11 or later)

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
python=${PYTHON:-python3}
kernel=$venv/var/guest/kernel

say() {
    echo "$*" >&2
}

# What pip can't bring: Python itself with venv, and git, which pbr takes
# the version from.
missing_packages() {
    command -v "$python" >/dev/null || echo python3
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    command -v git >/dev/null || echo git
}

# Without these no guest boots, and tests that need one are skipped.
missing_for_guests() {
    command -v qemu-system-x86_64 >/dev/null || echo qemu-system-x86
    command -v qemu-storage-daemon >/dev/null || echo qemu-system-common
    command -v qemu-img >/dev/null || echo qemu-utils
    command -v busybox >/dev/null || echo busybox-static
    command -v syslinux >/dev/null || echo syslinux
    command -v mcopy >/dev/null || echo mtools
}

can_install() {
    [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null
}

install_packages() {
    local packages guests
    mapfile -t packages < <(missing_packages)
    mapfile -t guests < <(missing_for_guests)
    if can_install; then
        packages+=("${guests[@]}")
    fi
    if [ ${#packages[@]} -eq 0 ]; then
        return
    fi
    if ! can_install; then
        say "Please install: ${packages[*]}"
        exit 1
    fi
    say "Installing ${packages[*]} with apt-get ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
}

# The one that Debian's kernel for virtual machines is in now.
kernel_package() {
    apt-cache depends linux-image-cloud-amd64 2>/dev/null |
        sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p'
}

# Guests boot that kernel; this host keeps its own.
fetch_kernel() {
    local package scratch
    if [ -d "$kernel" ] || ! command -v apt-get >/dev/null; then
        return
    fi
    if can_install; then
        # Without it a download may be of what is no longer there.
        apt-get -qq update
    fi
    package=$(kernel_package)
    if [ -z "$package" ]; then
        return
    fi
    say "Fetching $package for guests ..."
    mkdir -p "${kernel%/*}"
    scratch=$(mktemp -d "$kernel.XXXXXX")
    if ! (
        cd "$scratch" &&
            apt-get -qq -o APT::Sandbox::User=root download "$package" &&
            dpkg-deb --fsys-tarfile ./*.deb | tar -x ./boot ./lib/modules &&
            rm ./*.deb
    ); then
        rm -rf "$scratch"
        # Who may install is promised guests, others may do without.
        ! can_install || exit 1
        return
    fi
    mv -T "$scratch" "$kernel"
}

# Say it each time: skipped tests are easily overlooked.
warn_without_guests() {
    local lacking
    mapfile -t lacking < <(missing_for_guests)
    [ -d "$kernel" ] || lacking+=(linux-image-cloud-amd64)
    if [ ${#lacking[@]} -ne 0 ]; then
        say "No guest can be booted here (lacking: ${lacking[*]}); tests" \
            "that need one are skipped."
    fi
}

# Changes when the environment has to be made again.
fingerprint() {
    {
        "$python" -VV
        cd "$root"
        cat setup.cfg setup.py pyproject.toml requirements.txt
        cat "${BASH_SOURCE[0]}"
    } | sha256sum
}

# Two scripts may be started at the same time.
mkdir -p "$venv"
exec 9>"$venv/lock"
flock 9

install_packages
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$python is older than 3.11; name a newer one with PYTHON=..."
    exit 1
fi
fetch_kernel
warn_without_guests

wanted=$(fingerprint)
if [ "$(cat "$venv/fingerprint" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

# A source tree without its history has no version that pbr could find.
if ! git -C "$root" rev-parse --quiet --verify HEAD >/dev/null 2>&1; then
    export PBR_VERSION=${PBR_VERSION:-0.0.1}
fi

begin=$SECONDS
say "Installing Cinder and the test tools into $venv (once, some minutes) ..."
"$python" -m venv "$venv"
"$venv/bin/pip" install -qq --disable-pip-version-check \
    -e "${root}[cinder,embedded,test]"
PYTHONPATH=$root "$venv/bin/python" -c \
    'from tests.fixtures import cinder_services as c; c.database_template()'
echo "$wanted" >"$venv/fingerprint"
say "Installed in $((SECONDS - begin)) s."
