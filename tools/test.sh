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

# Runs the checks and tests of this project; --help has more.

set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=${VENV:-$root/.venv}
all_parts=(lint unit conformance functional demo)
# Functional tests of rates.
measuring=test_limits_http

usage() {
    cat <<EOF
usage: tools/test.sh [--help] [PART ...] [-- PATTERN]

Sets up what it needs (Debian 12 with Python 3.11, as root, is enough) and
runs, of these parts, those named, or all:

  lint         ruff, mypy, bashate, shellcheck, reno
  unit         tests of the modules
  conformance  the embedded target against recordings of a real one
  functional   real Cinder services on a target, and guests
  demo         tools/demo.sh, its account checked

PATTERN is a path of a test file or a regular expression of test names;
without a PART it runs with those parts that have such tests.

  CRASH_POINTS=N         kill servers N times under a guest, not 24 times
  CRASH_SEED=N           draw the kill points as the run that failed with N
  GUEST_ACCEL=kvm|tcg    how guests are run, if not with what works here
  SPDK_RPC=unix:///PATH  run the functional tests on that SPDK target
  VENV=DIR               use that environment, not .venv

The last line has the number of tests that passed, failed and were skipped.
The exit status is 0 if nothing failed and something ran, 1 if not, 2 for bad
options.
EOF
}

passed=0
failed=0
skipped=0
summary=()
status=0

note() {
    summary+=("$(printf '%-14s %s' "$1" "$2")")
}

# Run one check of part lint, and say how it went.
check() {
    local name=$1
    shift
    echo "== $name"
    if "$@"; then
        note "$name" ok
    else
        note "$name" FAILED
        status=1
    fi
}

scripts() {
    git -C "$root" ls-files --cached --others --exclude-standard -- \
        '*.sh' '.ci/*' 'devstack/*' | while read -r file; do
        if head -n 1 "$root/$file" | grep -q '^#!.*sh'; then
            echo "$file"
        fi
    done
}

run_lint() {
    local files
    mapfile -t files < <(scripts)
    check 'ruff' "$venv/bin/ruff" check .
    check 'ruff format' "$venv/bin/ruff" format --check .
    check 'mypy' "$venv/bin/mypy"
    check 'bashate' "$venv/bin/bashate" -i E006 "${files[@]}"
    check 'shellcheck' "$venv/bin/shellcheck" "${files[@]}"
    check 'reno' "$venv/bin/reno" -q lint
}

has_tests() {
    find "$root/tests/$1" -name 'test_*.py' | grep -q .
}

# The number after "- NAME:" in what stestr prints at the end; 0 where it did
# not get so far.
count() {
    local number
    number=$(sed -n "s/^ - $1: \([0-9]*\)\$/\1/p" "$2" | tail -n 1)
    echo "${number:-0}"
}

run_stestr() {
    local part=$1
    shift
    if ! has_tests "$part"; then
        note "$part" 'no tests'
        return
    fi
    echo "== $part"
    local begin=$SECONDS bad=0 good away code
    PYTHONWARNINGS=ignore "$venv/bin/stestr" --test-path "tests/$part" \
        run "$@" ${pattern:+"$pattern"} 2>&1 | tee "$scratch/$part"
    code=${PIPESTATUS[0]}
    good=$(count Passed "$scratch/$part")
    if grep -q "regex doesn't match" "$scratch/$part"; then
        note "$part" "no test matches $pattern"
        return
    fi
    away=$(count Skipped "$scratch/$part")
    bad=$(($(count Failed "$scratch/$part") + \
        $(count 'Unexpected Success' "$scratch/$part")))
    if [ "$code" -ne 0 ] && [ $bad -eq 0 ]; then
        # It did not get as far as counting.
        bad=1
    fi
    passed=$((passed + ${good:-0}))
    failed=$((failed + bad))
    skipped=$((skipped + ${away:-0}))
    note "$part" "$((good + 0)) passed, $bad failed, $((away + 0)) skipped \
in $((SECONDS - begin)) s"
    if [ $bad -ne 0 ]; then
        status=1
    fi
}

check_account() {
    "$venv/bin/python" - "$1" <<'EOF'
import json
import os
import sys

with open(sys.argv[1]) as file:
    account = json.load(file)
assert account['volume_id'] in account['socket_path'], account
assert any(account['assigned_rate_limits'].values()), account
if os.environ.get('CI') or not account['no_guest']:
    assert account['guest_disk_id'], account
assert account['steps'], account
assert all(step['ok'] for step in account['steps']), account
EOF
}

run_demo() {
    echo '== demo'
    local begin=$SECONDS
    if "$root/tools/demo.sh" --json "$scratch/demo.json" &&
        check_account "$scratch/demo.json"; then
        note demo "ok in $((SECONDS - begin)) s"
    else
        note demo FAILED
        status=1
    fi
}

parts=()
pattern=
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help)
        usage
        exit 0
        ;;
    lint | unit | conformance | functional | demo)
        parts+=("$1")
        ;;
    --)
        pattern=${2-}
        break
        ;;
    -*)
        echo "tools/test.sh: unknown option $1" >&2
        usage >&2
        exit 2
        ;;
    *)
        pattern=$1
        ;;
    esac
    shift
done
# A path of a test file becomes the name that stestr knows the tests by.
pattern=${pattern#./}
pattern=${pattern%.py}
pattern=${pattern//\//.}
if [ ${#parts[@]} -eq 0 ]; then
    if [ -n "$pattern" ]; then
        parts=(unit conformance functional)
    else
        parts=("${all_parts[@]}")
    fi
fi

cd "$root" || exit 1
tools/bootstrap.sh || exit 1
export VENV=$venv
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for part in "${parts[@]}"; do
    case $part in
    lint)
        run_lint
        ;;
    unit)
        run_stestr unit
        ;;
    conformance)
        run_stestr conformance
        ;;
    functional)
        # Each test starts servers of its own; on a real target they share
        # one, and look at what is on it.
        concurrency=2
        if [ -n "${SPDK_RPC:-}" ]; then
            concurrency=1
        fi
        if [ -n "$pattern" ]; then
            run_stestr functional --concurrency "$concurrency"
            continue
        fi
        run_stestr functional --concurrency "$concurrency" \
            --exclude-regex "$measuring"
        # These have the machine for themselves.
        pattern=$measuring
        run_stestr functional --concurrency 1
        pattern=
        ;;
    demo)
        run_demo
        ;;
    esac
done

echo
printf '%s\n' "${summary[@]}"
if [ "${parts[*]}" != lint ] && [ "${parts[*]}" != demo ]; then
    if [ $((passed + failed)) -eq 0 ]; then
        echo 'no test ran' >&2
        status=1
    fi
fi
echo "$passed passed, $failed failed, $skipped skipped"
exit $status
