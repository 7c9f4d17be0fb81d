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

"""A data plane that takes its time, and one that fails."""

import asyncio
from collections.abc import AsyncIterator
import contextlib
import errno
import json
import shutil
import sqlite3
from typing import Any
import unittest

from cinder_spdk_vhost.embedded import (
    dataplane,
    dispatch,
    errors,
    lvols,
    pools,
)
from cinder_spdk_vhost.embedded import target as targets
from tests.conformance import process


class _Plane(dataplane.Books):
    """Each create waits until it is told how it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.creates: list[asyncio.Future[None]] = []
        self.left: list[str] = []

    @contextlib.asynccontextmanager
    async def create(self, lvol: lvols.Lvol) -> AsyncIterator[None]:
        future = asyncio.get_running_loop().create_future()
        self.creates.append(future)
        await future
        yield
        self.left.append(lvol.lvol_name)


class _Peer:
    """Remembers its answers."""

    def __init__(self) -> None:
        self.outstanding = 0
        self.answers: list[Any] = []

    def answer(self, text: str) -> None:
        self.answers.append(json.loads(text))


class DataPlaneTest(unittest.IsolatedAsyncioTestCase):
    """The seam between the books and the data."""

    async def asyncSetUp(self) -> None:
        directory = process.temporary_directory()
        self.addCleanup(shutil.rmtree, directory)
        self.plane = _Plane()
        self.target = targets.Target(directory, directory, plane=self.plane)
        self.addCleanup(self.target.close)
        pools.Pool('P', 1 << 30).ensure(self.target)
        self.peer = _Peer()
        self.dispatcher = dispatch.Dispatcher(self.target, self.target.save)

    def _create(self, number: int) -> None:
        params = {'lvs_name': 'P', 'lvol_name': 'v', 'size_in_mib': 40}
        self.dispatcher.take(
            self.peer,
            {'id': number, 'method': 'bdev_lvol_create', 'params': params},
        )
        self.dispatcher.end_poll()

    def _free(self) -> int:
        (lvstore,) = self.target.lvstores
        return lvstore.free

    async def _until_answered(self, count: int) -> None:
        while len(self.peer.answers) < count:
            await asyncio.sleep(0)

    async def test_not_there_before_the_data_is(self) -> None:
        self._create(1)
        await asyncio.sleep(0)
        self.assertEqual([], self.peer.answers)
        self.assertIsNone(self.target.bdevs.find('P/v'))
        self._create(2)  # its name is taken meanwhile
        self.assertEqual(
            'File exists', self.peer.answers[0]['error']['message']
        )
        self.assertEqual([], self.plane.left)
        self.plane.creates[0].set_result(None)
        await self._until_answered(2)
        self.assertEqual(['v'], self.plane.left)
        self.assertEqual(1, self.peer.answers[1]['id'])
        self.assertIsNotNone(self.target.bdevs.find('P/v'))

    async def test_saved_before_it_is_left(self) -> None:
        state = sqlite3.connect(f'{self.target.state_dir}/state.sqlite')
        self.addCleanup(state.close)
        found = []

        class Left(list[str]):
            def append(self, name: str) -> None:
                found.append(state.execute('SELECT name FROM lvol').fetchone())

        self.plane.left = Left()
        # A flush may be somewhat later.
        self.dispatcher = dispatch.Dispatcher(self.target, lambda: None)
        self._create(1)
        await asyncio.sleep(0)
        self.plane.creates[0].set_result(None)
        await self._until_answered(1)
        self.assertEqual([('v',)], found)

    async def test_a_failure_leaves_nothing(self) -> None:
        before = self._free()
        self._create(1)
        await asyncio.sleep(0)
        self.assertEqual(before - 10, self._free())
        self.plane.creates[0].set_exception(errors.Errno(errno.EIO))
        await self._until_answered(1)
        self.assertEqual(
            {'code': -32602, 'message': 'Input/output error'},
            self.peer.answers[0]['error'],
        )
        self.assertEqual(before, self._free())
        self._create(2)
        await asyncio.sleep(0)
        self.plane.creates[1].set_result(None)
        await self._until_answered(2)
        self.assertIn('result', self.peer.answers[1])
