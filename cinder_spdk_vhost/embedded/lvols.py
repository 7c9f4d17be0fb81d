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

"""Logical volumes and the store they live in: the books.

A store hands out clusters. A volume has a map of the clusters that are its
own; what it lacks, it reads from its parent, a snapshot, or as zeros.
Everything here is bookkeeping; who keeps the bytes is the data plane.
"""

from collections.abc import Callable, Iterator
import errno
import heapq
from typing import Any
import uuid as uuids

from cinder_spdk_vhost.embedded import basebdevs, bdevs, clusters, errors

NAME_MAX = 63
PAGE = 4096

#: Each mask of used pages or clusters begins with so many bytes.
_MASK_HEADER = 5
#: How many operations a store's metadata can have under way. SPDK gives an
#: operation two of 512 request sets and keeps one pair back.
_MAX_OPERATIONS = 255
#: A volume of more clusters is beyond the memory for its map.
_MAX_CLUSTERS = 1 << 31

_WRITABLE = bdevs.io_types(
    'read',
    'write',
    'unmap',
    'reset',
    'write_zeroes',
    'seek_hole',
    'seek_data',
)
_READ_ONLY = bdevs.io_types('read', 'reset', 'seek_hole', 'seek_data')


def round_up(size: int, unit: int) -> int:
    """How many units a size takes."""
    return -(-size // unit)


class Lvol(bdevs.Bdev):
    """A logical volume, snapshot or clone; also the bdev that shows it."""

    product_name = 'Logical Volume'

    def __init__(
        self,
        lvstore: 'Lvstore',
        name: str,
        size: int,
        *,
        thin: bool,
        own: int = clusters.NONE,
        read_only: bool = False,
        blob: int | None = None,
        uuid: str | None = None,
        clear_method: str = 'default',
        image: str | None = None,
    ) -> None:
        uuid = uuid or str(uuids.uuid4())
        super().__init__(
            uuid,
            lvstore.block_size,
            size * lvstore.cluster_size // lvstore.block_size,
            uuid,
        )
        self.alias = f'{lvstore.name}/{name}'
        self.supported = _READ_ONLY if read_only else _WRITABLE
        self.numa_id = lvstore.base.numa_id
        self.memory_domains = isinstance(lvstore.base, basebdevs.Malloc)
        self.lvstore = lvstore
        self.lvol_name = name
        #: in clusters; can differ from the bdev's after a refused shrink
        self.size = size
        self.thin = thin
        self.own = own
        self.read_only = read_only
        self.clear_method = clear_method
        #: under which the data plane keeps what was written to it
        self.image = image or uuid
        #: its data can't be read
        self.broken = False
        self.parent: Lvol | None = None
        self.clones: dict[Lvol, None] = {}
        #: it has, or once had, clones: that makes it a snapshot
        self.is_snapshot = False
        #: an operation that excludes others is under way
        self.locked = False
        self.blob = lvstore.next_blob() if blob is None else blob

    @property
    def allocated(self) -> int:
        """How many clusters are its own."""
        return self.own.bit_count()

    @property
    def is_degraded(self) -> bool:
        """Whether some of its data, or of its ancestors', can't be read."""
        return any(step.broken for step in (self, *self.ancestors()))

    def open(self, on_remove: Callable[[], None]) -> bdevs.Descriptor:
        """Open for writing: not what can't be read."""
        if self.is_degraded:
            raise errors.Errno(errno.EIO)
        return super().open(on_remove)

    def adopt(self, parent: 'Lvol | None') -> None:
        """Read what is not its own from another parent, or as zeros."""
        if self.parent is not None:
            del self.parent.clones[self]
        self.parent = parent
        if parent is not None:
            parent.clones[self] = None
            parent.is_snapshot = True

    def ancestors(self) -> Iterator['Lvol']:
        """What it stands on, nearest first."""
        step = self.parent
        while step is not None:
            yield step
            step = step.parent

    def left_by_detach(self, whole: bool) -> 'Lvol | None':
        """The parent after it was made independent of that, or of all."""
        if whole or self.parent is None:
            return None
        return self.parent.parent

    def driver_specific(self) -> dict[str, Any]:
        """Its store, its clusters and its relatives."""
        about: dict[str, Any] = {
            'lvol_store_uuid': self.lvstore.uuid,
            'base_bdev': self.lvstore.base.name,
            'thin_provision': self.thin,
            'num_allocated_clusters': self.allocated,
            'snapshot': self.is_snapshot,
            'clone': self.parent is not None,
        }
        known = self.lvstore.lvols
        if self.parent is not None and self.parent.uuid in known:
            about['base_snapshot'] = self.parent.lvol_name
        if self.clones:
            about['clones'] = [
                clone.lvol_name for clone in self.clones if clone.uuid in known
            ]
        about['esnap_clone'] = False
        return {'lvol': about}

    def describe_lvol(self) -> dict[str, Any]:
        """The volume as ``bdev_lvol_get_lvols`` shows it."""
        return {
            'alias': f'{self.lvstore.name}/{self.lvol_name}',
            'uuid': self.uuid,
            'name': self.lvol_name,
            'is_thin_provisioned': self.thin,
            'is_snapshot': self.is_snapshot,
            'is_clone': self.parent is not None,
            'is_esnap_clone': False,
            'is_degraded': self.is_degraded,
            'num_allocated_clusters': self.allocated,
            'lvs': {'name': self.lvstore.name, 'uuid': self.lvstore.uuid},
        }

    def row(self) -> tuple[Any, ...]:
        """What is saved of it."""
        return (
            self.uuid,
            self.lvstore.uuid,
            self.blob,
            self.lvol_name,
            self.size,
            self.thin,
            self.read_only,
            self.parent.uuid if self.parent is not None else None,
            clusters.dumps(self.own),
            self.clear_method,
            self.image,
        )


class Layout:
    """How a store divides its device; fixed when it is made."""

    def __init__(self, total: int, metadata: int, pages: int) -> None:
        self.total_clusters = total
        self.metadata_clusters = metadata
        self.metadata_pages = pages

    @classmethod
    def plan(cls, device_size: int, cluster_size: int, ratio: int) -> 'Layout':
        """Divide a device: a share of it, at its front, is metadata."""
        if cluster_size % PAGE:
            raise errors.Errno(errno.EINVAL)
        total = device_size // cluster_size
        pages = total * ratio // 100
        if not total or not pages:
            raise errors.Errno(errno.EINVAL)
        of_pages = _mask_pages(pages)
        of_clusters = max(of_pages, _mask_pages(total))
        used = 1 + of_pages + of_clusters + of_pages + pages
        metadata = round_up(used * PAGE, cluster_size)
        if metadata > total:
            raise errors.Errno(errno.ENOMEM)
        return cls(total, metadata, pages)

    @property
    def data_clusters(self) -> int:
        """How many clusters volumes can have."""
        return self.total_clusters - self.metadata_clusters

    @property
    def most_clusters(self) -> int:
        """How many clusters there is room for in the mask of used ones."""
        pages = _mask_pages(max(self.total_clusters, self.metadata_pages))
        return (pages * PAGE - _MASK_HEADER) * 8


def _mask_pages(bits: int) -> int:
    return round_up(_MASK_HEADER + round_up(bits, 8), PAGE)


class Lvstore:
    """A store of volumes on a base bdev."""

    def __init__(
        self,
        name: str,
        base: bdevs.Bdev,
        cluster_size: int,
        layout: Layout,
        *,
        block_size: int | None = None,
        uuid: str | None = None,
    ) -> None:
        self.name = name
        self.uuid = uuid or str(uuids.uuid4())
        self.base = base
        self.cluster_size = cluster_size
        self.block_size = block_size or base.block_size
        self.layout = layout
        #: what can be seen of it; a deletion that went wrong hides volumes
        self.lvols: dict[str, Lvol] = {}
        self.names: dict[str, Lvol | None] = {}
        self.free = layout.data_clusters
        self.removed = False
        #: only a file's books are worth keeping
        self.volatile = not isinstance(base, basebdevs.Aio)
        self._operations = 0
        self._last_blob = 0
        self._freed_blobs: list[int] = []

    def next_blob(self) -> int:
        """A new volume's place in the metadata: the first free one."""
        if self._freed_blobs:
            return heapq.heappop(self._freed_blobs)
        self._last_blob += 1
        return self._last_blob

    def free_blob(self, blob: int) -> None:
        """A place in the metadata is free again."""
        heapq.heappush(self._freed_blobs, blob)

    def clusters_for(self, size: int) -> int:
        """How many clusters a size takes."""
        count = round_up(size, self.cluster_size)
        if count > _MAX_CLUSTERS:
            raise errors.Errno(errno.ENOMEM)
        return count

    def check_name(self, name: str) -> None:
        """A name for a new volume: not empty, not too long, not taken."""
        if not 0 < len(name.encode()) <= NAME_MAX:
            raise errors.Errno(errno.EINVAL)
        if name in self.names:
            raise errors.Errno(errno.EEXIST)

    def begin(self) -> None:
        """One operation more under way, if there is room for it."""
        if self._operations >= _MAX_OPERATIONS:
            raise errors.Errno(errno.ENOMEM)
        self._operations += 1

    def end(self) -> None:
        """One operation less."""
        self._operations -= 1

    def take(self, wanted: int) -> None:
        """Hand out the clusters of a map."""
        count = wanted.bit_count()
        if count > self.free:
            raise errors.Errno(errno.ENOSPC)
        self.free -= count

    def give_back(self, unwanted: int) -> None:
        """Take the clusters of a map back."""
        self.free += unwanted.bit_count()

    def add(self, lvol: Lvol) -> None:
        """List a volume under its name."""
        self.lvols[lvol.uuid] = lvol
        self.names[lvol.lvol_name] = lvol

    def load(self, lvols: list[Lvol]) -> None:
        """List the volumes that a store had when it was last up."""
        for lvol in lvols:
            self.add(lvol)
            self.free -= lvol.allocated
        taken = {lvol.blob for lvol in lvols}
        self._last_blob = max(taken, default=0)
        self._freed_blobs = [
            blob for blob in range(1, self._last_blob) if blob not in taken
        ]

    def hide(self, lvol: Lvol) -> None:
        """Take a volume off the list; its clusters stay in use."""
        self.lvols.pop(lvol.uuid, None)
        if self.names.get(lvol.lvol_name) is lvol:
            del self.names[lvol.lvol_name]

    def grow(self) -> None:
        """Take in what the base has grown by."""
        size = self.base.num_blocks * self.base.block_size
        total = size // self.cluster_size
        more = total - self.layout.total_clusters
        if more <= 0:
            return
        if total > self.layout.most_clusters:
            raise errors.Errno(errno.ENOSPC)
        self.layout.total_clusters = total
        self.free += more

    def describe(self) -> dict[str, Any]:
        """The store as ``bdev_lvol_get_lvstores`` shows it."""
        return {
            'uuid': self.uuid,
            'name': self.name,
            'base_bdev': self.base.name,
            'total_data_clusters': self.layout.data_clusters,
            'free_clusters': max(self.free, 0),
            'block_size': self.block_size,
            'cluster_size': self.cluster_size,
            'max_growable_size': self.layout.most_clusters * self.cluster_size,
        }

    def row(self) -> tuple[Any, ...]:
        """What is saved of it."""
        layout = self.layout
        return (
            self.uuid,
            self.name,
            self.cluster_size,
            self.block_size,
            layout.total_clusters,
            layout.metadata_clusters,
            layout.metadata_pages,
        )


class Lvstores:
    """All stores that are up, in the order in which they came up."""

    def __init__(self) -> None:
        self._by_uuid: dict[str, Lvstore] = {}

    def __iter__(self) -> Iterator[Lvstore]:
        return iter(self._by_uuid.values())

    def add(self, lvstore: Lvstore) -> None:
        """A store came up."""
        self._by_uuid[lvstore.uuid] = lvstore

    def remove(self, lvstore: Lvstore) -> None:
        """A store is gone, or on its way."""
        self._by_uuid.pop(lvstore.uuid, None)

    def by_uuid(self, uuid: str) -> Lvstore | None:
        """A store by its UUID."""
        return self._by_uuid.get(uuid)

    def by_name(self, name: str) -> Lvstore | None:
        """A store by its name; there are never many."""
        for lvstore in self:
            if lvstore.name == name:
                return lvstore
        return None
