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

"""``tools/demo.sh``: options, start and stop. The story is in ``life.py``."""

import argparse
import os
import pathlib
import signal
import sys
from typing import NoReturn

_DESCRIPTION = """\
A volume's whole life on SPDK: real Cinder services with this driver, a real
client over HTTP, an SPDK target below. Makes a QoS spec and a volume type,
creates, snapshots, creates from the snapshot, clones, extends, attaches, boots
a guest whose disk the volume is, writes, reads and extends there, detaches,
deletes, and shows what each step did, how long it took and how many round
trips the driver made to the target. Nothing is left behind.
"""
_EPILOG = """\
exit status: 0 all went well, 1 a step failed, 2 bad options
"""


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog='tools/demo.sh',
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        '--json',
        metavar='FILE',
        type=pathlib.Path,
        help='write the account to FILE as JSON, too',
    )
    parser.add_argument(
        '--rpc-url',
        metavar='URL',
        help='run on the SPDK target that listens there (unix:///PATH or '
        'tcp://HOST:PORT) instead of an embedded one',
    )
    parser.add_argument(
        '--pool',
        metavar='NAME',
        help='with --rpc-url: the lvstore to use (default: all there are)',
    )
    parser.add_argument(
        '--keep',
        action='store_true',
        help='leave all running at the end and say how to talk to it',
    )
    arguments = parser.parse_args()
    if arguments.pool and not arguments.rpc_url:
        parser.error('--pool goes with --rpc-url')
    if arguments.rpc_url and not arguments.rpc_url.startswith(
        ('unix://', 'tcp://')
    ):
        parser.error(f'--rpc-url {arguments.rpc_url}: not unix:// or tcp://')
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f'--json {arguments.json}: no such directory')
    return arguments


def _interrupted(number: int, _: object) -> NoReturn:
    """Turn a signal into an exception, so that everything is put away."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    arguments = _parse()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, _interrupted)
    os.environ['PYTHONWARNINGS'] = 'ignore'  # what eventlet says of itself

    # --help works where nothing is installed yet.
    import stage  # noqa: PLC0415

    return stage.perform(
        rpc_url=arguments.rpc_url,
        pool=arguments.pool,
        keep=arguments.keep,
        json_file=arguments.json,
    )


if __name__ == '__main__':
    sys.exit(main())
