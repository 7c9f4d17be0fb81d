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

"""The daemon's block graph: images as nodes, each on its parent's.

A node is there as long as somebody uses it: an image above it, or whoever
acquired it. Node names are numbers, for they may have 31 characters only.
"""

from collections.abc import Iterator
import itertools
import os
from typing import Any

from cinder_spdk_vhost.embedded import lvols
from cinder_spdk_vhost.embedded.qsd import daemon, images


class Node:
    """An image that the daemon has open.

    :ivar name: in the daemon
    :ivar backing: what is read where the image has nothing
    :ivar users: images and others that use it
    """

    def __init__(
        self, image: str, name: str, backing: 'Node | None', writable: bool
    ) -> None:
        self.image = image
        self.name = name
        self.backing = backing
        self.users = 1
        self._writable = writable

    @property
    def file(self) -> str:
        """The node of its file."""
        return f'{self.name}-file'

    def options(self) -> dict[str, Any]:
        """The daemon's for such a node."""
        return {
            'node_name': self.name,
            'driver': 'qcow2',
            'read_only': not self._writable,
            'discard': 'unmap',
            'backing': self.backing and self.backing.name,
        }

    def below(self) -> Iterator['Node']:
        """What it stands on, nearest first."""
        node = self.backing
        while node is not None:
            yield node
            node = node.backing


class Graph:
    """The nodes that are open.

    :param process: the daemon that has them
    :param no_flush: a flush of the guest ends in the host's page cache
    """

    def __init__(self, process: daemon.Daemon, no_flush: bool) -> None:
        self._daemon = process
        self._no_flush = no_flush
        self._nodes: dict[str, Node] = {}
        self._numbers = itertools.count(1)

    def image(self, node_name: str) -> str | None:
        """What a node shows."""
        for node in self._nodes.values():
            if node.name == node_name:
                return node.image
        return None

    def forget(self) -> None:
        """The daemon has died, and its nodes with it."""
        self._nodes.clear()

    async def acquire(
        self, files: images.Images, lvol: lvols.Lvol, *, writable: bool
    ) -> Node:
        """Open a volume's image, and all it stands on.

        The image gets a file if it has none; :meth:`release` it.
        """
        node = self._nodes.get(lvol.image)
        if node is not None:
            node.users += 1
            return node
        if not files.exists(lvol.image):
            await self.create(files, lvol)
        missing, backing = self._missing(files, lvol)
        try:
            for image in reversed(missing):
                backing = await self._add(
                    files, image, backing, writable and image == lvol.image
                )
        except BaseException:
            if backing is not None:
                await self.release(backing)
            raise
        assert backing is not None
        return backing

    def _missing(
        self, files: images.Images, lvol: lvols.Lvol
    ) -> tuple[list[str], Node | None]:
        """The images to be opened, and the node they begin on."""
        missing: list[str] = []
        for step in (lvol, *lvol.ancestors()):
            node = self._nodes.get(step.image)
            if node is not None:
                node.users += 1
                return missing, node
            if files.exists(step.image):
                files.header(step.image)
                missing.append(step.image)
        return missing, None

    async def _add(
        self,
        files: images.Images,
        image: str,
        backing: Node | None,
        writable: bool,
    ) -> Node:
        """Open one image; takes over the caller's use of the backing."""
        node = Node(image, f'image{next(self._numbers)}', backing, writable)
        await self._daemon.execute(
            'blockdev-add',
            file={
                **self._file(files.path(image)),
                'node-name': node.file,
            },
            **node.options(),
        )
        self._nodes[image] = node
        return node

    def _file(self, path: str) -> dict[str, Any]:
        about: dict[str, Any] = {
            'driver': 'file',
            'filename': os.path.abspath(path),
            'discard': 'unmap',
        }
        if self._no_flush:
            about['cache'] = {'no-flush': True}
        return about

    async def release(self, node: Node | None) -> None:
        """Close a node that nobody uses any more, and what it stands on."""
        while node is not None:
            node.users -= 1
            if node.users or self._nodes.get(node.image) is not node:
                return
            del self._nodes[node.image]
            await self._daemon.take_away('blockdev-del', node_name=node.name)
            node = node.backing

    async def create(self, files: images.Images, lvol: lvols.Lvol) -> None:
        """Make an empty file for a volume's image."""
        await self._create(
            files, lvol.image, lvol.num_blocks * lvol.block_size
        )

    async def _create(
        self, files: images.Images, image: str, size: int
    ) -> None:
        name = f'new{next(self._numbers)}'
        path = files.begin(image)
        await self._daemon.execute(
            'blockdev-add', node_name=name, **self._file(path)
        )
        try:
            await self._daemon.run_job(
                'blockdev-create',
                options={'driver': 'qcow2', 'file': name, 'size': size},
            )
        finally:
            await self._daemon.take_away('blockdev-del', node_name=name)
        files.complete(image)

    async def prepare_overlay(
        self, files: images.Images, image: str, size: int
    ) -> Node:
        """An empty image that is to cover another."""
        await self._create(files, image, size)
        return await self._add(files, image, None, writable=True)

    async def cover(self, node: Node, overlay: Node) -> None:
        """Whoever uses a node writes to an overlay from now on.

        The overlay takes over the node's users, and is its only one.
        """
        await self._daemon.execute(
            'blockdev-snapshot', node=node.name, overlay=overlay.name
        )
        overlay.backing = node
        overlay.users = node.users
        node.users = 1

    async def copy_down(self, node: Node, base: Node | None) -> None:
        """Copy into a node what is between it and a base.

        Guests may be writing to it. Killed half-way, the chain is as it
        was.
        """
        arguments = {} if base is None else {'base_node': base.name}
        old = node.backing
        if old is base:
            return
        await self._daemon.run_job(
            'block-stream',
            device=node.name,
            auto_dismiss=False,
            **arguments,
        )
        node.backing = base
        if base is not None:
            base.users += 1
        try:
            await self._flush(node)
        finally:
            await self.release(old)

    async def _flush(self, node: Node) -> None:
        """Have a node's tables in its file.

        What a guest writes is followed by a flush, what a job copies is not:
        its tables would die with the daemon. There is no command for it but
        the one that changes a node's options, to what they are.
        """
        options = {
            name.replace('_', '-'): value
            for name, value in {**node.options(), 'file': node.file}.items()
        }
        await self._daemon.execute('blockdev-reopen', options=[options])

    async def resize(self, node_name: str, size: int) -> None:
        """Give a node another size, in bytes."""
        await self._daemon.execute(
            'block_resize', node_name=node_name, size=size
        )
