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
a byte of data. A data plane is told of each change in two steps: the
context manager that it gives is entered when the books have found the
change possible, and left when they have made and saved it, before the
request is answered. An :class:`~cinder_spdk_vhost.embedded.errors.Errno` on
entering ends the request with that error, and the books stay as they were.
None stands for nothing to do.
"""

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
import errno
from typing import Protocol

from cinder_spdk_vhost.embedded import bdevs, errors, lvols

Change = AbstractAsyncContextManager[None]

#: Told of a volume and the map of the clusters in which it has data.
OnData = Callable[[lvols.Lvol, int], None]


class Disk(Protocol):
    """A bdev's data, served to one guest.

    :ivar path: a unix socket on which vhost-user-blk is spoken
    """

    path: str

    async def close(self) -> None:
        """The guest has left."""


class DataPlane(Protocol):
    """What the target asks of whoever keeps the bytes."""

    #: to be called with what :meth:`refresh` finds
    on_data: OnData

    def load(
        self, lvstore: lvols.Lvstore, known: Iterable[lvols.Lvol]
    ) -> None:
        """A store comes up with these volumes; marks those broken."""

    def forget(self, lvstore: lvols.Lvstore) -> None:
        """A store was deleted with all that was in it."""

    def refresh(self) -> None:
        """Tell the books where guests have written to."""

    def create(self, lvol: lvols.Lvol) -> Change | None:
        """A new volume that reads as zeros."""

    def snapshot(
        self, origin: lvols.Lvol, snapshot: lvols.Lvol
    ) -> Change | None:
        """The snapshot takes what the origin has; the origin reads it."""

    def clone(self, snapshot: lvols.Lvol, clone: lvols.Lvol) -> Change | None:
        """A new volume that reads what a snapshot has."""

    def set_parent(
        self, lvol: lvols.Lvol, parent: lvols.Lvol
    ) -> Change | None:
        """A volume reads what it lacks from another snapshot."""

    def detach(self, lvol: lvols.Lvol, whole: bool) -> Change | None:
        """Copy what a volume reads from its parent, or from all ancestors.

        Which is its parent may change until the change is entered, and not
        after that.
        """

    def resize(self, lvol: lvols.Lvol, clusters: int) -> Change | None:
        """Give a volume another size."""

    def delete(
        self, lvol: lvols.Lvol, heir: lvols.Lvol | None
    ) -> Change | None:
        """Drop a volume's data, or leave it to its only clone."""

    def limit(self, bdev: bdevs.Bdev) -> Change | None:
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

    def detach_host(self, bdev: bdevs.Bdev) -> Awaitable[None] | None:
        """Take that block device away, whoever has it open.

        Also called when the bdev is deleted under it, just before
        :meth:`delete`, which may come before this is done.
        """


class Books:
    """A data plane without data: all is done as soon as it is noted."""

    def __init__(self) -> None:
        self.on_data: OnData = lambda _lvol, _clusters: None

    def load(
        self, lvstore: lvols.Lvstore, known: Iterable[lvols.Lvol]
    ) -> None:
        """Nothing to look at."""

    def forget(self, lvstore: lvols.Lvstore) -> None:
        """Nothing to remove."""

    def refresh(self) -> None:
        """Nobody writes."""

    def create(self, lvol: lvols.Lvol) -> Change | None:
        """Nothing to do."""

    def snapshot(
        self, origin: lvols.Lvol, snapshot: lvols.Lvol
    ) -> Change | None:
        """Nothing to do."""

    def clone(self, snapshot: lvols.Lvol, clone: lvols.Lvol) -> Change | None:
        """Nothing to do."""

    def set_parent(
        self, lvol: lvols.Lvol, parent: lvols.Lvol
    ) -> Change | None:
        """Nothing to do."""

    def detach(self, lvol: lvols.Lvol, whole: bool) -> Change | None:
        """Nothing to do."""

    def resize(self, lvol: lvols.Lvol, clusters: int) -> Change | None:
        """Nothing to do."""

    def delete(
        self, lvol: lvols.Lvol, heir: lvols.Lvol | None
    ) -> Change | None:
        """Nothing to do."""

    def limit(self, bdev: bdevs.Bdev) -> Change | None:
        """Nothing to do."""

    def serve(
        self, bdev: bdevs.Bdev, readonly: bool
    ) -> Awaitable[Disk] | None:
        """Nothing is served."""
        return None

    def attach_host(self, bdev: bdevs.Bdev) -> Awaitable[str]:
        """There is nothing that could be read or written."""
        raise errors.Errno(errno.ENODEV)

    def detach_host(self, bdev: bdevs.Bdev) -> Awaitable[None] | None:
        """Nothing to do."""
