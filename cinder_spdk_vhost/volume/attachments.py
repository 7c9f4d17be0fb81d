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

"""Who is attached to a volume how: the kind of export for a connector.

A connector with our key gets a vhost-user socket where its own SPDK holds
the volume's lvstore. One without it gets a block device where it is of this
very host and the target is too; that is how Cinder's own transfers read and
write volumes. Everybody else is refused.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from cinder import context as cinder_context
from cinder import objects
from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import base, exports
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.qos import specs as qos_specs
from cinder_spdk_vhost.volume import attached, connectors, pools

LOG = logging.getLogger(__name__)

# Statuses of a volume while the service itself may have it attached.
_TRANSFERS = (
    'backing-up',
    'creating',
    'downloading',
    'maintenance',
    'restoring-backup',
    'retyping',
    'reverting',
    'uploading',
)


class Attachments:
    """Attaches volumes to hosts and detaches them.

    :param exporter: what can be done on the target
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        pool_keeper: pools.Pools,
        exporter: exports.Exports,
    ) -> None:
        self._target = target
        self._janitor = worker
        self._pools = pool_keeper
        self._exports = exporter

    def validate(self, connector: Any) -> None:
        """Check a connector before it is known for which volume it is.

        :raises Conflict: no volume could be attached with it
        """
        parsed = connectors.Connector.parse(connector)
        if not parsed.stock and not parsed.lvstores & self._held():
            self._pools.refresh()
        held = self._held()
        if not held:
            raise exceptions.Conflict('no pool of this back end is up')
        if parsed.stock:
            self._check_here(connector)
        elif not parsed.lvstores & held:
            raise exceptions.Conflict(parsed.why_not_local('this back end'))

    def _held(self) -> set[str]:
        """UUIDs of the lvstores that are up."""
        return {pool.store.uuid for pool in self._pools.up()}

    def _check_here(self, connector: Mapping[str, Any]) -> None:
        connectors.check_here(
            connector, self._target.url, self._target.on_this_host
        )

    def attach(
        self,
        volume: Any,
        connector: Any,
        pool: pools.Pool,
        limits: qos_specs.Limits,
        shared: bool,
    ) -> dict[str, Any]:
        """Attach a volume; gives the connection info.

        :param limits: of the volume's type
        :param shared: whether several guests may have it at a time
        :raises Conflict: where it cannot be attached to that host
        :raises InUse: where it is, and not to be shared
        """
        parsed = connectors.Connector.parse(connector)
        wanted = base.Wanted(
            store=pool.name,
            volume=names.volume(volume.name_id),
            mode=parsed.mode,
            limits=limits.rates,
            shared=shared,
            reads_zeros=pool.base.reads_zeros,
        )
        if parsed.stock:
            self._check_here(connector)
            info = self._as_block_device(volume, wanted)
        else:
            parsed.check_local(pool.name, pool.store.uuid)
            info = self._as_socket(volume, wanted, pool)
        for rounded in limits.rounded:
            LOG.info(
                'Volume %(volume)s: QoS %(rounded)s',
                {'volume': volume.id, 'rounded': rounded},
            )
        return info

    def _as_socket(
        self, volume: Any, wanted: base.Wanted, pool: pools.Pool
    ) -> dict[str, Any]:
        export = self._exports.vhost_user.attach(wanted)
        return {
            'driver_volume_type': 'spdk_vhost',
            'data': {
                'volume_id': volume.id,
                'transport': 'local',
                'vhost': export.as_dict(),
                'numa_node': pool.base.numa_node,
                'assigned_rate_limits': export.limits.as_dict(),
            },
        }

    def _as_block_device(
        self, volume: Any, wanted: base.Wanted
    ) -> dict[str, Any]:
        """What os-brick's own connector for local devices takes."""
        if volume.encryption_key_id:
            # os-brick would put a link in the place of the device's node.
            raise exceptions.Conflict(
                f'volume {volume.id} is encrypted, which no volume of this '
                f'driver can be'
            )
        export = self._exports.block.attach(wanted)
        return {
            'driver_volume_type': 'local',
            'data': {
                'volume_id': volume.id,
                'device_path': export.path,
                'access_mode': wanted.mode,
                'assigned_rate_limits': export.limits.as_dict(),
            },
        }

    def restorable(
        self, volume: Any, rows: Iterable[attached.Attachment]
    ) -> list[Mapping[str, Any]]:
        """The connectors that are to be attached again after a restart.

        Each once, local ones first: a controller cannot be made any more
        once something has claimed the volume.

        A block device is not made again: whoever had the old one open could
        not use a new one, and under its old name it could be another's by
        now.
        """
        found: list[Mapping[str, Any]] = []
        for row in rows:
            if (
                not connectors.is_stock(row.connector)
                and row.connector not in found
            ):
                found.append(row.connector)
        return found

    def detach(
        self, volume: Any, connector: Any, path: str, force: bool
    ) -> bool:
        """Remove an export, unless another attachment uses it.

        :param connector: None for all of the volume's
        :param path: the volume's lvol, ``STORE/NAME``
        :returns: whether one does
        :raises InUse: a guest is connected, and it is not forced
        """
        lvol = names.volume(volume.name_id)
        if connector is None:
            for mode in names.MODES:
                self._exports.vhost_user.detach(lvol, mode, force)
            self._exports.block.detach(path, lvol)
            return False
        try:
            parsed = connectors.Connector.parse(connector)
        except exceptions.Conflict as e:
            LOG.info('Nothing was attached with that connector: %s', e)
            return False
        if parsed.stock:
            return self._detach_block_device(volume, connector, path)
        if _sockets(volume, parsed.mode) > 1:
            self._tidy_later(volume, path)
            return True
        self._exports.vhost_user.detach(lvol, parsed.mode, force)
        return False

    def _detach_block_device(
        self, volume: Any, connector: Mapping[str, Any], path: str
    ) -> bool:
        """The service's own transfers have no row; there is one at a time.

        So what is detached is either a row's, which then has that very
        connector, or a transfer's.
        """
        rows = [a.connector for a in volume.volume_attachment]
        others = [c for c in rows if c and connectors.is_stock(c)]
        if connector in others:
            others.remove(connector)
            # One that is just being made, of whatever kind.
            others += [c for c in rows if not c]
            if not others and volume.status in _TRANSFERS:
                LOG.info(
                    'The block device of %(path)s stays: its volume is '
                    '%(status)s',
                    {'path': path, 'status': volume.status},
                )
                return True
        if others:
            self._tidy_later(volume, path)
            return True
        self._exports.block.detach(path, names.volume(volume.name_id))
        return False

    def _tidy_later(self, volume: Any, path: str) -> None:
        """Look again when Cinder has removed the rows that it is to remove.

        Two that are detached at the same time each see the other, and of a
        reserved attachment that is given up the driver never hears.
        """
        volume_id, lvol = volume.id, names.volume(volume.name_id)

        def tidy() -> None:
            rows = objects.VolumeAttachmentList.get_all_by_volume_id(
                cinder_context.get_admin_context(), volume_id
            )
            if rows:
                raise exceptions.Postponed(f'{volume_id} is attached')
            self._exports.remove_unused(path, lvol)

        self._janitor.soon(f'tidy the exports of {lvol}', tidy)

    def remove_unused(self, volume: Any, path: str) -> None:
        """Remove what is left when the last attachment is gone.

        Cinder also asks for it after a failed attachment and after
        transfers of its own, so while the database knows of any attachment
        this does nothing: detaching has removed, or will remove, its own
        export.
        """
        if not volume.volume_attachment:
            self._exports.remove_unused(path, names.volume(volume.name_id))


def _sockets(volume: Any, mode: str) -> int:
    """How many attachments of a volume may use its socket of that mode.

    One whose connector is not stored yet is just being made.
    """
    return sum(
        not attachment.connector
        or (
            not connectors.is_stock(attachment.connector)
            and attachment.connector.get('mode', 'rw') == mode
        )
        for attachment in volume.volume_attachment
    )
