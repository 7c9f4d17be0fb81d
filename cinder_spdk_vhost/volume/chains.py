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

"""Chains of snapshots, and how they are kept short and clean.

A volume stands on the snapshots that were taken of it, and on the snapshot
that it was made from. SPDK deletes a snapshot that at most one lvol stands
on, by merging it into that one. So a snapshot that cannot go yet is renamed
out of sight, and goes with its last dependent.

A writable lvol that lost its last parent gives whole clusters back when its
guest discards them. Where the pool's base would not zero those, such an
lvol is made thick again before anybody can use it.
"""

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.operations import janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, lvol, vhost
from cinder_spdk_vhost.volume import pools

LOG = logging.getLogger(__name__)


class Chains:
    """What stands on what, in the pools of one target.

    :param max_depth: how many snapshots a volume may stand on
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        max_depth: int,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._max_depth = max_depth

    # Deleting

    def discard(self, pool: pools.Pool, name: str) -> bool:
        """Delete a snapshot, or hide it until it can be deleted.

        Two round trips, three where it is merged into what stands on it.

        :returns: False where there is no such snapshot
        :raises InUse: while somebody has it exported
        """
        path = names.path(pool.name, name)
        with locks.holding(name):
            found = self._target.find(bdev.get(path))
            if found is None or found.lvol is None:
                return False
            if found.claim is not None:
                raise exceptions.InUse(f'{path} is claimed ({found.claim})')
            clones = found.lvol.clones
            if len(clones) > 1 or self._leaves_thin_root(pool, found.lvol):
                self._keep_for_now(pool, name)
                return True
            if not clones:
                self._delete(path, found.size)
        if clones:
            self._merge(pool, name, clones[0])
        locks.forget(name)
        self.reap_soon(pool, found.lvol.parent)
        return True

    def _merge(self, pool: pools.Pool, name: str, clone: str) -> None:
        path = names.path(pool.name, name)
        with locks.holding(name, clone):
            found = self._target.find(bdev.get(path))
            if found is None or found.lvol is None:
                return
            if found.lvol.clones in ((), (clone,)):
                self._delete(path, found.size)
            else:
                self._keep_for_now(pool, name)

    def hide(self, pool: pools.Pool, name: str) -> None:
        """Rename a snapshot out of sight; it is deleted when it can be.

        The caller holds its lock. Nothing happens where it is gone.
        """
        path = names.path(pool.name, name)
        hidden = names.trash(name)
        try:
            self._target.settle(
                lvol.rename(path, hidden), lambda: self._target.gone(path)
            )
        except rpc.NotFound:
            return
        LOG.info(
            '%(lvol)s is hidden as %(hidden)s until it can be deleted',
            {'lvol': path, 'hidden': hidden},
        )
        self.reap_soon(pool, hidden)

    def _keep_for_now(self, pool: pools.Pool, name: str) -> None:
        if names.is_hidden(name):
            raise janitor.Postponed(f'{name} still has descendants')
        self.hide(pool, name)

    def _delete(self, path: str, size: int) -> None:
        self._target.settle(
            lvol.delete(path, size), lambda: self._target.gone(path)
        )

    @staticmethod
    def _leaves_thin_root(pool: pools.Pool, data: bdev.Lvol) -> bool:
        """Whether merging it would let a guest free unzeroed clusters."""
        return (
            not pool.base.reads_zeros
            and data.parent is None
            and len(data.clones) == 1
            and names.is_volume(data.clones[0])
        )

    # Tidying up

    def reap_soon(self, pool: pools.Pool, name: str | None) -> None:
        """Have a hidden snapshot deleted as soon as it can go."""
        if name is not None and names.is_hidden(name):
            self._janitor.soon(
                f'delete {names.path(pool.name, name)}',
                lambda: self._reap(pool, name),
            )

    def _reap(self, pool: pools.Pool, name: str) -> None:
        found = self._target.find(bdev.get(names.path(pool.name, name)))
        if found is None or found.lvol is None:
            return
        if self._leaves_thin_root(pool, found.lvol):
            self._merge_into_thick(pool, name, found.lvol.clones[0])
            locks.forget(name)
        else:
            self.discard(pool, name)

    def _merge_into_thick(
        self, pool: pools.Pool, name: str, clone: str
    ) -> None:
        """Merge into a volume that no guest can reach meanwhile."""
        path = names.path(pool.name, name)
        clone_path = names.path(pool.name, clone)
        with locks.holding(name, clone):
            found, volume, *exports = self._target.find_all(
                bdev.get(path),
                bdev.get(clone_path),
                *map(vhost.get, names.controllers(clone)),
            )
            if found is None or found.lvol.clones != (clone,):
                raise janitor.Postponed(f'{name} has changed')
            if any(exports) or volume.claim:
                raise janitor.Postponed(f'{clone} is attached')
            missing = volume.size // pool.store.cluster_size - (
                volume.lvol.allocated_clusters + found.lvol.allocated_clusters
            )
            store = self._target.ask(lvol.get_lvstore(pool.name))
            if missing > store.free_clusters:
                raise janitor.Postponed(
                    f'{clone} cannot be made thick: {missing} clusters are '
                    f'missing, {store.free_clusters} are free'
                )
            self._delete(path, found.size)
            self._target.ask(lvol.inflate(clone_path, volume.size))

    def limit_depth_soon(self, pool: pools.Pool, name: str) -> None:
        """Have a volume's chain cut if it has become too long."""
        self._janitor.soon(
            f'limit the chain of {names.path(pool.name, name)}',
            lambda: self._limit_depth(pool, name),
        )

    def _limit_depth(self, pool: pools.Pool, name: str) -> None:
        depth, size = self._depth(pool, name)
        if depth <= self._max_depth:
            return
        path = names.path(pool.name, name)
        LOG.info(
            '%(lvol)s stands on %(depth)s snapshots, %(most)s are allowed: '
            'copying their data up',
            {'lvol': path, 'depth': depth, 'most': self._max_depth},
        )
        for level in range(depth, 0, -1):
            parent = self._step_up(pool, name, size)
            LOG.info(
                '%(lvol)s: %(done)s of %(depth)s levels done',
                {'lvol': path, 'done': depth - level + 1, 'depth': depth},
            )
            self.reap_soon(pool, parent)
            if not pool.base.reads_zeros:
                return

    def _step_up(self, pool: pools.Pool, name: str, size: int) -> str | None:
        """Copy one level up; all at once where a thin root would leak."""
        path = names.path(pool.name, name)
        copy = lvol.decouple_parent if pool.base.reads_zeros else lvol.inflate
        with locks.holding(name):
            found = self._target.find(bdev.get(path))
            if found is None or not found.lvol or not found.lvol.parent:
                return None
            self._target.ask(copy(path, size))
            return found.lvol.parent

    def _depth(self, pool: pools.Pool, name: str) -> tuple[int, int]:
        """How many snapshots an lvol stands on, and its size in bytes."""
        depth = size = 0
        above: str | None = name
        while above is not None:
            found = self._target.find(bdev.get(names.path(pool.name, above)))
            if found is None or found.lvol is None:
                break
            size = size or found.size
            above = found.lvol.parent
            depth += above is not None
        return depth, size

    def sweep(self, up: list[pools.Pool]) -> None:
        """Find what earlier lives of the service left to be reaped."""
        for pool in up:
            for name in self._target.ask(lvol.get_names(pool.name)):
                self.reap_soon(pool, name)
