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

"""What the benches are asked for alike."""

import argparse
from collections.abc import Callable
import os
import pathlib


def sizes(
    example: str, least: int, most: int, why: str
) -> Callable[[str], tuple[int, ...]]:
    """What parses ascending numbers of volumes.

    :param why: what it says of more than ``most``
    """

    def parse(text: str) -> tuple[int, ...]:
        try:
            found = tuple(int(part) for part in text.split(','))
        except ValueError:
            raise argparse.ArgumentTypeError(
                f'"{text}" is no list of numbers such as {example}'
            ) from None
        if list(found) != sorted(set(found)) or found[0] < least:
            raise argparse.ArgumentTypeError(
                f'"{text}" does not ascend from {least} on'
            )
        if found[-1] > most:
            raise argparse.ArgumentTypeError(why)
        return found

    return parse


def add_target_and_json(parser: argparse.ArgumentParser) -> None:
    """Where to measure, and where to write it."""
    parser.add_argument(
        '--rpc-url',
        metavar='URL',
        default=os.environ.get('SPDK_RPC'),
        help='run on the SPDK target that listens there (unix:///PATH, on '
        'this host), in a pool of its own that is removed again; default: '
        '$SPDK_RPC, else an embedded target',
    )
    parser.add_argument(
        '--json',
        metavar='FILE',
        type=pathlib.Path,
        help='write all figures to FILE',
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse, and refuse now what would fail when all is measured."""
    arguments = parser.parse_args()
    if arguments.rpc_url and not arguments.rpc_url.startswith('unix://'):
        parser.error(f'--rpc-url {arguments.rpc_url}: not unix://')
    if arguments.json and not arguments.json.resolve().parent.is_dir():
        parser.error(f'--json {arguments.json}: no such directory')
    return arguments
