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

"""Who waits for whom."""

import asyncio
import unittest

from cinder_spdk_vhost.embedded import basebdevs, lvols
from cinder_spdk_vhost.embedded.qsd import families

GIB = 1 << 30


class FamiliesTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        base = basebdevs.Malloc('base', 512, GIB // 512, None)
        layout = lvols.Layout.plan(GIB, 4 << 20, 100)
        self.store = lvols.Lvstore('pool', base, 4 << 20, layout)
        self.families = families.Families()
        self.story: list[str] = []

    def lvol(self, name: str, parent: lvols.Lvol | None = None) -> lvols.Lvol:
        lvol = lvols.Lvol(self.store, name, 1, thin=True)
        lvol.adopt(parent)
        return lvol

    async def work(self, lvol: lvols.Lvol) -> None:
        async with self.families.one(lvol):
            self.story.append(f'+{lvol.lvol_name}')
            await asyncio.sleep(0.01)
            self.story.append(f'-{lvol.lvol_name}')

    async def test_strangers_do_not_wait(self) -> None:
        await asyncio.gather(*(self.work(self.lvol(n)) for n in 'ab'))
        self.assertEqual(['+a', '+b', '-a', '-b'], self.story)

    async def test_relatives_do(self) -> None:
        root = self.lvol('r')
        middle = self.lvol('m', root)
        lvols_ = (self.lvol('a', middle), self.lvol('b', root), root)
        await asyncio.gather(*map(self.work, lvols_))
        self.assertEqual(['+a', '-a', '+b', '-b', '+r', '-r'], self.story)

    async def test_a_family_is_cut_in_two(self) -> None:
        root = self.lvol('r')
        child = self.lvol('c', root)

        async def cut() -> None:
            async with self.families.one(root):
                await asyncio.sleep(0)
                child.adopt(None)

        await asyncio.gather(
            cut(), self.work(child), self.work(root), self.work(child)
        )
        # The two are strangers now; the child still works with itself alone.
        self.assertEqual(4, len(self.story) - 2)
        begin = self.story.index('+c')
        rest = [word for word in self.story[begin + 1 :] if 'c' in word]
        self.assertEqual(['-c', '+c', '-c'], rest)

    async def test_a_new_root(self) -> None:
        origin, snapshot = self.lvol('o'), self.lvol('s')

        async def take_snapshot() -> None:
            async with self.families.one(origin):
                self.families.share(origin, snapshot)
                await asyncio.sleep(0)
                origin.adopt(snapshot)
                self.story.append('snapshot')
                await asyncio.sleep(0.01)
                self.story.append('covered')

        async def come_later() -> None:
            await asyncio.sleep(0.005)
            await self.work(origin)

        await asyncio.gather(take_snapshot(), self.work(origin), come_later())
        self.assertEqual(
            ['snapshot', 'covered', '+o', '-o', '+o', '-o'], self.story
        )
