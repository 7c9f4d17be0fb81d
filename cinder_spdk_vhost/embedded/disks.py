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

"""Bdevs as block devices of the target's own host.

What :mod:`~cinder_spdk_vhost.embedded.methods.disks` calls NBD disks: the
data plane makes the device, whatever it is, and picks it; nobody else can.
So a bdev has at most one, where a real target can put it on several
``/dev/nbdN``. A disk does not claim its bdev, has it open for writing, and
does not outlive the target.
"""

import asyncio
from collections.abc import Awaitable, Callable
import errno
import re

from cinder_spdk_vhost.embedded import bdevs, dataplane, errors, outcome

#: What a real target takes for an NBD device without looking any closer.
_NBD_DEVICE = re.compile(r'/dev/nbd[0-9]+')


class _NoDevice(errors.Errno):
    """This host has no device to put a bdev on."""

    def __init__(self) -> None:
        super().__init__(errno.ENODEV)

    def as_code(self) -> errors.RpcError:
        """SPDK's own text, not the errno's."""
        return errors.RpcError(-self.number, 'nbd device not found')


class Disk:
    """One block device and the bdev that is behind it.

    :ivar path: the device, once it is there
    :ivar stopping: whether it is being taken away
    """

    def __init__(self, bdev: bdevs.Bdev, gone: Callable[[], None]) -> None:
        self.bdev = bdev
        self.path: str | None = None
        self.stopping = False
        self._descriptor: bdevs.Descriptor | None = bdev.open(gone)
        self._descriptor.open_channel()

    @property
    def closed(self) -> bool:
        """Whether the bdev has been given up."""
        return self._descriptor is None

    def close(self) -> None:
        """Let go of the bdev."""
        if self._descriptor is not None:
            self._descriptor.close()
            self._descriptor = None


class Disks:
    """All of them, in the order in which they were started."""

    def __init__(
        self, registry: bdevs.Registry, plane: dataplane.DataPlane
    ) -> None:
        self._registry = registry
        self._plane = plane
        self._disks: dict[bdevs.Bdev, Disk] = {}
        self._detaching: set[asyncio.Future[None]] = set()

    def start(self, bdev_name: str, device: str | None) -> outcome.Deferred:
        """Make a bdev a block device; its path is the result."""
        if device is not None and not _NBD_DEVICE.fullmatch(device):
            raise errors.RpcError(
                -errno.ENODEV, f'illegal nbd device {device}'
            )
        bdev = self._registry.get(bdev_name)
        if bdev in self._disks:
            raise errors.Errno(errno.EBUSY)
        disk = Disk(bdev, lambda: self._bdev_removed(disk))
        try:
            if device is not None:
                # The data plane has nothing of that name.
                raise errors.Errno(errno.ENOENT)
            coming = self._plane.attach_host(bdev)
        except errors.Errno as error:
            disk.close()
            raise _outgoing(error) from error
        self._disks[bdev] = disk

        def undo() -> None:
            self._forget(disk)
            disk.close()

        return outcome.Deferred(
            lambda: disk.path, self._attach(disk, coming), undo
        )

    async def _attach(self, disk: Disk, coming: Awaitable[str]) -> None:
        try:
            path = await coming
        except errors.Errno as error:
            raise _outgoing(error) from error
        if disk.closed:
            # The bdev was deleted when there was no device to take away.
            self._detach(disk.bdev)
            raise errors.Errno(errno.ENODEV)
        disk.path = path

    def stop(self, device: str) -> outcome.Deferred:
        """Take a block device away, in use or not."""
        disk = self.find(device)
        if disk.stopping:
            raise errors.Errno(errno.ENODEV)
        disk.stopping = True

        def finish() -> bool:
            self._forget(disk)
            disk.close()
            return True

        def undo() -> None:
            disk.stopping = False

        return outcome.Deferred(
            finish, self._plane.detach_host(disk.bdev), undo
        )

    def find(self, device: str) -> Disk:
        """A disk by its device, or no such device."""
        for disk in self.all():
            if disk.path == device:
                return disk
        raise errors.Errno(errno.ENODEV)

    def all(self) -> list[Disk]:
        """Those that are there."""
        return [d for d in self._disks.values() if d.path is not None]

    def _bdev_removed(self, disk: Disk) -> None:
        """The bdev is being deleted: its device goes with it."""
        self._forget(disk)
        disk.close()
        if disk.path is not None and not disk.stopping:
            self._detach(disk.bdev)

    def _forget(self, disk: Disk) -> None:
        if self._disks.get(disk.bdev) is disk:
            del self._disks[disk.bdev]

    def _detach(self, bdev: bdevs.Bdev) -> None:
        """Have a device taken away; nobody waits for it."""
        done = self._plane.detach_host(bdev)
        if done is not None:
            task = asyncio.ensure_future(_quietly(done))
            self._detaching.add(task)
            task.add_done_callback(self._detaching.discard)


async def _quietly(done: Awaitable[None]) -> None:
    try:
        await done
    except errors.Errno:
        # Its data is gone in a moment, whatever becomes of the device.
        return


def _outgoing(error: errors.Errno) -> errors.Errno:
    return _NoDevice() if error.number == errno.ENODEV else error
