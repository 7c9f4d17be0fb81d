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

"""Stores come up, grow, go down and are deleted."""

import contextlib
import errno

from cinder_spdk_vhost.embedded import (
    basebdevs,
    bdevs,
    clusters,
    dataplane,
    errors,
    label,
    lvols,
    outcome,
    store,
)

DEFAULT_CLUSTER = 4 * 1024 * 1024
DEFAULT_RATIO = 100


class StoreKeeper:
    """Keeps the stores on their base bdevs."""

    def __init__(
        self,
        registry: bdevs.Registry,
        stores: lvols.Lvstores,
        state: store.Store,
        plane: dataplane.DataPlane,
    ) -> None:
        self._registry = registry
        self._stores = stores
        self._state = state
        self._plane = plane
        #: names of stores that are being made
        self._coming: set[str] = set()
        self._open: dict[str, bdevs.Descriptor] = {}
        registry.examine = self.examine

    def create(
        self,
        base: bdevs.Bdev,
        name: str,
        cluster_size: int,
        ratio: int,
    ) -> outcome.Deferred:
        """A new store on a bdev that nobody claims."""
        cluster_size = cluster_size or DEFAULT_CLUSTER
        descriptor = base.open(lambda: None)
        try:
            if cluster_size < base.block_size or (
                cluster_size % base.block_size
            ):
                raise errors.Errno(errno.EINVAL)
            if not 0 < len(name.encode()) <= lvols.NAME_MAX:
                raise errors.Errno(errno.EINVAL)
            if name in self._coming or self._stores.by_name(name):
                raise errors.Errno(errno.EEXIST)
            descriptor.claim(bdevs.READ_MANY_WRITE_ONE)
        except errors.Errno:
            descriptor.close()
            raise
        self._coming.add(name)

        def finish() -> str:
            self._coming.discard(name)
            try:
                layout = lvols.Layout.plan(
                    base.num_blocks * base.block_size,
                    cluster_size,
                    ratio or DEFAULT_RATIO,
                )
                lvstore = lvols.Lvstore(name, base, cluster_size, layout)
                if isinstance(base, basebdevs.Aio):
                    self._state.save_lvstore(lvstore.row())
                    _label(base, lvstore.uuid)
            except errors.Errno:
                descriptor.close()
                raise
            self._up(lvstore, descriptor)
            return lvstore.uuid

        return outcome.Deferred(finish)

    def examine(self, base: bdevs.Bdev) -> None:
        """Bring up the store that lives on a bdev, if one does."""
        if not isinstance(base, basebdevs.Aio) or not base.num_blocks:
            return
        uuid = label.read(base.filename)
        row = self._state.lvstore(uuid) if uuid else None
        if row is None or self._stores.by_uuid(row[0]):
            return
        uuid, name, cluster_size, block_size, total, metadata, pages = row
        if self._stores.by_name(name):
            return
        lvstore = lvols.Lvstore(
            name,
            base,
            cluster_size,
            lvols.Layout(total, metadata, pages),
            block_size=block_size,
            uuid=uuid,
        )
        loaded = self._load(lvstore)
        self._plane.load(lvstore, loaded)
        lvstore.load(loaded)
        descriptor = base.open(lambda: None)
        descriptor.claim(bdevs.READ_MANY_WRITE_ONE)
        self._up(lvstore, descriptor)
        for lvol in sorted(loaded, key=_reads_to_load):
            # Two of one name: a deletion went wrong and its place was taken.
            with contextlib.suppress(errors.Errno):
                self._registry.register(lvol)

    def is_second(self, base: basebdevs.Aio) -> bool:
        """Whether the store on a file is up on another bdev already."""
        uuid = label.read(base.filename)
        lvstore = self._stores.by_uuid(uuid) if uuid else None
        return lvstore is not None and lvstore.base is not base

    def _load(self, lvstore: lvols.Lvstore) -> list[lvols.Lvol]:
        loaded: dict[str, lvols.Lvol] = {}
        parents: dict[str, str] = {}
        for row in self._state.lvols(lvstore.uuid):
            uuid, _, blob, name, size, thin, read_only = row[:7]
            parent, own, clear_method, image = row[7:]
            loaded[uuid] = lvols.Lvol(
                lvstore,
                name,
                size,
                thin=bool(thin),
                own=clusters.loads(own),
                read_only=bool(read_only),
                blob=blob,
                uuid=uuid,
                clear_method=clear_method,
                image=image,
            )
            if parent is not None:
                parents[uuid] = parent
        for uuid, parent in parents.items():
            loaded[uuid].adopt(loaded[parent])
        return list(loaded.values())

    def _up(
        self, lvstore: lvols.Lvstore, descriptor: bdevs.Descriptor
    ) -> None:
        descriptor.on_remove = lambda: self._down(lvstore)
        self._open[lvstore.uuid] = descriptor
        self._stores.add(lvstore)

    def _down(self, lvstore: lvols.Lvstore) -> None:
        """The base is gone, and the store with it, its books apart."""
        self._stores.remove(lvstore)
        lvstore.removed = True
        for lvol in tuple(lvstore.lvols.values()):
            if self._registry.find(lvol.name) is lvol:
                self._registry.unregister(lvol)
        self._open.pop(lvstore.uuid).close()

    def delete(self, lvstore: lvols.Lvstore) -> outcome.Deferred:
        """Delete a store with all that is in it, in use or not."""
        self._stores.remove(lvstore)

        def finish() -> bool:
            if lvstore.removed:
                raise errors.Errno(errno.ENODEV)
            self._down(lvstore)
            if isinstance(lvstore.base, basebdevs.Aio):
                label.erase(lvstore.base.filename)
                self._state.delete_lvstore(lvstore.uuid)
            self._plane.forget(lvstore)
            return True

        return outcome.Deferred(finish)

    def rename(self, lvstore: lvols.Lvstore, name: str) -> outcome.Deferred:
        """Another name for a store and for the aliases of its volumes."""
        if name == lvstore.name:
            return outcome.Deferred(lambda: True)
        # An empty name is what SPDK takes for the new name of every store.
        if not name or name in self._coming or self._stores.by_name(name):
            raise errors.Errno(errno.EEXIST)
        if len(name.encode()) > lvols.NAME_MAX:
            raise errors.Errno(errno.EINVAL)

        def finish() -> bool:
            lvstore.name = name
            for lvol in lvstore.lvols.values():
                self._registry.rename_alias(lvol, f'{name}/{lvol.lvol_name}')
            self._save(lvstore)
            return True

        return outcome.Deferred(finish)

    def grow(self, lvstore: lvols.Lvstore) -> outcome.Deferred:
        """Take in what the base has grown by."""

        def finish() -> bool:
            lvstore.grow()
            self._save(lvstore)
            return True

        return outcome.Deferred(finish)

    def _save(self, lvstore: lvols.Lvstore) -> None:
        if not lvstore.volatile:
            self._state.save_lvstore(lvstore.row())


def _label(base: basebdevs.Aio, uuid: str) -> None:
    try:
        label.write(base.filename, uuid)
    except OSError as error:
        raise errors.Errno(errno.EIO) from error


def _reads_to_load(lvol: lvols.Lvol) -> tuple[int, int]:
    """The order in which volumes are there after a start.

    Each takes a read for itself, one if it has clusters, and its parent.
    """
    reads = 0
    blob = lvol.blob
    step: lvols.Lvol | None = lvol
    while step is not None:
        reads += 1 + bool(step.own)
        step = step.parent
    return reads, blob
