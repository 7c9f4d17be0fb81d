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

"""Volumes as block devices of this host, for programs that know no other.

The daemon shows a volume as a file (FUSE), and a loop device stands on the
file: what is given a file would make it as small as what it writes there.
"""

import asyncio
import contextlib
import itertools
import logging
import os

from cinder_spdk_vhost.embedded.qsd import daemon

LOG = logging.getLogger(__name__)

#: A program that hangs must not keep others from the volume for ever.
_PROGRAM_SECONDS = 60


class HostDisks:
    """The block devices that there are.

    :param directory: the files are here; what is left there is taken away
    """

    def __init__(self, directory: str, process: daemon.Daemon) -> None:
        self._directory = directory
        self._daemon = process
        self._numbers = itertools.count(1)
        #: device: number
        self._disks: dict[str, int] = {}

    async def start(self) -> None:
        """Take away what a killed target has left."""
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        for name in os.listdir(self._directory):
            path = os.path.join(self._directory, name)
            await self._clear(path)

    async def close(self) -> None:
        """Take all devices away."""
        for device in tuple(self._disks):
            with contextlib.suppress(OSError, daemon.Refused, daemon.Gone):
                await self.detach(device)

    async def attach(self, node_name: str, readonly: bool) -> str:
        """A loop device that shows a node; gives its path."""
        number = next(self._numbers)
        path = self._file(number)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            await self._daemon.execute(
                'block-export-add',
                type='fuse',
                id=f'file{number}',
                node_name=node_name,
                mountpoint=path,
                writable=not readonly,
                writethrough=True,
                growable=False,
            )
            options = ['--read-only'] if readonly else []
            device = await _run('losetup', '--find', '--show', *options, path)
        except BaseException:
            await self._remove(number)
            raise
        self._disks[device] = number
        return device

    async def detach(self, device: str) -> None:
        """Take a device away; what was written to it is in the volume."""
        number = self._disks.pop(device)
        try:
            await _run('blockdev', '--flushbufs', device)
        except OSError as error:
            LOG.error('what was written to %s last is lost: %s', device, error)
        with contextlib.suppress(OSError):
            await _run('losetup', '--detach', device)
        await self._remove(number)

    async def _remove(self, number: int) -> None:
        with contextlib.suppress(daemon.Refused, daemon.Gone):
            await self._daemon.remove_export(f'file{number}')
        await self._clear(self._file(number))

    async def _clear(self, path: str) -> None:
        """Take away a file and what stands on it, dead or alive."""
        with contextlib.suppress(OSError):
            for device in (
                await _run('losetup', '-n', '-O', 'NAME', '-j', path)
            ).split():
                await _run('losetup', '--detach', device)
        with contextlib.suppress(OSError):
            await _run('umount', '--lazy', path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def _file(self, number: int) -> str:
        return os.path.join(self._directory, f'{number}.raw')


async def _run(*command: str) -> str:
    """The output of a program; OSError says why there is none."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PROGRAM_SECONDS):
            output, complaint = await process.communicate()
    except TimeoutError as error:
        process.kill()
        raise OSError(f'{command[0]} hangs') from error
    if process.returncode:
        raise OSError(f'{command[0]}: {complaint.decode().strip()}')
    return output.decode().strip()
