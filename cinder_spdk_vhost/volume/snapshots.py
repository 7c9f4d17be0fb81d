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

"""Snapshots, volumes made from them or put back to them, and clones.

Nothing is copied.
"""

from collections.abc import Iterator
import contextlib

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import exports
from cinder_spdk_vhost.operations import flows, janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, lvol
from cinder_spdk_vhost.volume import chains, pools, provisioning, volumes

LOG = logging.getLogger(__name__)


class Snapshots:
    """Snapshots of a target's volumes, by the name of their lvol."""

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        chain_keeper: chains.Chains,
        volume_keeper: volumes.Volumes,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._chains = chain_keeper
        self._volumes = volume_keeper

    def create(self, pool: pools.Pool, volume: str, name: str) -> None:
        """Snapshot a volume, attached or not: one round trip."""
        with locks.holding(volume, name):
            flows.run(
                self._janitor.undo_later(name, volume),
                flows.Step(
                    f'snapshot {names.path(pool.name, volume)} as {name}',
                    lambda: self._snapshot(pool, volume, name),
                    lambda: self._chains.undo_snapshot(pool, name, volume),
                ),
            )
        self._chains.limit_depth_soon(pool, volume)

    def _snapshot(self, pool: pools.Pool, volume: str, name: str) -> None:
        self._target.settle(
            lvol.snapshot(names.path(pool.name, volume), name),
            lambda: self._target.exists(names.path(pool.name, name)),
        )

    def delete(self, pool: pools.Pool, name: str) -> None:
        """Delete a snapshot for its user, whatever stands on it."""
        if self._chains.discard(pool, name):
            return
        path = names.path(pool.name, name)
        if self._target.gone(path):
            LOG.info('%s is gone already', path)
        else:
            self._chains.discard(pool, name)

    def create_volume(
        self,
        pool: pools.Pool,
        snapshot: str,
        snapshot_gib: int,
        name: str,
        size_gib: int,
        clear_method: str,
    ) -> None:
        """Make a volume that starts as a snapshot's content."""
        _check_grows(snapshot, snapshot_gib, size_gib)
        with locks.holding(snapshot, name):
            self._janitor.forget(name)
            flows.run(
                self._janitor.undo_later(name, snapshot),
                *self._standing_on(
                    pool, snapshot, snapshot_gib, name, size_gib, clear_method
                ),
            )
        self._chains.limit_depth_soon(pool, name)

    def clone(
        self,
        pool: pools.Pool,
        source: str,
        source_gib: int,
        volume_id: str,
        size_gib: int,
        clear_method: str,
    ) -> None:
        """Make a volume that starts as another one's present content."""
        _check_grows(source, source_gib, size_gib)
        base = names.clone_base(volume_id)
        name = names.volume(volume_id)
        with locks.holding(source, base, name):
            self._janitor.forget(name)
            flows.run(
                self._janitor.undo_later(name, base, source),
                flows.Step(
                    f'snapshot {names.path(pool.name, source)} as {base}',
                    lambda: self._snapshot(pool, source, base),
                    lambda: self._chains.reap_soon(pool, base),
                ),
                *self._standing_on(
                    pool, base, source_gib, name, size_gib, clear_method
                ),
            )
        self._chains.limit_depth_soon(pool, source)
        self._chains.limit_depth_soon(pool, name)

    def revert(
        self,
        pool: pools.Pool,
        snapshot: str,
        snapshot_gib: int,
        volume: str,
        size_gib: int,
        clear_method: str,
    ) -> None:
        """Put a volume that nobody has back to a snapshot of it.

        Five round trips. An lvol that stands on the snapshot takes the
        volume's name, and the one that had it goes after that. So the bdev
        is another one, and with it a guest's disk id.

        :raises InUse: somebody has the volume
        """
        _check_grows(snapshot, snapshot_gib, size_gib)
        new, old = names.incoming(volume), names.outgoing(volume)
        with locks.holding(volume, snapshot, new, old):
            # What an earlier attempt left is looked for here.
            self._janitor.forget(volume)
            found = self._found_to_revert(pool, snapshot, volume)
            flows.run(
                self._janitor.undo_later(volume, snapshot, new, old),
                *self._standing_on(
                    pool, snapshot, snapshot_gib, new, size_gib, clear_method
                ),
                flows.Step(
                    f'revert {names.path(pool.name, volume)}',
                    _nothing,
                    lambda: self._put_back(pool, volume, found.name),
                ),
                # Where these fail, the alias may be another nevertheless.
                flows.Step(
                    f'rename {volume} to {old}',
                    lambda: self._chains.rename(pool, found.name, old),
                    _nothing,
                ),
                flows.Step(
                    f'rename {new} to {volume}',
                    lambda: self._chains.rename(
                        pool, names.path(pool.name, new), volume
                    ),
                    _nothing,
                ),
            )
            try:
                self._chains.delete_leaf(pool, found)
            except rpc.RPCError as e:
                LOG.warning('%s is left for later: %s', old, e)
                self._chains.finish_revert_soon(pool, volume)
        locks.forget(new)
        locks.forget(old)
        self._chains.limit_depth_soon(pool, volume)

    def _found_to_revert(
        self, pool: pools.Pool, snapshot: str, volume: str
    ) -> bdev.LvolBdev:
        """The volume's lvol, which nobody has, and nothing beside it."""
        path = names.path(pool.name, volume)
        looks = [
            *(
                bdev.get_lvol(names.path(pool.name, name))
                for name in (
                    volume,
                    snapshot,
                    names.incoming(volume),
                    names.outgoing(volume),
                )
            ),
            *exports.looks(volume),
        ]
        found, below, *left = self._target.find_all(*looks)
        if left[0] or left[1]:
            self._chains.finish_revert(pool, volume)
            found, below, *left = self._target.find_all(*looks)
        found = found or self._target.ask(bdev.get_lvol(path))
        if below is None:
            raise exceptions.Conflict(f'there is no {snapshot} in {pool.name}')
        exported = exports.Found.of(found, *left[2:])
        return self._volumes.unused(path, volume, found, exported)

    def _put_back(self, pool: pools.Pool, volume: str, kept: str) -> None:
        """Give a volume's own lvol its name again, if it has lost it.

        :param kept: its UUID
        """
        path = names.path(pool.name, volume)
        now, own = self._target.find_all(
            bdev.get_lvol(path), bdev.get_lvol(kept)
        )
        if own is None or (now is not None and now.name == kept):
            return
        if now is not None:
            self._chains.rename(pool, now.name, names.incoming(volume))
        self._chains.rename(pool, kept, volume)

    def _standing_on(
        self,
        pool: pools.Pool,
        snapshot: str,
        snapshot_gib: int,
        name: str,
        size_gib: int,
        clear_method: str,
    ) -> list[flows.Step]:
        """The steps that make a volume on a snapshot.

        ``bdev_lvol_clone`` gives it the default clear method, unmap,
        whatever the snapshot has (v26.05). Where that is not enough, an
        empty lvol is made and then put on the snapshot.
        """
        path = names.path(pool.name, name)
        how = provisioning.Provisioning(True, clear_method)
        if clear_method == 'unmap':
            request = lvol.clone(names.path(pool.name, snapshot), name)
            what = f'clone {snapshot} as {path}'
            steps = [
                self._volumes.making(
                    what, path, request, snapshot_gib, how, snapshot
                )
            ]
        else:
            steps = [
                self._volumes.create_step(
                    pool, name, snapshot_gib, how, snapshot
                ),
                flows.Step(
                    f'put {path} on {snapshot}',
                    lambda: self._set_parent(pool, snapshot, name),
                    _nothing,
                ),
            ]
        if size_gib > snapshot_gib:
            steps.append(
                flows.Step(
                    f'grow {path} to {size_gib} GiB',
                    lambda: self._volumes.grow(path, size_gib),
                    _nothing,
                )
            )
        return steps

    def _set_parent(self, pool: pools.Pool, snapshot: str, name: str) -> None:
        path = names.path(pool.name, name)

        def done() -> bool:
            found = self._target.ask(bdev.get_lvol(path))
            return found.lvol.parent == snapshot

        request = lvol.set_parent(path, names.path(pool.name, snapshot))
        try:
            self._target.settle(request, done)
        except rpc.InvalidParams:
            with self._as_snapshot(pool, snapshot, name):
                self._target.settle(request, done)

    @contextlib.contextmanager
    def _as_snapshot(
        self, pool: pools.Pool, snapshot: str, name: str
    ) -> Iterator[None]:
        """Have SPDK take for a snapshot what nothing stands on.

        After a restart, it counts only what something stands on (v26.05).
        """
        stand_in = names.clone_base(name.partition('-')[2])
        try:
            with self._chains.pins.pinning(stand_in):
                self._target.settle(
                    lvol.clone(names.path(pool.name, snapshot), stand_in),
                    lambda: self._target.exists(
                        names.path(pool.name, stand_in)
                    ),
                )
                yield
        finally:
            self._chains.reap_soon(pool, stand_in)


def _nothing() -> None:
    """The undoing of a change to what an earlier step made."""


def _check_grows(source: str, source_gib: int, size_gib: int) -> None:
    volumes.check_size(size_gib, 'size')
    if size_gib < source_gib:
        raise exceptions.Conflict(
            f'a volume of {size_gib} GiB cannot hold {source}, which has '
            f'{source_gib} GiB'
        )
