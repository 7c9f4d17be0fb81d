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

"""One at a time works on volumes that share images.

The daemon's jobs lock the nodes that they go through, so that work on one
volume of a family (a chain's root and all that descends from it) stands in
the way of work on another.
"""

import asyncio
from collections.abc import AsyncIterator
import contextlib
import weakref

from cinder_spdk_vhost.embedded import lvols


class Families:
    """A lock a family."""

    def __init__(self) -> None:
        self._locks: weakref.WeakKeyDictionary[lvols.Lvol, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.asynccontextmanager
    async def one(self, lvol: lvols.Lvol) -> AsyncIterator[None]:
        """Be the only one to work on a volume's family."""
        lock = await self._acquire(lvol)
        try:
            yield
        finally:
            lock.release()

    def share(self, lvol: lvols.Lvol, newcomer: lvols.Lvol) -> None:
        """One who joins a volume's family may become its root.

        To be called by the one who works on the family.
        """
        self._locks[newcomer] = self._locks[_root(lvol)]

    async def _acquire(self, lvol: lvols.Lvol) -> asyncio.Lock:
        while True:
            root = _root(lvol)
            lock = self._locks.setdefault(root, asyncio.Lock())
            await lock.acquire()
            if _root(lvol) is root:
                return lock
            # Who worked on it before has cut the family in two.
            lock.release()


def _root(lvol: lvols.Lvol) -> lvols.Lvol:
    *_, root = lvol, *lvol.ancestors()
    return root
