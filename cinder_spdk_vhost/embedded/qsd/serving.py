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

"""Volumes that somebody uses, and who uses them.

A volume is *served* while it has users: its chain is open in the daemon,
and on top is a throttle filter that carries its limits and on which exports
stand. All of it is made from the books when the first user comes and goes
with the last. When the daemon dies, it is all gone, and is made again when
the users come back.
"""

import asyncio
from collections.abc import Awaitable, Callable
import contextlib
import errno
import itertools
import logging
import os

from cinder_spdk_vhost.embedded import bdevs, errors, lvols, qos
from cinder_spdk_vhost.embedded.qsd import (
    daemon,
    families,
    graph,
    hostdisks,
    images,
    limits,
    traffic,
)

LOG = logging.getLogger(__name__)

#: As many queues as a guest's vCPUs will ever ask for.
_QUEUES = 64


class Served:
    """A volume that somebody uses.

    :ivar node: its image; another one after each snapshot
    :ivar name: the throttle filter, on which exports stand
    :ivar group: of limits
    :ivar exports: its guests'
    :ivar device: the block device of this host that shows it
    """

    def __init__(
        self, lvol: lvols.Lvol, node: graph.Node, number: int
    ) -> None:
        self.lvol = lvol
        self.node = node
        self.name = f'disk{number}'
        self.group = f'limits{number}'
        self.address = ''
        self.exports: set[str] = set()
        self.device: str | None = None
        self.users = 0


class Disk:
    """One guest's export of a volume.

    :ivar path: of the socket on which vhost-user-blk is spoken
    """

    def __init__(
        self, path: str, close: Callable[[], Awaitable[None]]
    ) -> None:
        self.path = path
        self._close = close

    async def close(self) -> None:
        """The guest has left."""
        await self._close()


class Serving:
    """The volumes that are served.

    :param run_directory: where the daemon runs and its sockets are
    :param files: the images of a volume's store
    """

    def __init__(
        self,
        process: daemon.Daemon,
        nodes: graph.Graph,
        counter: traffic.Traffic,
        host: hostdisks.HostDisks,
        locks: families.Families,
        run_directory: str,
        files: Callable[[lvols.Lvol], images.Images],
    ) -> None:
        self._daemon = process
        self._graph = nodes
        self._traffic = counter
        self._host = host
        self._locks = locks
        self._files = files
        self._served: dict[lvols.Lvol, Served] = {}
        #: they outlive what they showed, until they are taken away
        self._devices: dict[lvols.Lvol, str] = {}
        self._numbers = itertools.count(1)
        #: filters are opened one by one: the trace tells no names
        self._opening = asyncio.Lock()
        # Its path may be longer than a socket's may be.
        self._run_directory = os.open(
            run_directory, os.O_RDONLY | os.O_DIRECTORY
        )

    def close(self) -> None:
        """Let go of the directory."""
        os.close(self._run_directory)

    def get(self, bdev: bdevs.Bdev) -> Served | None:
        """What is served of a bdev, if somebody uses it."""
        return self._served.get(bdev) if isinstance(bdev, lvols.Lvol) else None

    def forget(self) -> None:
        """The daemon has died, and all it served with it."""
        self._served.clear()

    async def to_guest(self, bdev: bdevs.Bdev, readonly: bool) -> Disk:
        """An export for one guest more."""
        lvol = _lvol(bdev)
        await self._daemon.ready()
        name = f'guest{next(self._numbers)}'
        async with self._locks.one(lvol):
            _check_servable(lvol)
            served = await self._use(lvol)
            try:
                await self._daemon.execute(
                    'block-export-add',
                    type='vhost-user-blk',
                    id=name,
                    node_name=served.name,
                    addr={'type': 'unix', 'path': f'{name}.sock'},
                    writable=not (readonly or lvol.read_only),
                    # Without it a guest's flush is no flush.
                    writethrough=True,
                    num_queues=_QUEUES,
                    logical_block_size=lvol.block_size,
                )
            except BaseException:
                await self._leave(served)
                raise
            served.exports.add(name)

        async def close() -> None:
            async with self._locks.one(lvol):
                if self._is_there(served) and name in served.exports:
                    served.exports.discard(name)
                    if served.users == 1:
                        await self._unlimit(served)
                    await self._remove(name)
                    await self._leave(served)

        return Disk(f'/proc/self/fd/{self._run_directory}/{name}.sock', close)

    async def to_host(self, bdev: bdevs.Bdev) -> str:
        """A block device of this host that shows a volume."""
        lvol = _lvol(bdev)
        await self._daemon.ready()
        async with self._locks.one(lvol):
            _check_servable(lvol)
            served = await self._use(lvol)
            try:
                device = await self._host.attach(served.name, lvol.read_only)
            except BaseException:
                await self._leave(served)
                raise
            if not self._is_there(served):
                await self._host.detach(device)
                raise daemon.Gone('the daemon died meanwhile')
            served.device = self._devices[lvol] = device
            return device

    async def from_host(self, bdev: bdevs.Bdev) -> None:
        """Take the device of :meth:`to_host` away."""
        if not isinstance(bdev, lvols.Lvol):
            return
        lvol = bdev
        async with self._locks.one(lvol):
            device = self._devices.pop(lvol, None)
            if device is None:
                return
            served = self._served.get(lvol)
            try:
                await self._host.detach(device)
            finally:
                if served is not None and served.device == device:
                    served.device = None
                    await self._leave(served)

    async def _use(self, lvol: lvols.Lvol) -> Served:
        served = self._served.get(lvol)
        if served is None:
            served = self._served[lvol] = await self._open(lvol)
        served.users += 1
        return served

    async def _open(self, lvol: lvols.Lvol) -> Served:
        files = self._files(lvol)
        node = await self._graph.acquire(
            files, lvol, writable=not lvol.read_only
        )
        served = Served(lvol, node, next(self._numbers))
        try:
            size = lvol.num_blocks * lvol.block_size
            if not lvol.read_only and files.header(lvol.image).size != size:
                await self._graph.resize(node.name, size)
            known = lvol.qos.limits
            await self._daemon.execute(
                'object-add',
                qom_type='throttle-group',
                id=served.group,
                limits=limits.for_qemu(known),
            )
            async with self._opening:
                await self._daemon.execute(
                    'blockdev-add',
                    driver=traffic.TOP,
                    node_name=served.name,
                    throttle_group=served.group,
                    discard='unmap',
                    file=node.name,
                )
                self._daemon.drain()
                served.address = self._traffic.follow(lvol)
            while known != lvol.qos.limits:
                known = lvol.qos.limits
                await self.limit(served)
        except BaseException:
            self._traffic.leave(served.address)
            await self._graph.release(node)
            raise
        return served

    async def limit(self, served: Served) -> None:
        """Set the limits that the books have."""
        await self._set_limits(served, served.lvol.qos.limits)

    async def _set_limits(self, served: Served, wanted: qos.Limits) -> None:
        await self._daemon.execute(
            'qom-set',
            path=f'/objects/{served.group}',
            property='limits',
            value=limits.for_qemu(wanted),
        )

    async def _unlimit(self, served: Served) -> None:
        """Let what is queued by the limits go: an export's end waits for it.

        Only where no other user is left to take advantage of it.
        """
        with contextlib.suppress(daemon.Refused, daemon.Gone):
            await self._set_limits(served, qos.NO_LIMITS)

    async def _remove(self, export: str) -> None:
        """Take an export away; a daemon that ends has done it by itself."""
        with contextlib.suppress(daemon.Refused, daemon.Gone):
            await self._daemon.remove_export(export)

    def corrupted(self, image: str | None, text: str) -> None:
        """An image can't be used: mark whose it is."""
        for served in self._served.values():
            for step in (served.lvol, *served.lvol.ancestors()):
                if step.image == image and not step.broken:
                    step.broken = True
                    LOG.error('the volume %s is broken: %s', step.alias, text)

    def _is_there(self, served: Served) -> bool:
        """Whether it has not died with a daemon, or with its volume."""
        return self._served.get(served.lvol) is served

    async def _leave(self, served: Served) -> None:
        if not self._is_there(served):
            return
        served.users -= 1
        if not served.users:
            await self.stop(served)

    async def stop(self, served: Served) -> None:
        """Serve a volume no longer, whoever uses it."""
        self._daemon.drain()
        del self._served[served.lvol]
        self._traffic.leave(served.address)
        if served.device is not None:
            del self._devices[served.lvol]
            with contextlib.suppress(OSError, daemon.Gone):
                await self._host.detach(served.device)
        await self._unlimit(served)
        while served.exports:
            await self._remove(served.exports.pop())
        await self._daemon.take_away('blockdev-del', node_name=served.name)
        await self._daemon.take_away('object-del', id=served.group)
        await self._graph.release(served.node)


def _lvol(bdev: bdevs.Bdev) -> lvols.Lvol:
    """Only lvols have data."""
    if not isinstance(bdev, lvols.Lvol):
        raise errors.Errno(errno.ENOTSUP)
    return bdev


def _check_servable(lvol: lvols.Lvol) -> None:
    """It may have been deleted while others worked on its family."""
    if lvol.lvstore.removed or lvol.uuid not in lvol.lvstore.lvols:
        raise errors.Errno(errno.ENODEV)
    if lvol.is_degraded:
        raise errors.Errno(errno.EIO)
