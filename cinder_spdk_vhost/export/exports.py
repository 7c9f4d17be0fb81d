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

from cinder_spdk_vhost import names, rpc
from cinder_spdk_vhost.export import block, vhost_user
from cinder_spdk_vhost.operations import janitor, locks
from cinder_spdk_vhost.operations import target as spdk_target
from cinder_spdk_vhost.spdk import bdev, vhost


@dataclasses.dataclass(frozen=True)
class Found:
    """The exports that a volume has.

    :ivar controllers: its vhost-user sockets
    :ivar disks: its block devices
    """

    controllers: list[vhost.Controller]
    disks: list[block.Disk]

    @classmethod
    def of(cls, device: bdev.Bdev | None, *answers: Any) -> 'Found':
        """Those that the look-ups of :func:`looks` found.

        :param device: the volume; None where there is none any more
        """
        split = len(names.MODES)
        controllers = [c for c in answers[:split] if c is not None]
        if device is None:
            return cls(controllers, [])
        return cls(controllers, block.of(device, list(answers[split:])))

    @property
    def any(self) -> bool:
        """Whether somebody may open the volume at any time."""
        return bool(self.controllers or self.disks)

    @property
    def users(self) -> list[str]:
        """Who has the volume open, in words.

        With a block device it can't be told, so that counts as used.
        """
        return [
            f'{found.sessions} guest(s) connected to {found.socket}'
            for found in self.controllers
            if found.sessions
        ] + [f'the block device {disk.device}' for disk in self.disks]


class Exports:
    """What of one target's volumes hosts can reach.

    :ivar vhost_user: sockets for guests on the target's host
    :ivar block: block devices for programs on it
    """

    def __init__(
        self, target: spdk_target.Target, worker: janitor.Janitor
    ) -> None:
        self._target = target
        self.vhost_user = vhost_user.VhostUser(target, worker)
        self.block = block.Block(target, worker)

    def remove_unused(self, path: str, volume: str) -> None:
        """Remove what nobody can want when nobody is attached.

        That is each controller without a guest, and the block device.

        :param path: the volume's, ``STORE/NAME``
        """
        with locks.holding(volume):
            device, *answers = self._target.find_all(
                bdev.get_lvol(path), *looks(volume)
            )
            found = Found.of(device, *answers)
            self.vhost_user.remove(found.controllers)
            if found.disks:
                self.block.stop(device.name)


def looks(volume: str) -> list[rpc.Request]:
    """The look-ups that tell which exports an lvol has."""
    return [*vhost_user.looks(volume), *block.looks()]
