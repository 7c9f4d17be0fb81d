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

"""Where the bytes are kept: the seam between the books and the data.

The books (names, sizes, clusters, limits, controllers) are complete without
a byte of data. A data plane is told of each change after the books have
found it possible and before it is answered, and can take its time: what it
returns, if anything, is awaited before the change is made. An
:class:`~cinder_spdk_vhost.embedded.errors.Errno` from it ends the request
with that error, and the books stay as they were.
"""

from collections.abc import Awaitable
import errno
from typing import Protocol

from cinder_spdk_vhost.embedded import bdevs, errors, lvols

#: None: done at once.
Done = Awaitable[None] | None


class Disk(Protocol):
    """A bdev's data, served to one guest.

    :ivar path: a unix socket on which vhost-user-blk is spoken
    """

    path: str

    async def close(self) -> None:
        """The guest has left."""


class DataPlane(Protocol):
    """What the target asks of whoever keeps the bytes."""

    def create(self, lvol: lvols.Lvol) -> Done:
        """A new volume that reads as zeros."""

    def snapshot(self, origin: lvols.Lvol, snapshot: lvols.Lvol) -> Done:
        """The snapshot takes what the origin has; the origin reads it."""

    def clone(self, snapshot: lvols.Lvol, clone: lvols.Lvol) -> Done:
        """A new volume that reads what a snapshot has."""

    def detach(self, lvol: lvols.Lvol, parent: lvols.Lvol | None) -> Done:
        """Copy what a volume reads from its ancestors down to a parent.

        The parent is the new one; None ends the chain at the volume.
        """

    def resize(self, lvol: lvols.Lvol, clusters: int) -> Done:
        """Give a volume another size."""

    def delete(self, lvol: lvols.Lvol, heir: lvols.Lvol | None) -> Done:
        """Drop a volume's data, or leave it to its only clone."""

    def limit(self, bdev: bdevs.Bdev) -> Done:
        """The limits of a bdev have changed."""

    def serve(
        self, bdev: bdevs.Bdev, readonly: bool
    ) -> Awaitable[Disk] | None:
        """Serve a bdev to one guest more.

        None where no data is kept: whoever connects counts as a guest.
        :class:`~cinder_spdk_vhost.embedded.errors.Errno` where it can't be
        served now; the guest is disconnected, and may come again.
        """

    def attach_host(self, bdev: bdevs.Bdev) -> Awaitable[str]:
        """Make a bdev a block device of this host; gives its path.

        Once at a time for a bdev, and beside any number of guests. ENODEV
        where this host can have none.
        """

    def detach_host(self, bdev: bdevs.Bdev) -> Done:
        """Take that block device away, whoever has it open.

        Also called when the bdev is deleted under it, just before
        :meth:`delete`, which may come before this is done.
        """


class Books:
    """A data plane without data: all is done as soon as it is noted."""

    def create(self, lvol: lvols.Lvol) -> Done:
        """Nothing to do."""

    def snapshot(self, origin: lvols.Lvol, snapshot: lvols.Lvol) -> Done:
        """Nothing to do."""

    def clone(self, snapshot: lvols.Lvol, clone: lvols.Lvol) -> Done:
        """Nothing to do."""

    def detach(self, lvol: lvols.Lvol, parent: lvols.Lvol | None) -> Done:
        """Nothing to do."""

    def resize(self, lvol: lvols.Lvol, clusters: int) -> Done:
        """Nothing to do."""

    def delete(self, lvol: lvols.Lvol, heir: lvols.Lvol | None) -> Done:
        """Nothing to do."""

    def limit(self, bdev: bdevs.Bdev) -> Done:
        """Nothing to do."""

    def serve(
        self, bdev: bdevs.Bdev, readonly: bool
    ) -> Awaitable[Disk] | None:
        """Nothing is served."""
        return None

    def attach_host(self, bdev: bdevs.Bdev) -> Awaitable[str]:
        """There is nothing that could be read or written."""
        raise errors.Errno(errno.ENODEV)

    def detach_host(self, bdev: bdevs.Bdev) -> Done:
        """Nothing to do."""
