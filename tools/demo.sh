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

# A volume's whole life on SPDK through real Cinder services; --help has more.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
export PYTHONPATH=$root

for argument in "$@"; do
    case $argument in
    -h | --help)
        exec "${PYTHON:-python3}" "$root/tools/demo" --help
        ;;
    esac
done

"$root/tools/bootstrap.sh"
exec "$venv/bin/python" "$root/tools/demo" "$@"
