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

"""Nodes: who opens them, who closes them."""

import shutil
import tempfile
from typing import Any, cast
import unittest

from cinder_spdk_vhost.embedded import basebdevs, lvols
from cinder_spdk_vhost.embedded.qsd import daemon, graph, images

GIB = 1 << 30


class _Files(images.Images):
    """Images whose headers are right."""

    def header(self, image: str) -> images.Header:
        return images.Header(16, GIB, 1, 1 << 16, 1 << 17, 1)


class _Daemon:
    """Has the nodes that it was told to have."""

    def __init__(self) -> None:
        self.nodes: dict[str, str | None] = {}
        self.files: dict[str, str] = {}
        self.said: list[str] = []
        self.unflushed: set[str] = set()
        self.refuses = ''

    async def execute(self, command: str, **about: Any) -> None:
        self.said.append(command)
        if command == self.refuses:
            raise daemon.Refused(command)
        if command == 'blockdev-add':
            backing = about.get('backing')
            assert backing is None or backing in self.nodes
            self.nodes[about['node_name']] = backing
            if 'file' in about:
                self.files[about['node_name']] = about['file']['node-name']
        elif command == 'blockdev-del':
            name = about['node_name']
            assert name not in self.nodes.values(), 'in use'
            del self.nodes[name]
        elif command == 'blockdev-reopen':
            (options,) = about['options']
            name = options['node-name']
            assert options['backing'] == self.nodes[name]
            assert options['file'] == self.files[name]
            self.unflushed.discard(name)
        elif command == 'blockdev-snapshot':
            self.nodes[about['overlay']] = about['node']

    take_away = execute

    async def run_job(self, command: str, **about: Any) -> None:
        self.said.append(command)
        if command == 'block-stream':
            self.nodes[about['device']] = about.get('base_node')
            self.unflushed.add(about['device'])


class GraphTest(unittest.IsolatedAsyncioTestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.files = _Files(directory)
        self.daemon = _Daemon()
        self.graph = graph.Graph(cast(daemon.Daemon, self.daemon), False)
        base = basebdevs.Malloc('base', 512, GIB // 512, None)
        layout = lvols.Layout.plan(GIB, 4 << 20, 100)
        self.store = lvols.Lvstore('pool', base, 4 << 20, layout)

    def lvol(
        self, parent: lvols.Lvol | None = None, image: bool = True
    ) -> lvols.Lvol:
        lvol = lvols.Lvol(self.store, 'name', 1, thin=True)
        lvol.adopt(parent)
        if image:
            self.files.begin(lvol.image)
            self.files.complete(lvol.image)
        return lvol

    async def acquire(self, lvol: lvols.Lvol) -> graph.Node:
        return await self.graph.acquire(self.files, lvol, writable=True)

    async def test_a_chain(self) -> None:
        root = self.lvol()
        nothing = self.lvol(root, image=False)
        one, two = self.lvol(nothing), self.lvol(nothing)
        nodes = [await self.acquire(lvol) for lvol in (one, two, one)]
        # The root is open once, who has no image is left out.
        self.assertEqual(3, len(self.daemon.nodes))
        self.assertIs(nodes[0], nodes[2])
        self.assertIs(nodes[0].backing, nodes[1].backing)
        for node in nodes:
            await self.graph.release(node)
        self.assertEqual({}, self.daemon.nodes)

    async def test_who_has_no_image_gets_one(self) -> None:
        lvol = self.lvol(image=False)
        node = await self.acquire(lvol)
        self.assertTrue(self.files.exists(lvol.image))
        self.assertEqual({node.name: None}, self.daemon.nodes)
        self.assertEqual(lvol.image, self.graph.image(node.name))
        self.assertIsNone(self.graph.image('other'))

    async def test_refused(self) -> None:
        root = self.lvol()
        await self.acquire(root)
        lvol = self.lvol(self.lvol(root))
        self.daemon.refuses = 'blockdev-add'
        with self.assertRaises(daemon.Refused):
            await self.acquire(lvol)
        self.assertEqual(1, len(self.daemon.nodes))

    async def test_cover_and_copy_down(self) -> None:
        lvol = self.lvol(self.lvol())
        node = await self.acquire(lvol)
        bottom = node.backing
        overlay = await self.graph.prepare_overlay(self.files, 'new', GIB)
        await self.graph.cover(node, overlay)
        self.assertEqual([node, bottom], list(overlay.below()))
        await self.graph.copy_down(overlay, bottom)
        # What was copied would be lost otherwise when the daemon is killed.
        self.assertEqual(set(), self.daemon.unflushed)
        self.assertEqual([bottom], list(overlay.below()))
        await self.graph.copy_down(overlay, bottom)
        self.assertEqual(1, self.daemon.said.count('block-stream'))
        await self.graph.copy_down(overlay, None)
        self.assertEqual({overlay.name: None}, self.daemon.nodes)
        await self.graph.release(overlay)
        self.assertEqual({}, self.daemon.nodes)

    async def test_forgotten(self) -> None:
        lvol = self.lvol()
        node = await self.acquire(lvol)
        self.graph.forget()
        self.daemon.nodes.clear()
        again = await self.acquire(lvol)
        await self.graph.release(node)
        self.assertEqual({again.name: None}, self.daemon.nodes)
