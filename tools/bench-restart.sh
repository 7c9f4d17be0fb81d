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

# How long attachments take to be back after a restart of the target, and
# attaches from one thread and from many; --help has more.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
export PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1
export PYTHONWARNINGS=ignore # what eventlet says of itself

for argument in "$@"; do
    case $argument in
    -h | --help)
        exec "${PYTHON:-python3}" "$root/tools/bench/restart.py" --help
        ;;
    esac
done

"$root/tools/bootstrap.sh"
exec "$venv/bin/python" "$root/tools/bench/restart.py" "$@"
