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

"""What can be done to logical volumes.

Every operation begins at once (it checks, takes its name and its lock) and
ends with the poll, as SPDK's end when the metadata is written. What arrives
in between finds the name taken, the volume locked, and the result not there
yet. The errors are errnos; which code they go out under is the methods'
business.
"""

from collections.abc import Callable
import errno

from cinder_spdk_vhost.embedded import (
    bdevs,
    clusters,
    dataplane,
    errors,
    lvols,
    outcome,
    store,
)

Lvol = lvols.Lvol


class Volumes:
    """The volumes of all stores.

    :param registry: where their bdevs show up
    :param state: where they are saved
    :param plane: who keeps their bytes
    """

    def __init__(
        self,
        registry: bdevs.Registry,
        state: store.Store,
        plane: dataplane.DataPlane,
    ) -> None:
        self._registry = registry
        self._state = state
        self._plane = plane
        plane.on_data = self._has_data

    def create(
        self,
        lvstore: lvols.Lvstore,
        name: str,
        size: int,
        thin: bool,
        clear_method: str,
    ) -> outcome.Deferred:
        """A new volume; its name has been checked already."""
        count = lvstore.clusters_for(size)
        own = clusters.NONE if thin else clusters.first(count)
        lvstore.begin()
        try:
            lvstore.take(own)
        except errors.Errno:
            lvstore.end()
            raise
        lvol = Lvol(
            lvstore,
            name,
            count,
            thin=thin,
            own=own,
            clear_method=clear_method,
        )
        lvstore.names[name] = None

        def finish() -> str:
            lvstore.end()
            return self._appear(lvol)

        def undo() -> None:
            lvstore.end()
            lvstore.give_back(own)
            self._drop(lvol)

        return outcome.Deferred(
            finish, undo=undo, around=self._plane.create(lvol)
        )

    def snapshot(self, origin: Lvol, name: str) -> outcome.Deferred:
        """A read-only copy that takes over what its origin has."""
        lvstore = origin.lvstore
        lvstore.check_name(name)
        if origin.read_only:
            raise errors.Errno(errno.EINVAL)
        self._lock(origin)
        snapshot = Lvol(
            lvstore,
            name,
            origin.size,
            thin=True,
            read_only=True,
            clear_method=origin.clear_method,
        )
        lvstore.names[name] = None

        def finish() -> str:
            self._unlock(origin)
            snapshot.own, origin.own = origin.own, clusters.NONE
            snapshot.thin, origin.thin = origin.thin, True
            snapshot.adopt(origin.parent)
            origin.adopt(snapshot)
            self._save(origin)
            return self._appear(snapshot)

        return outcome.Deferred(
            finish,
            undo=self._undo(origin, snapshot),
            around=self._plane.snapshot(origin, snapshot),
        )

    def clone(self, snapshot: Lvol, name: str) -> outcome.Deferred:
        """A volume that begins as what a snapshot has."""
        lvstore = snapshot.lvstore
        lvstore.check_name(name)
        if not snapshot.read_only:
            raise errors.Errno(errno.EINVAL)
        self._lock(snapshot)
        clone = Lvol(
            lvstore,
            name,
            snapshot.size,
            thin=True,
            clear_method=snapshot.clear_method,
        )
        lvstore.names[name] = None

        def finish() -> str:
            self._unlock(snapshot)
            clone.adopt(snapshot)
            return self._appear(clone)

        return outcome.Deferred(
            finish,
            undo=self._undo(snapshot, clone),
            around=self._plane.clone(snapshot, clone),
        )

    def inflate(self, lvol: Lvol) -> outcome.Deferred:
        """Give a volume all its clusters, independent of any parent."""
        return self._detach(lvol, whole=True)

    def decouple(self, lvol: Lvol) -> outcome.Deferred:
        """Copy what a volume's parent has; its grandparent follows."""
        return self._detach(lvol, whole=False)

    def _detach(self, lvol: Lvol, *, whole: bool) -> outcome.Deferred:
        self._plane.refresh()
        self._lock(lvol)
        try:
            if lvol.parent is None and not whole:
                raise errors.Errno(errno.EINVAL)
            wanted = _to_copy(lvol, whole)
            change = self._plane.detach(lvol, whole)
            lvol.lvstore.take(wanted)
        except errors.Errno:
            self._unlock(lvol)
            raise

        def finish() -> bool:
            self._unlock(lvol)
            # A guest may have written to some of them meanwhile, and what
            # the parent stood on may have been deleted and left to it.
            lvol.lvstore.give_back(wanted)
            copied = _to_copy(lvol, whole)
            lvol.lvstore.free -= copied.bit_count()
            lvol.own |= copied
            lvol.thin = not whole
            lvol.adopt(lvol.left_by_detach(whole))
            self._save(lvol)
            return True

        def undo() -> None:
            self._unlock(lvol)
            lvol.lvstore.give_back(wanted)

        return outcome.Deferred(
            finish,
            undo=undo,
            around=change,
        )

    def resize(self, lvol: Lvol, size: int) -> outcome.Deferred:
        """Another size. A smaller one frees clusters even when refused."""
        lvstore = lvol.lvstore
        if lvol.read_only:
            raise errors.Errno(errno.EPERM)
        count = lvstore.clusters_for(size)
        if count == lvol.size:
            return outcome.Deferred(lambda: self._show_size(lvol))
        self._lock(lvol)
        more = clusters.NONE
        if not lvol.thin:
            more = clusters.first(count) & ~clusters.first(lvol.size)
        try:
            lvstore.take(more)
        except errors.Errno:
            self._unlock(lvol)
            raise

        def finish() -> bool:
            self._unlock(lvol)
            lvstore.give_back(lvol.own >> count)
            lvol.own = lvol.own & clusters.first(count) | more
            lvol.size = count
            self._save(lvol)
            return self._show_size(lvol)

        def undo() -> None:
            self._unlock(lvol)
            lvstore.give_back(more)

        return outcome.Deferred(
            finish,
            undo=undo,
            around=self._plane.resize(lvol, count),
        )

    @staticmethod
    def _show_size(lvol: Lvol) -> bool:
        # Only now does SPDK look whether somebody has the bdev open.
        lvol.change_size(
            lvol.size * lvol.lvstore.cluster_size // lvol.block_size
        )
        return True

    def rename(self, lvol: Lvol, name: str) -> outcome.Deferred:
        """Another name.

        The alias changes first, whatever comes of the rest: a snapshot's
        rename is refused and it answers to the new alias all the same,
        until its store is loaded again.
        """
        lvstore = lvol.lvstore
        self._registry.rename_alias(lvol, f'{lvstore.name}/{name}')
        # What is longer is cut, without a word.
        short = name.encode()[: lvols.NAME_MAX].decode(errors='ignore')
        if short == lvol.lvol_name:
            return outcome.Deferred(lambda: True)
        if lvstore.names.get(short) is not None:
            raise errors.Errno(errno.EEXIST)
        if lvol.read_only:
            raise errors.Errno(errno.EPERM)

        def finish() -> bool:
            del lvstore.names[lvol.lvol_name]
            lvol.lvol_name = short
            lvstore.names[short] = lvol
            self._save(lvol)
            return True

        return outcome.Deferred(finish)

    def set_read_only(self, lvol: Lvol) -> outcome.Deferred:
        """Refuse writes, once whoever uses it opens it anew."""

        def finish() -> bool:
            lvol.read_only = True
            self._save(lvol)
            return True

        return outcome.Deferred(finish)

    def set_parent(self, lvol: Lvol, parent: Lvol) -> outcome.Deferred:
        """Read what a thin volume lacks from another snapshot."""
        if lvol.parent is not None and lvol.parent is parent:
            raise errors.Errno(errno.EEXIST)
        if (
            lvol is parent
            or lvol.lvstore is not parent.lvstore
            or not lvol.thin
            or not (parent.is_snapshot or parent.read_only)
            or lvol.size != parent.size
        ):
            raise errors.Errno(errno.EINVAL)
        if parent.locked:
            raise errors.Errno(errno.EBUSY)
        self._lock(lvol)
        parent.locked = True

        def finish() -> bool:
            undo()
            lvol.adopt(parent)
            self._save(lvol)
            return True

        def undo() -> None:
            self._unlock(lvol)
            parent.locked = False

        return outcome.Deferred(
            finish,
            undo=undo,
            around=self._plane.set_parent(lvol, parent),
        )

    def delete(self, lvol: Lvol) -> outcome.Deferred:
        """Delete a volume, in use or not.

        A snapshot with one clone leaves it what it has. SPDK takes the bdev
        away before it looks whether the blob can go: one that can't, since
        it or its clone is being worked on, keeps its clusters and is not to
        be seen until its store is loaded again.
        """
        if len(lvol.clones) > 1:
            raise errors.Errno(errno.EPERM)
        lvstore = lvol.lvstore
        heir = next(iter(lvol.clones), None)
        change = self._plane.delete(lvol, heir)
        if self._registry.find(lvol.name) is lvol:
            self._registry.unregister(lvol)
        if lvol.locked or (heir is not None and heir.locked):
            lvstore.hide(lvol)
            raise errors.Errno(errno.EBUSY)
        self._lock(lvol)
        if heir is not None:
            heir.locked = True

        def finish() -> bool:
            self._unlock(lvol)
            left = lvol.own
            if heir is not None:
                heir.locked = False
                taken = left & clusters.first(heir.size) & ~heir.own
                heir.own |= taken
                left &= ~taken
                heir.adopt(lvol.parent)
                self._save(heir)
            self._forget(lvol, left)
            return True

        def undo() -> None:
            # Whoever keeps the data could not do it: nothing has changed.
            self._unlock(lvol)
            if heir is not None:
                heir.locked = False
            if not lvstore.removed:
                self._registry.register(lvol)

        return outcome.Deferred(
            finish,
            undo=undo,
            around=change,
        )

    def _has_data(self, lvol: Lvol, own: int) -> None:
        """Guests have written to other clusters than the books have."""
        lvstore = lvol.lvstore
        if own != lvol.own and lvol.uuid in lvstore.lvols:
            # Nobody asked first: there may be fewer than none left.
            lvstore.free += lvol.allocated - own.bit_count()
            lvol.own = own
            self._save(lvol)

    def _forget(self, lvol: Lvol, left: int) -> None:
        lvstore = lvol.lvstore
        lvstore.give_back(left)
        lvol.adopt(None)
        lvstore.hide(lvol)
        lvstore.free_blob(lvol.blob)
        if not lvstore.volatile:
            self._state.delete_lvol(lvol.uuid)

    def _appear(self, lvol: Lvol) -> str:
        lvstore = lvol.lvstore
        if lvstore.removed:
            raise errors.Errno(errno.ENODEV)
        lvstore.add(lvol)
        self._save(lvol)
        self._registry.register(lvol)
        return lvol.uuid

    @staticmethod
    def _drop(lvol: Lvol) -> None:
        """What was to appear won't: its name and place are free."""
        del lvol.lvstore.names[lvol.lvol_name]
        lvol.lvstore.free_blob(lvol.blob)

    def _undo(self, locked: Lvol, new: Lvol) -> Callable[[], None]:
        def undo() -> None:
            self._unlock(locked)
            self._drop(new)

        return undo

    def _save(self, lvol: Lvol) -> None:
        if not lvol.lvstore.volatile:
            self._state.save_lvol(lvol.row())

    @staticmethod
    def _lock(lvol: Lvol) -> None:
        if lvol.locked:
            raise errors.Errno(errno.EBUSY)
        lvol.lvstore.begin()
        lvol.locked = True

    @staticmethod
    def _unlock(lvol: Lvol) -> None:
        lvol.locked = False
        lvol.lvstore.end()


def _to_copy(lvol: Lvol, whole: bool) -> int:
    """What a volume gets when it becomes independent of its parent.

    :param whole: of all its ancestors, and with all clusters of its own
    """
    missing = clusters.first(lvol.size) & ~lvol.own
    if whole:
        return missing if lvol.thin else clusters.NONE
    return missing & lvol.parent.own if lvol.parent else clusters.NONE
