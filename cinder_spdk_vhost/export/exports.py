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

"""All exports of a volume, of whatever kind."""

import dataclasses
from typing import Any

from oslo_log import log as logging

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import (
    base,
    block,
    nvmeof,
    portals,
    vhost_user,
)
from cinder_spdk_vhost.operations import janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, nvmf, vhost

LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Found:
    """The exports that a volume has.

    :ivar controllers: its vhost-user sockets
    :ivar disks: its block devices
    :ivar subsystem: what it is exported in over NVMe-oF
    :ivar connected: NQNs of the hosts that are connected to that
    """

    controllers: list[vhost.Controller]
    disks: list[block.Disk]
    subsystem: nvmf.Subsystem | None = None
    connected: frozenset[str] = frozenset()

    @classmethod
    def of(cls, device: bdev.Bdev | None, *answers: Any) -> 'Found':
        """Those that the look-ups of :func:`looks` found.

        :param device: the volume; None where there is none any more
        """
        subsystem, connected, *rest = answers
        split = len(names.MODES)
        return cls(
            [c for c in rest[:split] if c is not None],
            block.of(device, rest[split:]) if device is not None else [],
            subsystem,
            connected or frozenset(),
        )

    @property
    def any(self) -> bool:
        """Whether somebody may open the volume at any time."""
        return bool(self.controllers or self.disks or self.subsystem)

    @property
    def users(self) -> list[str]:
        """Who has the volume open, in words.

        With a block device it can't be told, so that counts as used.
        """
        return (
            [
                f'{found.sessions} guest(s) connected to {found.socket}'
                for found in self.controllers
                if found.sessions
            ]
            + [f'host {nqn} connected' for nqn in sorted(self.connected)]
            + [f'the block device {disk.device}' for disk in self.disks]
        )


class Exports:
    """What of one target's volumes hosts can reach.

    :param where: where the target listens for NVMe-oF
    :ivar vhost_user: sockets for guests on the target's host
    :ivar nvmeof: subsystems for other hosts
    :ivar block: block devices for programs on the target's host
    """

    def __init__(
        self,
        target: spdk_target.Target,
        worker: janitor.Janitor,
        where: tuple[portals.Portal, ...] = (),
    ) -> None:
        self._target = target
        self.vhost_user = vhost_user.VhostUser(target, worker)
        self.nvmeof = nvmeof.NvmeOf(target, worker, self.vhost_user, where)
        self.block = block.Block(target, worker)

    def remove_unused(self, path: str, volume: str) -> None:
        """Remove what nobody can want when nobody is attached.

        That is the subsystem without a connected host, each controller
        without a guest, and the block device.

        :param path: the volume's, ``STORE/NAME``
        :raises Postponed: a host is still connected; the rest is removed
        """
        with locks.holding(volume):
            device, *answers = self._target.find_all(
                bdev.get_lvol(path), *looks(volume)
            )
            found = Found.of(device, *answers)
            self.remove_idle(volume, found)
            self.block.stop(found.disks)
        if found.connected:
            raise exceptions.Postponed(f'{path} has {found.users[0]}')

    def remove_idle(self, volume: str, found: Found) -> None:
        """Remove the subsystem and the controllers that nobody uses.

        The caller holds the volume's lock.
        """
        controllers = found.controllers
        if found.connected:
            placeholder = names.placeholder(volume)
            controllers = [c for c in controllers if c.name != placeholder]
        elif found.subsystem and nvmeof.is_ours(volume, found.subsystem):
            self.nvmeof.delete(found.subsystem.nqn)
        self.vhost_user.remove(controllers)

    def released(
        self, path: str, volume: str, device: bdev.LvolBdev, found: Found
    ) -> bdev.LvolBdev:
        """A volume that is to go, without exports that nobody uses.

        The caller holds the volume's lock.

        :returns: how it is then; a claim on it is somebody else's
        """
        if not base.is_namespace(device, found.subsystem):
            device = base.released(self._target, path, volume, device)
        self.remove_idle(volume, found)
        if device.claim is None:
            return device
        return self._target.ask(bdev.get_lvol(path))

    def free(self) -> int | None:
        """How many more volumes could be exported over NVMe-oF.

        None where none can, or the target does not say.
        """
        if not self.nvmeof.portals:
            return None
        try:
            count = len(self._target.ask(nvmf.get_names()))
        except rpc.RPCError as e:
            LOG.debug('The subsystems cannot be counted: %s', e)
            return None
        return max(0, nvmf.SUBSYSTEMS_MAX - count)


def looks(volume: str) -> list[rpc.Request]:
    """The look-ups that tell which exports an lvol has."""
    return [
        *nvmeof.looks(volume),
        *vhost_user.looks(volume),
        *block.looks(),
    ]
