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

"""``tools/bench-restart.sh``: what is asked for, and the tables."""

import argparse
import json
import sys
from typing import Any

import options

_DESCRIPTION = """\
Measures on an SPDK target, with few and with many volumes attached, how long
the driver takes to attach them all again after a restart, and how much CPU
time that costs; and how long 100 attaches take one after another and from 16
threads. The database is Cinder's own, in SQLite. Every other volume has
limits.

The embedded target is killed and started again. A real one (--rpc-url) is
not restarted: its controllers are deleted and the driver is started, which
then has the same to do.
"""
_EPILOG = """\
Prints the tables; progress goes to stderr.

exit status: 0 all is as it should be; 1 1,000 volumes took more than 5 s, or
something failed; 2 bad options
"""
SIZES = (10, 100, 1000)
MOST_SECONDS = 5.0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/bench-restart.sh',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--volumes',
        metavar='N,N,...',
        type=options.sizes(
            '10,100',
            1,
            max(SIZES),
            f'at most {max(SIZES)}: a target has 1,024 vhost sockets',
        ),
        default=SIZES,
        help='how many volumes are attached, ascending (default: '
        f'{",".join(map(str, SIZES))})',
    )
    parser.add_argument(
        '--rounds',
        metavar='N',
        type=int,
        default=3,
        help='how often everything is measured (default: 3)',
    )
    options.add_target_and_json(parser)
    return options.parse(parser)


def _text(results: dict[str, Any]) -> str:
    """The tables, as reStructuredText."""
    # --help works where nothing is installed yet.
    from report import table  # noqa: PLC0415

    rows = [
        [
            f'{int(size):,}',
            *(
                f'{at[key]:.2f}'
                for key in ('seconds', 'driver_cpu', 'target_cpu')
            ),
        ]
        for size, at in results['restored'].items()
    ]
    attaches = results['attaches']
    return '\n'.join(
        [
            f'{results["version"]}, {results["cpus"]} CPUs, load average '
            f'when it began: {results["load_before"]}',
            '',
            *table(
                ['attached', 'seconds', 'driver CPU s', 'target CPU s'], rows
            ),
            '',
            'Until all are attached again, since the target answered. '
            f'Medians of {results["rounds"]}.',
            '',
            *table(
                ['100 attaches', 'seconds', 'driver CPU s'],
                [
                    [name, f'{at["seconds"]:.3f}', f'{at["driver_cpu"]:.3f}']
                    for name, at in attaches['ways'].items()
                ],
            ),
            '',
            f'Ratio: {attaches["ratio"]:.1f}.',
        ]
    )


def main() -> int:
    arguments = _parse()
    import restarting  # noqa: PLC0415

    results = restarting.run(
        arguments.rpc_url, arguments.volumes, arguments.rounds
    )
    print(_text(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1) + '\n')
    slow = [
        size
        for size, at in results['restored'].items()
        if at['seconds'] > MOST_SECONDS
    ]
    for size in slow:
        print(
            f'FAILED: {size} volumes took more than {MOST_SECONDS:g} s',
            file=sys.stderr,
        )
    return 1 if slow else 0


if __name__ == '__main__':
    sys.exit(main())
