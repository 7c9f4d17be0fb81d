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
# package, Cinder and the test tools. Says nothing when it is up to date.
#
#   VENV     where, if not .venv beside this directory
#   PYTHON   which Python to make it with, if not python3 (3.11 or later)

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
python=${PYTHON:-python3}

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

install_packages() {
    local packages
    mapfile -t packages < <(missing_packages)
    if [ ${#packages[@]} -eq 0 ]; then
        return
    fi
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        say "Please install: ${packages[*]}"
        exit 1
    fi
    say "Installing ${packages[*]} with apt-get ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq update
    apt-get -qq install -y --no-install-recommends "${packages[@]}" >/dev/null
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

install_packages
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    say "$python is older than 3.11; name a newer one with PYTHON=..."
    exit 1
fi

# Two scripts may be started at the same time.
mkdir -p "$venv"
exec 9>"$venv/lock"
flock 9

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
