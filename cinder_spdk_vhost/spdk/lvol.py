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

"""Logical volumes and the stores (lvstores) that they live in.

An lvol is named ``STORE/NAME`` in every request but the one that makes it.
Sizes are whole MiB and are rounded up to the store's clusters.
"""

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request

MIB = 1024 * 1024

# Clearing deletes, inflate and decouple answer only when the last cluster
# is written, and share the device with each other. To give up too early is
# worse than to wait: what is under way must not be met by another request.
_SLOWEST_BYTES_PER_SECOND = 4 * MIB
_BASE_SECONDS = 60
_LOADING_SECONDS = 600


def seconds_for(size: int) -> float:
    """Deadline for work that writes up to ``size`` bytes."""
    return _BASE_SECONDS + size / _SLOWEST_BYTES_PER_SECOND


@dataclasses.dataclass(frozen=True)
class Lvstore:
    """One store; sizes in bytes.

    :ivar uuid: what identifies the store, and the target that holds it
    :ivar base_bdev: name of the bdev below it
    """

    uuid: str
    name: str
    base_bdev: str
    cluster_size: int
    total_clusters: int
    free_clusters: int

    @property
    def total(self) -> int:
        return self.total_clusters * self.cluster_size

    @property
    def free(self) -> int:
        return self.free_clusters * self.cluster_size


def _parse_stores(result: list[dict[str, Any]]) -> list[Lvstore]:
    return [
        Lvstore(
            uuid=data['uuid'],
            name=data['name'],
            base_bdev=data['base_bdev'],
            cluster_size=data['cluster_size'],
            total_clusters=data['total_data_clusters'],
            free_clusters=data['free_clusters'],
        )
        for data in result
    ]


def get_lvstores() -> Request[list[Lvstore]]:
    """Every store of the target: a handful, however many volumes."""
    return Request(
        'bdev_lvol_get_lvstores', mutates=False, parse=_parse_stores
    )


def get_lvstore(name: str) -> Request[Lvstore]:
    """One store. NotFound where there is none, or not yet."""
    return Request(
        'bdev_lvol_get_lvstores',
        {'lvs_name': name},
        mutates=False,
        parse=lambda result: _parse_stores(result)[0],
    )


def wait_for_examine() -> Request[Any]:
    """Answers when every store that is being loaded has all its lvols.

    That can take minutes after an unclean stop.
    """
    return Request(
        'bdev_wait_for_examine', mutates=False, timeout=_LOADING_SECONDS
    )


def get_names(store: str) -> Request[list[str]]:
    """Names of all lvols of a store.

    Grows with the store (12 ms at 1,000 lvols): for the periodic sweep,
    never for finding one.
    """
    return Request(
        'bdev_lvol_get_lvols',
        {'lvs_name': store},
        mutates=False,
        parse=lambda result: [data['name'] for data in result],
    )


def get_uuids(store: str) -> Request[dict[str, str]]:
    """The lvols of a store by the names that they keep: as dear.

    A rename changes the alias first, and leaves it so when it then fails.
    """
    return Request(
        'bdev_lvol_get_lvols',
        {'lvs_name': store},
        mutates=False,
        parse=lambda result: {data['name']: data['uuid'] for data in result},
    )


def create(
    store: str, name: str, size_mib: int, *, thin: bool, clear_method: str
) -> Request[str]:
    """Make an lvol; the answer is its bdev's name, a UUID."""
    return Request(
        'bdev_lvol_create',
        {
            'lvs_name': store,
            'lvol_name': name,
            'size_in_mib': size_mib,
            'thin_provision': thin,
            'clear_method': clear_method,
        },
    )


def snapshot(lvol: str, name: str) -> Request[str]:
    """Freeze an lvol's content under a name of its own, in its store."""
    return Request(
        'bdev_lvol_snapshot', {'lvol_name': lvol, 'snapshot_name': name}
    )


def clone(snapshot_lvol: str, name: str) -> Request[str]:
    """Make a writable lvol on a snapshot, in the snapshot's store.

    Its clear method is not stored, whatever the snapshot's is (v26.05).
    """
    return Request(
        'bdev_lvol_clone',
        {'snapshot_name': snapshot_lvol, 'clone_name': name},
    )


def set_parent(lvol: str, snapshot_lvol: str) -> Request[Any]:
    """Put a snapshot under a thin lvol of the same size."""
    return Request(
        'bdev_lvol_set_parent',
        {'lvol_name': lvol, 'parent_name': snapshot_lvol},
    )


def rename(lvol: str, name: str) -> Request[Any]:
    """Give an lvol another name within its store.

    The old one can be taken only when this is answered. SPDK does it to
    snapshots as little as to what has the name already (v26.05).

    :param lvol: its UUID does as well, here as everywhere
    """
    return Request('bdev_lvol_rename', {'old_name': lvol, 'new_name': name})


def resize(lvol: str, size_mib: int) -> Request[Any]:
    """Grow an lvol. Never send less than it has: SPDK frees the clusters
    of an open lvol and answers "busy" nevertheless.
    """
    return Request('bdev_lvol_resize', {'name': lvol, 'size_in_mib': size_mib})


def delete(lvol: str, size: int) -> Request[Any]:
    """Delete, in use or not: SPDK does not ask.

    :param size: bytes that may have to be cleared, for the deadline
    """
    return Request(
        'bdev_lvol_delete', {'name': lvol}, timeout=seconds_for(size)
    )


def inflate(lvol: str, size: int) -> Request[Any]:
    """Give a thin lvol all its clusters, and no parent."""
    return Request(
        'bdev_lvol_inflate', {'name': lvol}, timeout=seconds_for(size)
    )


def decouple_parent(lvol: str, size: int) -> Request[Any]:
    """Copy what the parent has and take the parent's parent instead."""
    return Request(
        'bdev_lvol_decouple_parent',
        {'name': lvol},
        timeout=seconds_for(size),
    )
