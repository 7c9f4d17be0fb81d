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

"""Volumes in use: opened side by side, and deleted meanwhile."""

import asyncio
import errno
import shutil
import tempfile
from typing import Any, cast
import unittest

from cinder_spdk_vhost.embedded import basebdevs, errors, lvols
from cinder_spdk_vhost.embedded.qsd import (
    daemon,
    families,
    graph,
    hostdisks,
    images,
    serving,
    traffic,
)

GIB = 1 << 30


class _Files(images.Images):
    """Images whose headers are right."""

    def header(self, image: str) -> images.Header:
        return images.Header(16, 4 << 20, 1, 1 << 16, 1 << 17, 1)


class _Daemon:
    """Writes its trace, and answers a little later."""

    def __init__(self, counter: traffic.Traffic) -> None:
        self._traffic = counter
        self._lines: list[str] = []
        self.filters = 0

    async def ready(self) -> None:
        return

    def drain(self) -> None:
        lines, self._lines = self._lines, []
        for line in lines:
            self._traffic.line(line)

    async def execute(self, command: str, **about: Any) -> None:
        if about.get('driver') == traffic.TOP:
            self.filters += 1
            self._lines.append(
                f'bdrv_open_common bs 0x{self.filters} filename "" '
                f'flags 0x2022 format_name "{traffic.TOP}"'
            )
        await asyncio.sleep(0)

    run_job = take_away = execute

    async def remove_export(self, name: str) -> None:
        return


class ServingTest(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.files = _Files(directory)
        self.traffic = traffic.Traffic()
        process = cast(daemon.Daemon, _Daemon(self.traffic))
        self.locks = families.Families()
        self.serving = serving.Serving(
            process,
            graph.Graph(process, False),
            self.traffic,
            hostdisks.HostDisks(directory, process),
            self.locks,
            directory,
            lambda _lvol: self.files,
        )
        self.addCleanup(self.serving.close)
        base = basebdevs.Malloc('base', 512, GIB // 512, None)
        layout = lvols.Layout.plan(GIB, 4 << 20, 100)
        self.store = lvols.Lvstore('pool', base, 4 << 20, layout)

    def lvol(self, name: str) -> lvols.Lvol:
        lvol = lvols.Lvol(self.store, name, 1, thin=True)
        self.store.add(lvol)
        return lvol

    async def test_each_one_s_io_is_its_own(self) -> None:
        both = [self.lvol('one'), self.lvol('two')]
        await asyncio.gather(
            *(self.serving.to_guest(lvol, False) for lvol in both)
        )
        for number, size in ((1, 512), (2, 1024)):
            self.traffic.line(
                f'blk_co_pwritev blk 0x9 bs 0x{number} offset 0 '
                f'bytes {size} flags 0x0'
            )
        self.assertEqual({512, 1024}, {lvol.io.bytes_written for lvol in both})

    async def test_deleted_while_its_guest_waits(self) -> None:
        lvol = self.lvol('one')
        async with self.locks.one(lvol):
            coming = asyncio.ensure_future(self.serving.to_guest(lvol, False))
            await asyncio.sleep(0.01)
            self.store.hide(lvol)
        with self.assertRaises(errors.Errno) as caught:
            await coming
        self.assertEqual(errno.ENODEV, caught.exception.number)
        # Nor has it got an image.
        self.assertFalse(self.files.exists(lvol.image))
        self.assertIsNone(self.serving.get(lvol))
