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

"""The Cinder volume driver: Cinder's objects in, names and sizes out."""

from collections.abc import Iterator
import contextlib
import functools
import time
from typing import Any

from cinder import exception, interface
from cinder.common import constants
from cinder.volume import driver, volume_types, volume_utils
from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, opts, rpc
from cinder_spdk_vhost.export import exports
from cinder_spdk_vhost.operations import janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.qos import specs as qos_specs
from cinder_spdk_vhost.reconcile import incarnation, restore
from cinder_spdk_vhost.volume import (
    attached,
    attachments,
    chains,
    leftovers,
    pools,
    provisioning,
    setup,
    snapshots,
    stats,
    volumes,
)

LOG = logging.getLogger(__name__)

# How old the limits of a type may be when many volumes are restored.
_RECENT_SECONDS = 5.0


@contextlib.contextmanager
def _reported(doing: str, busy: Exception | None = None) -> Iterator[None]:
    """Our errors as the ones that Cinder acts on.

    :param doing: what fails if it fails
    :param busy: what to raise where something is in use; by default a
        failure like any other
    """
    try:
        yield
    except exceptions.InvalidSpec as e:
        raise exception.InvalidVolumeType(reason=f'{doing}: {e}') from e
    except (exceptions.SpdkVhostError, rpc.RPCError) as e:
        steps = getattr(e, '__notes__', [])
        text = ': '.join([doing, *steps, str(e)])
        if busy is not None and isinstance(e, exceptions.InUse):
            LOG.warning('Refused: %s', text)
            raise busy from e
        raise exception.VolumeBackendAPIException(data=text) from e


@interface.volumedriver
class SPDKVhostDriver(driver.VolumeDriver):
    """Volumes as logical volumes of an SPDK target.

    Version history:
        1.0.0 - Volumes, snapshots, clones, limits; exports over vhost-user,
            NVMe-oF and block devices
    """

    VERSION = '1.0.0'
    CI_WIKI_NAME = 'cinder-spdk-vhost'
    SUPPORTS_ACTIVE_ACTIVE = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.configuration.append_config_values(opts.volume_opts)
        self._stats: dict[str, Any] = {}
        self._target: spdk_target.Target
        self._methods_checked = False
        self._database = attached.Database(self.host)
        self._leaving = attached.Leaving()

    @classmethod
    def get_driver_options(cls) -> list:
        return opts.volume_opts + cls._get_oslo_driver_opts(
            'max_over_subscription_ratio', 'reserved_percentage'
        )

    # Setting up

    def do_setup(self, context: Any) -> None:
        conf = self.configuration
        try:
            self._target = setup.open_target(conf)
            portals = setup.nvmf_portals(conf)
        except setup.BadConfiguration as e:
            raise exception.VolumeDriverException(message=str(e)) from e
        self._policy = provisioning.Policy(
            conf.spdk_provisioning, conf.spdk_clear_method
        )
        watch = incarnation.Watch()
        self._pools = pools.Pools(
            self._target, conf.spdk_pools, conf.spdk_zeroing_pools, watch
        )
        self._janitor = janitor.Janitor(self._sweep, conf.spdk_sweep_interval)
        self._exports = exports.Exports(self._target, self._janitor, portals)
        self._chains = chains.Chains(
            self._target,
            self._janitor,
            conf.spdk_max_chain_depth,
            self._exports,
        )
        self._attachments = attachments.Attachments(
            self._target, self._janitor, self._pools, self._exports
        )
        self._leftovers = leftovers.Leftovers(
            self._target, self._exports.block
        )
        self._volumes = volumes.Volumes(
            self._target, self._janitor, self._chains, self._exports
        )
        self._snapshots = snapshots.Snapshots(
            self._target, self._janitor, self._chains, self._volumes
        )
        self._restorer = restore.Restorer(
            self._target,
            watch,
            restore.Doing(
                refresh=self._pools.refresh,
                pools=lambda: {pool.name for pool in self._pools.up()},
                wanted=self._database.volumes,
                restore=self._restore,
            ),
        )

    def check_for_setup_error(self) -> None:
        self._check_target()
        self._pools.refresh()
        self._janitor.start()
        self._restorer.start()

    def _sweep(self) -> None:
        up = self._pools.up()
        self._chains.sweep(up)
        self._leftovers.sweep({pool.name for pool in up})

    def _check_target(self) -> None:
        """A target that is away is no error of configuration."""
        try:
            setup.check_methods(
                self._target, nvmeof=bool(self._exports.nvmeof.portals)
            )
            self._methods_checked = True
        except setup.BadConfiguration as e:
            raise exception.VolumeBackendAPIException(data=str(e)) from e
        except rpc.RPCError as e:
            LOG.warning('Starting without the target: %s', e)

    def _update_volume_stats(self) -> None:
        self._pools.refresh()
        if not self._methods_checked and self._pools.up():
            self._check_target()
        conf = self.configuration
        self._stats = {
            'volume_backend_name': conf.safe_get('volume_backend_name')
            or self.__class__.__name__,
            'vendor_name': 'Open Source',
            'driver_version': self.VERSION,
            'storage_protocol': constants.NVMEOF_TCP,
            'shared_targets': False,
            'replication_enabled': False,
            'pools': stats.report(
                self._pools,
                thin=conf.spdk_provisioning != 'thick',
                free_exports=self._exports.free(),
                reserved=conf.reserved_percentage,
                over_subscription=(
                    volume_utils.get_max_over_subscription_ratio(
                        conf.max_over_subscription_ratio
                    )
                ),
                filter_function=self.get_filter_function(),
                goodness_function=self.get_goodness_function(),
            ),
        }

    # Volumes

    def create_volume(self, volume: Any) -> None:
        with _reported(f'creating volume {volume.id}'):
            self._limits(volume)
            pool = self._pool(volume)
            how = provisioning.choose(
                self._policy,
                pool.name,
                pool.base.reads_zeros,
                self._extra_specs(volume),
            )
            self._volumes.create(pool, _lvol(volume), volume.size, how)

    def delete_volume(self, volume: Any) -> None:
        busy = exception.VolumeIsBusy(volume_name=volume.name)
        with _reported(f'deleting volume {volume.id}', busy):
            self._volumes.delete(self._pool(volume), _lvol(volume))

    def extend_volume(self, volume: Any, new_size: int) -> None:
        with _reported(f'extending volume {volume.id} to {new_size} GiB'):
            self._volumes.extend(
                self._pool(volume), _lvol(volume), int(new_size)
            )

    def create_volume_from_snapshot(self, volume: Any, snapshot: Any) -> None:
        with _reported(
            f'creating volume {volume.id} from snapshot {snapshot.id}'
        ):
            self._limits(volume)
            pool = self._shared_pool(volume, snapshot.volume)
            self._snapshots.create_volume(
                pool,
                names.snapshot(snapshot.id),
                snapshot.volume_size,
                _lvol(volume),
                volume.size,
                self._clear_method(pool),
            )

    def create_cloned_volume(self, volume: Any, src_vref: Any) -> None:
        with _reported(f'cloning volume {src_vref.id} to {volume.id}'):
            self._limits(volume)
            pool = self._shared_pool(volume, src_vref)
            self._snapshots.clone(
                pool,
                _lvol(src_vref),
                src_vref.size,
                volume.name_id,
                volume.size,
                self._clear_method(pool),
            )

    # Snapshots

    def create_snapshot(self, snapshot: Any) -> None:
        with _reported(f'creating snapshot {snapshot.id}'):
            self._snapshots.create(
                self._pool(snapshot.volume),
                _lvol(snapshot.volume),
                names.snapshot(snapshot.id),
            )

    def delete_snapshot(self, snapshot: Any) -> None:
        busy = exception.SnapshotIsBusy(snapshot_name=snapshot.name)
        with _reported(f'deleting snapshot {snapshot.id}', busy):
            self._snapshots.delete(
                self._pool(snapshot.volume), names.snapshot(snapshot.id)
            )

    def snapshot_revert_use_temp_snapshot(self) -> bool:
        """No: until a volume is reverted it keeps all that it has."""
        return False

    def revert_to_snapshot(
        self, context: Any, volume: Any, snapshot: Any
    ) -> None:
        """Put a volume back to a snapshot; nothing is copied.

        It becomes another lvol of the same name. So a guest on the target's
        host, which knows a disk by its lvol's UUID, gets another disk id.
        """
        with _reported(f'reverting volume {volume.id} to {snapshot.id}'):
            pool = self._shared_pool(volume, snapshot.volume)
            self._snapshots.revert(
                pool,
                names.snapshot(snapshot.id),
                snapshot.volume_size,
                _lvol(volume),
                volume.size,
                self._clear_method(pool),
            )

    # Exports

    def validate_connector(self, connector: Any) -> None:
        try:
            self._attachments.validate(connector)
        except exceptions.Conflict as e:
            raise exception.InvalidConnectorException(missing=str(e)) from e

    def create_export(self, context: Any, volume: Any, connector: Any) -> None:
        """Nothing is exported before it is known to whom."""

    def ensure_export(self, context: Any, volume: Any) -> None:
        """Nothing: see :meth:`_restore`.

        Cinder calls this for one volume in use after the other and starts
        serving only then, and knows fewer statuses than volumes that are
        attached can have. So the restorer does it beside, as it does after
        a restart of the target alone.
        """

    def _restore(self, item: restore.Item) -> None:
        """Make again what a restarted target lost of a volume.

        What the database says is read under the volume's lock, so a detach
        comes before it or after it.

        :raises Postponed: it is just being detached, or moved
        """
        with locks.holding(item.lvol):
            volume, rows = self._database.read(item.volume)
            if volume is None:
                return
            if _lvol(volume) != item.lvol:
                raise exceptions.Postponed(f'{item.lvol} was renamed')
            rows = self._leaving.staying(rows)
            for connector in self._attachments.restorable(volume, rows):
                self._attachments.attach(
                    volume,
                    connector,
                    self._pool(volume),
                    _recent_limits(
                        volume.volume_type_id,
                        int(time.monotonic() / _RECENT_SECONDS),
                    ),
                    shared=True,
                )

    def initialize_connection(
        self, volume: Any, connector: Any, **_kwargs: Any
    ) -> dict[str, Any]:
        with _reported(f'attaching volume {volume.id}'):
            return self._attachments.attach(
                volume,
                connector,
                self._pool(volume),
                self._limits(volume),
                volume.multiattach,
            )

    def terminate_connection(
        self, volume: Any, connector: Any, force: bool = False, **_kwargs: Any
    ) -> bool:
        """Remove the export, unless another attachment uses it.

        :returns: whether one does
        """
        with (
            _reported(f'detaching volume {volume.id}'),
            self._leaving.detaching(volume, connector),
        ):
            return self._attachments.detach(
                volume, connector, self._path(volume), force
            )

    def remove_export(self, context: Any, volume: Any) -> None:
        with _reported(f'removing exports of volume {volume.id}'):
            self._attachments.remove_unused(volume, self._path(volume))

    # Exports of snapshots, which nobody can write on

    def create_export_snapshot(
        self, context: Any, snapshot: Any, connector: Any
    ) -> None:
        """Nothing is exported before it is known to whom."""

    def initialize_connection_snapshot(
        self, snapshot: Any, connector: Any, **_kwargs: Any
    ) -> dict[str, Any]:
        with _reported(f'attaching snapshot {snapshot.id}'):
            return self._attachments.attach_snapshot(
                snapshot, connector, self._pool(snapshot.volume)
            )

    def terminate_connection_snapshot(
        self,
        snapshot: Any,
        connector: Any,
        force: bool = False,
        **_kwargs: Any,
    ) -> None:
        with _reported(f'detaching snapshot {snapshot.id}'):
            self._attachments.detach_snapshot(
                snapshot, connector, self._pool(snapshot.volume).name, force
            )

    def remove_export_snapshot(self, context: Any, snapshot: Any) -> None:
        with _reported(f'removing exports of snapshot {snapshot.id}'):
            self._attachments.remove_unused_snapshot(
                snapshot, self._pool(snapshot.volume).name
            )

    # What Cinder's objects say

    def _pool(self, volume: Any) -> pools.Pool:
        return self._pools.get(volume_utils.extract_host(volume.host, 'pool'))

    def _path(self, volume: Any) -> str:
        """Its lvol, whether or not the pool is up."""
        pool = volume_utils.extract_host(volume.host, 'pool')
        return names.path(pool or self._pool(volume).name, _lvol(volume))

    def _shared_pool(self, volume: Any, source: Any) -> pools.Pool:
        """:raises Conflict: an lvol stands on snapshots of its own store"""
        pool, other = self._pool(volume), self._pool(source)
        if pool.store.uuid != other.store.uuid:
            raise exceptions.Conflict(
                f'volume {volume.id} is to be in pool "{pool.name}", but '
                f'what it is made from is in pool "{other.name}"; within '
                f'that pool it can be made'
            )
        return pool

    def _clear_method(self, pool: pools.Pool) -> str:
        return provisioning.clear_method(self._policy, pool.base.reads_zeros)

    @staticmethod
    def _extra_specs(volume: Any) -> dict[str, str]:
        if not volume.volume_type_id:
            return {}
        return volume_types.get_volume_type_extra_specs(volume.volume_type_id)

    @staticmethod
    def _limits(volume: Any) -> qos_specs.Limits:
        """The limits of the volume's type that are ours to enforce."""
        return _limits_of(volume.volume_type_id)


def _limits_of(type_id: str | None) -> qos_specs.Limits:
    if not type_id:
        return qos_specs.NONE
    specs = volume_types.get_volume_type_qos_specs(type_id)['qos_specs']
    if not specs or specs['consumer'] == 'front-end':
        return qos_specs.NONE
    return qos_specs.parse(specs['specs'])


@functools.lru_cache
def _recent_limits(type_id: str | None, _time: int) -> qos_specs.Limits:
    """Those of a type not long ago: it takes several queries."""
    return _limits_of(type_id)


def _lvol(volume: Any) -> str:
    return names.volume(volume.name_id)
