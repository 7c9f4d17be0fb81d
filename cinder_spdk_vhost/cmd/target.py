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

"""``cinder-spdk-target``: SPDK's JSON-RPC with volumes on files."""

import argparse
import asyncio
import logging
import os
import sys

from cinder_spdk_vhost.embedded import errors, pools, reactors, run

_EPILOG = """\
exit codes: 0 stopped by SIGTERM or SIGINT, 1 could not start or go on,
2 bad options

Logical volumes and their stores survive a restart, as on a real target
whose base bdevs are made again; controllers, limits, subsystems and malloc
and null bdevs do not. What guests write to volumes is kept by QEMU's
qemu-storage-daemon (Debian: qemu-system-common) in images below the state
directory, and survives the death of this program and of that one; without
it, only the books are kept and guests find nobody on their sockets. NVMe-oF
subsystems are kept in the books alone: no data is served over a network.
This is a target for development, CI and demonstrations.
"""


def _pool(text: str) -> pools.Pool:
    try:
        return pools.Pool.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _mask(text: str) -> int:
    try:
        return reactors.parse_mask(text)
    except reactors.MaskError as error:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a core mask; accepted are hexadecimal masks '
            'such as 0x3 and lists such as [0,2-3]'
        ) from error


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value <= 1000:
        raise argparse.ArgumentTypeError(
            f'{text!r} is not a time from 0 to 1000 milliseconds'
        )
    return value


def parser() -> argparse.ArgumentParser:
    """The command line."""
    options = argparse.ArgumentParser(
        prog='cinder-spdk-target',
        description='An SPDK target in miniature: answers the JSON-RPC of '
        'an SPDK 26.05 application on a unix socket and keeps the books of '
        'its logical volumes in a directory.',
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options.add_argument(
        '--socket',
        required=True,
        metavar='PATH',
        help='the RPC socket (mode 0600); a stale one is replaced, one in '
        'use is not',
    )
    options.add_argument(
        '--state-dir',
        required=True,
        metavar='DIR',
        help='where volumes, stores and the files of pools are kept; made '
        'if missing; one target at a time',
    )
    options.add_argument(
        '--vhost-dir',
        metavar='DIR',
        help='where the sockets of vhost controllers are made (default: '
        'vhost in the state directory)',
    )
    options.add_argument(
        '--core-mask',
        type=_mask,
        default=1,
        metavar='MASK',
        help='the cores that the target says it runs on (default: 0x1)',
    )
    options.add_argument(
        '--pool',
        type=_pool,
        action='append',
        default=[],
        metavar='NAME=SIZE[:KIND]',
        help='have an lvstore NAME on a base bdev of SIZE (such as 10G): '
        'KIND aio, the default, is a sparse file in the state directory and '
        'can grow from start to start, malloc is lost at a stop; can be '
        'given more than once',
    )
    options.add_argument(
        '--poll-ms',
        type=_milliseconds,
        default=4.0,
        metavar='MS',
        help='how often the socket is looked at (default: 4, as SPDK does); '
        '0 answers at once',
    )
    options.add_argument(
        '--data',
        choices=run.DATA,
        default=run.AUTO,
        help='who keeps what guests write: qsd is qemu-storage-daemon, none '
        'is nobody, auto (default) is qsd where it is installed',
    )
    options.add_argument(
        '--flush',
        choices=('disk', 'cache'),
        default='disk',
        help="where a guest's flush ends: on the disk (default), or in this "
        "host's page cache, which is faster and survives the death of every "
        'process, but not of the host',
    )
    options.add_argument(
        '--debug', action='store_true', help='log more, to stderr'
    )
    return options


def main(arguments: list[str] | None = None) -> int:
    """Run the target; returns the exit code."""
    commands = parser()
    args = commands.parse_args(arguments)
    names = [pool.name for pool in args.pool]
    for name in names:
        if names.count(name) > 1:
            commands.error(f'argument --pool: {name!r} is given twice')
    logging.basicConfig(
        level=logging.DEBUG if args.debug else logging.INFO,
        format='%(asctime)s %(levelname)s %(message)s',
    )
    for chatty in ('asyncio', 'qemu.qmp', 'target'):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    options = run.Options(
        socket_path=args.socket,
        state_dir=os.path.abspath(args.state_dir),
        vhost_dir=os.path.abspath(args.vhost_dir) if args.vhost_dir else None,
        core_mask=args.core_mask,
        wanted=tuple(args.pool),
        poll_ms=args.poll_ms,
        data=args.data,
        flush_to_disk=args.flush == 'disk',
    )
    try:
        asyncio.run(run.serve(options))
    except errors.StartError as error:
        print(f'cinder-spdk-target: {error}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
