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

"""Block devices that a killed service left.

Its own transfers have no row in the database, so nobody else will detach
them: the device would stay until the volume is copied again or deleted, and
keep it from growing.
"""

import json

from cinder import context
from cinder.db import api as db
from cinder.db import models
from oslo_log import log as logging
import sqlalchemy as sa

from cinder_spdk_vhost import names
from cinder_spdk_vhost.export import block
from cinder_spdk_vhost.operations import locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev
from cinder_spdk_vhost.volume import connectors

LOG = logging.getLogger(__name__)

# Statuses of a volume that no transfer has attached.
_IDLE = ('available', 'in-use')
_NOT_MIGRATING = (None, 'none', 'success', 'error')


class Leftovers:
    """Those that were there when the service started.

    Only these: one that is made later is some transfer's, or its maker
    removes it.

    :param devices: what removes them
    """

    def __init__(
        self, target: spdk_target.Target, devices: block.Block
    ) -> None:
        self._target = target
        self._devices = devices
        self._known: set[str] | None = None

    def sweep(self, pools: set[str]) -> None:
        """Remove those that nobody can be using any more.

        :param pools: names of those that are up
        """
        if self._known is not None and not self._known:
            return
        there = {disk.bdev for disk in self._devices.disks()}
        self._known = there if self._known is None else self._known & there
        for name in sorted(self._known):
            device = self._target.find(bdev.get(name))
            if device is not None:
                self._consider(device, pools)

    def _consider(self, device: bdev.Bdev, pools: set[str]) -> None:
        for alias in device.aliases:
            pool, _, lvol = alias.partition('/')
            if pool not in pools or not names.is_volume(lvol):
                continue
            # Whoever attaches it has said so in the database before.
            with locks.holding(lvol):
                if _is_idle(lvol.removeprefix('volume-')):
                    LOG.info('%s is a block device that was left', alias)
                    self._devices.stop(self._devices.disks(device.name))


def _is_idle(name_id: str) -> bool:
    """Whether a volume is known, not attached and not being copied.

    :param name_id: that of the volume, or of what it was migrated to
    """
    volume, attachment = models.Volume, models.VolumeAttachment
    ids = sa.func.coalesce(volume._name_id, volume.id)
    admin = context.get_admin_context()
    with db.main_context_manager.reader.using(admin) as session:
        found = session.execute(
            sa.select(volume.id, volume.status, volume.migration_status).where(
                ids == name_id, ~volume.deleted
            )
        ).first()
        if found is None:
            return False
        rows = session.execute(
            sa.select(attachment.connector).where(
                attachment.volume_id == found.id, ~attachment.deleted
            )
        ).all()
    idle = found.status in _IDLE or found.status.startswith('error')
    return (
        idle
        and found.migration_status in _NOT_MIGRATING
        and not any(_may_use(row.connector) for row in rows)
    )


def _may_use(connector: str | None) -> bool:
    """Whether an attachment may be by block device.

    One whose connector is not stored yet is just being made.
    """
    return connector is None or connectors.is_stock(json.loads(connector))
