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
on, by merging it into that one. A snapshot that its user deleted and that
cannot go yet is buried: it stays where it is (SPDK renames no snapshot),
and an lvol of no size, ``trash-<id>``, says that it is to go with its last
dependent. The snapshots below clones are the driver's own and go likewise.

A writable lvol that lost its last parent gives whole clusters back when its
guest discards them. Where the pool's base would not zero those, such an
lvol is made thick again before anybody can use it.
"""

from collections.abc import Callable
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import exports
from cinder_spdk_vhost.operations import janitor, locks, pins
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, lvol
from cinder_spdk_vhost.volume import pools

LOG = logging.getLogger(__name__)


class Chains:
    """What stands on what, in the pools of one target.

    :param max_depth: how many snapshots a volume may stand on
    :param exporter: removes what is left of a snapshot's export
    :ivar pins: what of them must not be deleted now
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        max_depth: int,
        exporter: exports.Exports,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._exports = exporter
        self._max_depth = max_depth
        self.pins = pins.Pins()

    # Deleting

    def discard(self, pool: pools.Pool, name: str) -> bool:
        """Delete a snapshot for its user, or bury it.

        Two round trips, three where it is merged into what stands on it.

        :returns: False where there is no such snapshot
        :raises InUse: while somebody has it exported
        """
        path = names.path(pool.name, name)
        with locks.holding(name):
            found, *answers = self._target.find_all(
                bdev.get_lvol(path), *exports.looks(name)
            )
            if found is None:
                return False
            found = self._without_exports(path, name, found, *answers)
            clones = found.lvol.clones
            if len(clones) > 1 or _leaves_thin_root(pool, found.lvol):
                self._bury(pool, name)
                return True
        with locks.holding(name, *clones):
            gone = self._remove_or_bury(pool, name, *clones)
        if gone:
            locks.forget(name)
            self.reap_soon(pool, found.lvol.parent)
        return True

    def _without_exports(
        self, path: str, name: str, found: bdev.LvolBdev, *answers: Any
    ) -> bdev.LvolBdev:
        """A snapshot that nobody can have open any more.

        :raises InUse: somebody has it open
        """
        exported = exports.Found.of(found, *answers)
        if exported.users:
            raise exceptions.InUse(
                f'{path} has {", ".join(exported.users)}; detach it first'
            )
        if exported.any or found.claim is not None:
            found = self._exports.released(path, name, found, exported)
        if found.claim is not None:
            raise exceptions.InUse(f'{path} is claimed ({found.claim})')
        return found

    def undo_snapshot(self, pool: pools.Pool, name: str, volume: str) -> None:
        """Take back a snapshot that nobody has seen yet.

        The caller holds the locks of both. A volume that a guest has open
        may have to keep standing on it; then it is buried.
        """
        self._remove_or_bury(pool, name, volume)

    def _remove_or_bury(
        self, pool: pools.Pool, name: str, clone: str | None = None
    ) -> bool:
        """:meth:`_remove`, or bury where that may not be done now.

        :returns: whether it is gone
        """
        try:
            self._remove(pool, name, clone)
        except exceptions.Postponed:
            self._bury(pool, name)
            return False
        return True

    def _remove(
        self, pool: pools.Pool, name: str, clone: str | None = None
    ) -> None:
        """Delete a snapshot that at most ``clone`` stands on, both locked.

        :raises Postponed: where that is not so, or it may not be done now
        """
        path = names.path(pool.name, name)
        looks: list[rpc.Request] = [bdev.get_lvol(path)]
        if clone is not None:
            looks.append(bdev.get_lvol(names.path(pool.name, clone)))
            looks += exports.looks(clone)
        found, *seen = self._target.find_all(*looks)
        if found is None:
            return
        clones = found.lvol.clones
        if clones not in ((), (clone,)):
            raise exceptions.Postponed(f'{path} has descendants')
        if clones and seen[0] is None:
            # Its bdev is the first thing that goes when an lvol is deleted.
            raise exceptions.Postponed(f'{clone} is being deleted, or loaded')
        thin_root = _leaves_thin_root(pool, found.lvol)
        if thin_root:
            self._check_can_be_thick(pool, found, *seen)
        with (
            self.pins.removing(name, *clones),
            self.pins.pinning(found.lvol.parent),
        ):
            self._delete(path, found.size)
            if thin_root:
                volume = seen[0]
                self._target.ask(lvol.inflate(volume.name, volume.size))

    def _check_can_be_thick(
        self,
        pool: pools.Pool,
        snapshot: bdev.LvolBdev,
        volume: bdev.LvolBdev,
        *answers: Any,
    ) -> None:
        """:raises Postponed: a guest has it, or there is no room for it"""
        path = names.path(pool.name, snapshot.lvol.clones[0])
        attached = exports.Found.of(volume, *answers).any
        if attached or volume.claim is not None:
            raise exceptions.Postponed(f'{path} is attached')
        missing = volume.size // pool.store.cluster_size - (
            volume.lvol.allocated_clusters + snapshot.lvol.allocated_clusters
        )
        free = self._target.ask(lvol.get_lvstore(pool.name)).free_clusters
        if missing > free:
            raise exceptions.Postponed(
                f'{path} cannot be made thick: {missing} clusters are '
                f'missing, {free} are free'
            )

    def _delete(self, path: str, size: int) -> None:
        try:
            self._target.settle(
                lvol.delete(path, size), lambda: self._target.gone(path)
            )
        except rpc.NotPermitted as e:
            raise exceptions.Postponed(f'{path} is stood on') from e

    def _bury(self, pool: pools.Pool, name: str) -> None:
        """Write down on the target that a snapshot's user deleted it."""
        if not names.is_snapshot(name):
            raise exceptions.Postponed(f'{name} is stood on')
        stone = names.tombstone(name)
        try:
            self._target.settle(
                lvol.create(
                    pool.name, stone, 0, thin=True, clear_method='none'
                ),
                lambda: self._target.exists(names.path(pool.name, stone)),
            )
        except rpc.Exists:
            LOG.debug('%s is buried already', name)
        LOG.info('%s goes with the last volume that stands on it', name)
        self.reap_soon(pool, name)

    # Reverting

    def rename(self, pool: pools.Pool, which: str, name: str) -> None:
        """Give an lvol a name that nothing has.

        :param which: its path, or its UUID
        """
        self._target.settle(
            lvol.rename(which, name),
            lambda: name in self._target.ask(lvol.get_uuids(pool.name)),
        )

    def delete_leaf(self, pool: pools.Pool, found: bdev.LvolBdev) -> None:
        """Delete an lvol that nobody uses and nothing stands on.

        By its UUID: others may come to have its name.
        """
        with self.pins.pinning(found.lvol.parent):
            self._delete(found.name, found.size)
        self.reap_soon(pool, found.lvol.parent)

    def finish_revert(self, pool: pools.Pool, volume: str) -> None:
        """Bring a revert to an end that was interrupted.

        Without an lvol of its name a volume gets back the one that it had;
        what then is left over goes. Nothing goes that is not one too many,
        by the names that lvols keep.
        """
        new, old = names.incoming(volume), names.outgoing(volume)
        with locks.holding(volume, new, old):
            there = self._target.ask(lvol.get_uuids(pool.name))
            if old in there and volume not in there:
                self._target.ask(lvol.wait_for_examine())
                there = self._target.ask(lvol.get_uuids(pool.name))
            if new in there:
                self._delete_left(pool, new, there[new])
            if old in there and volume in there:
                self._delete_left(pool, old, there[old])
            elif old in there:
                LOG.info('%s was being reverted: it is as before', volume)
                self.rename(pool, there[old], volume)

    def _delete_left(self, pool: pools.Pool, name: str, uuid: str) -> None:
        found = self._target.find(bdev.get_lvol(uuid))
        if found is None:
            raise exceptions.Postponed(f'{name} is being deleted, or loaded')
        if found.claim is not None or found.lvol.clones:
            raise exceptions.Postponed(f'{name} is in use')
        self.delete_leaf(pool, found)

    def finish_revert_soon(self, pool: pools.Pool, volume: str) -> None:
        def finish() -> None:
            self.finish_revert(pool, volume)
            locks.forget(names.incoming(volume))
            locks.forget(names.outgoing(volume))

        path = names.path(pool.name, volume)
        self._janitor.soon(f'finish reverting {path}', finish)

    # Tidying up

    def reap_soon(self, pool: pools.Pool, name: str | None) -> None:
        """Have a snapshot that nobody wants deleted as soon as it can go."""
        if name is not None:
            self._janitor.soon(
                f'reap {names.path(pool.name, name)}',
                lambda: self._reap(pool, name),
            )

    def _reap(self, pool: pools.Pool, name: str) -> None:
        path = names.path(pool.name, name)
        stone = None
        if names.is_snapshot(name):
            stone = names.path(pool.name, names.tombstone(name))
            found, buried = self._target.find_all(
                bdev.get_lvol(path), bdev.get_lvol(stone)
            )
            if buried is None:
                return
            if found is None and not self._target.gone(path):
                found = self._target.ask(bdev.get_lvol(path))
        elif names.is_clone_base(name):
            found = self._target.find(bdev.get_lvol(path))
        else:
            return
        if found is not None:
            self._reap_found(pool, name, found)
        if stone is not None:
            self._delete(stone, 0)
        locks.forget(name)

    def _reap_found(
        self, pool: pools.Pool, name: str, found: bdev.LvolBdev
    ) -> None:
        clones = found.lvol.clones
        if len(clones) > 1:
            raise exceptions.Postponed(f'{name} still has descendants')
        with locks.holding(name, *clones):
            self._remove(pool, name, *clones)
        self.reap_soon(pool, found.lvol.parent)

    def limit_depth_soon(self, pool: pools.Pool, name: str) -> None:
        """Have a volume's chain cut if it has become too long."""
        self._janitor.soon(
            f'limit the chain of {names.path(pool.name, name)}',
            lambda: self._limit_depth(pool, name),
        )

    def _limit_depth(self, pool: pools.Pool, name: str) -> None:
        ancestors = self._ancestors(pool, name)
        if len(ancestors) <= self._max_depth:
            return
        LOG.info(
            '%(lvol)s stands on %(depth)s snapshots, %(most)s are allowed: '
            'copying their data up',
            {
                'lvol': names.path(pool.name, name),
                'depth': len(ancestors),
                'most': self._max_depth,
            },
        )
        with self.pins.pinning(*ancestors):
            if self._ancestors(pool, name) != ancestors:
                raise exceptions.Postponed(f'the chain of {name} has changed')
            self._copy_up(pool, name, ancestors)
        for ancestor in ancestors:
            self.reap_soon(pool, ancestor)

    def _copy_up(
        self, pool: pools.Pool, name: str, ancestors: list[str]
    ) -> None:
        """Copy level by level; all at once where a thin root would leak.

        The lvol can be used between two levels.
        """
        if not pool.base.reads_zeros:
            self._copy(pool, name, ancestors[0], lvol.inflate)
            return
        for level, parent in enumerate(ancestors, start=1):
            self._copy(pool, name, parent, lvol.decouple_parent)
            LOG.info(
                '%(lvol)s: %(done)s of %(depth)s levels are done',
                {'lvol': name, 'done': level, 'depth': len(ancestors)},
            )

    def _copy(
        self,
        pool: pools.Pool,
        name: str,
        parent: str,
        request: Callable[[str, int], rpc.Request],
    ) -> None:
        path = names.path(pool.name, name)
        with locks.holding(name):
            found = self._target.find(bdev.get_lvol(path))
            if found is None or found.lvol.parent != parent:
                raise exceptions.Postponed(f'the chain of {path} has changed')
            self._target.ask(request(path, found.size))

    def _ancestors(self, pool: pools.Pool, name: str) -> list[str]:
        """What an lvol stands on, nearest first: a round trip each."""
        ancestors: list[str] = []
        above: str | None = name
        while above is not None:
            path = names.path(pool.name, above)
            found = self._target.find(bdev.get_lvol(path))
            above = found.lvol.parent if found is not None else None
            if above is not None:
                ancestors.append(above)
        return ancestors

    def sweep(self, up: list[pools.Pool]) -> None:
        """Find what earlier lives of the service left to be reaped."""
        for pool in up:
            for name in self._target.ask(lvol.get_names(pool.name)):
                if names.is_clone_base(name):
                    self.reap_soon(pool, name)
                elif names.is_tombstone(name):
                    self.reap_soon(pool, names.buried(name))
                elif volume := names.reverted(name):
                    self.finish_revert_soon(pool, volume)


def _leaves_thin_root(pool: pools.Pool, data: bdev.Lvol) -> bool:
    """Whether merging it would let a guest free unzeroed clusters."""
    return (
        not pool.base.reads_zeros
        and data.parent is None
        and len(data.clones) == 1
        and names.is_volume(data.clones[0])
    )
