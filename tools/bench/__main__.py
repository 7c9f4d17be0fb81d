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

"""``tools/bench-control-plane.sh``: what is asked for, and how it ends."""

import argparse
import pathlib
import signal
import sys
from typing import NoReturn

import options

_DESCRIPTION = """\
Measures the driver's control plane on an SPDK target, with few and with many
volumes in the pool: round trips of each operation, counted on the wire, and
time; creates from 32 threads against the rate at which the bare client
pipelines the same requests; and Cinder's in-tree SPDK driver (its parameters
patched so that it runs at all) beside ours, on the same target.
"""
_EPILOG = """\
Prints the tables; progress goes to stderr.

exit status: 0 all is as it should be; 1 round trips differ with the number
of volumes, or creates from 32 threads are slower than a quarter of the bare
client's rate, or something failed; 2 bad options
"""
_QUICK = (10, 200)
_FULL = (10, 1000, 10000)
# 10,000 volumes and what is made beside them fit the pool's metadata.
_MOST = 20000


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/bench-control-plane.sh',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--volumes',
        metavar='N,N,...',
        type=options.sizes('10,1000', 0, _MOST, f'at most {_MOST} volumes'),
        help='how many volumes there are in the pool, ascending (default: '
        f'{",".join(map(str, _FULL))})',
    )
    options.add_target_and_json(parser)
    parser.add_argument(
        '--out',
        metavar='DIR',
        type=pathlib.Path,
        help='write figures, tables and a plot to DIR (embedded.json, .rst '
        'and .svg; spdk.… with --rpc-url)',
    )
    parser.add_argument(
        '--quick',
        action='store_true',
        help=f'{" and ".join(map(str, _QUICK))} volumes, few repetitions',
    )
    arguments = options.parse(parser)
    if arguments.volumes is None:
        arguments.volumes = _QUICK if arguments.quick else _FULL
    return arguments


def _interrupted(number: int, _: object) -> NoReturn:
    """Turn a signal into an exception, so that everything is put away."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    arguments = _parse()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupted)

    # --help works where nothing is installed yet.
    import evaluation  # noqa: PLC0415
    import report  # noqa: PLC0415

    try:
        results = evaluation.run(
            arguments.rpc_url, arguments.volumes, quick=arguments.quick
        )
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 1
    print(report.text(results))
    if arguments.json:
        report.write_json(results, arguments.json)
    if arguments.out:
        report.write(results, arguments.out)
    for failure in results['failures']:
        print(f'FAILED: {failure}', file=sys.stderr)
    return 1 if results['failures'] else 0


if __name__ == '__main__':
    sys.exit(main())
