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

"""What is attached, and what Cinder's database says of who has it."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import nvmeof
from cinder_spdk_vhost.volume import connectors

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


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is attached: a volume, or a snapshot.

    :ivar what: in words
    :ivar rows: the connectors of its attachments; None for one that is not
        stored yet, because it is just being made
    :ivar in_transfer: whether the service itself may have it attached, of
        which there is no row
    """

    what: str
    id: str
    lvol: str
    rows: tuple[Mapping[str, Any] | None, ...] = ()
    in_transfer: bool = False
    encrypted: bool = False

    @classmethod
    def volume(cls, volume: Any) -> 'Subject':
        return cls(
            f'volume {volume.id}',
            volume.id,
            names.volume(volume.name_id),
            tuple(a.connector or None for a in volume.volume_attachment),
            volume.status in _TRANSFERS,
            bool(volume.encryption_key_id),
        )

    @classmethod
    def snapshot(cls, snapshot: Any) -> 'Subject':
        """Only transfers have snapshots attached."""
        return cls(
            f'snapshot {snapshot.id}', snapshot.id, names.snapshot(snapshot.id)
        )

    def sockets(self, mode: str, uuid: str | None) -> int:
        """How many attachments may use its socket of a mode.

        One whose connector is not stored yet is just being made.

        :param uuid: of the lvstore that it is in, None where unknown
        """
        return sum(
            other is None or (other.mode == mode and is_local(other, uuid))
            for other in self._others()
        )

    def _others(self) -> list[connectors.Connector | None]:
        """Who has it, or is just getting it (None)."""
        known = [parsed(row) if row else None for row in self.rows]
        return [
            other
            for row, other in zip(self.rows, known, strict=True)
            if other is not None or row is None
        ]

    def check_plain(self) -> None:
        """:raises Conflict: os-brick would encrypt it

        It puts a link in the place of the device's node for that.
        """
        if self.encrypted:
            raise exceptions.Conflict(
                f'{self.what} is encrypted, which no volume of this driver '
                f'can be'
            )

    def check_alone(self, host: nvmeof.Host) -> None:
        """:raises Conflict: another host comes by the same NQN"""
        for other in self._others():
            if other and other.nqn == host.nqn and other.host != host.name:
                raise exceptions.Conflict(
                    f'hosts {other.host} and {host.name} both are '
                    f'"{host.nqn}", and {self.what} is attached to the '
                    f'first: /etc/nvme/hostnqn has to differ on each host'
                )

    def is_kept(
        self,
        connector: Mapping[str, Any],
        uses_it: Callable[[connectors.Connector], bool],
    ) -> tuple[bool, bool]:
        """Whether an export stays for somebody else.

        The service's own transfers have no row; there is one at a time. So
        what is detached is either a row's, which then has that very
        connector, or a transfer's.

        :param uses_it: whether a host that sent a connector has that export
        :returns: whether one with a row has it, and whether a transfer may
        """
        others: list[Mapping[str, Any] | None] = [
            row
            for row in self.rows
            if row and (other := parsed(row)) and uses_it(other)
        ]
        if connector not in others:
            return bool(others), False
        others.remove(connector)
        # One that is just being made, of whatever kind.
        others += [row for row in self.rows if not row]
        return bool(others), self.in_transfer


def parsed(connector: Mapping[str, Any]) -> connectors.Connector | None:
    """That of a row, which should be one that was accepted."""
    try:
        return connectors.Connector.parse(connector)
    except exceptions.Conflict:
        return None


def is_local(connector: connectors.Connector, uuid: str | None) -> bool:
    """Whether a host's own SPDK holds the volume.

    :param uuid: of the volume's lvstore; None where it is not known, and
        then who has any store is taken for one that has it
    """
    return uuid in connector.lvstores if uuid else bool(connector.lvstores)
