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

"""What a connector dict says, none of which is trusted further than it
needs to be: its sender may be a project member.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder_spdk_vhost import exceptions, names

KEY = 'spdk_vhost'


@dataclasses.dataclass(frozen=True)
class Connector:
    """A host that wants a volume.

    :ivar host: its name, for messages only
    :ivar lvstores: UUIDs of the stores that its own SPDK holds, as it says;
        empty where it has none
    :ivar mode: rw or ro
    """

    host: str
    lvstores: frozenset[str]
    mode: str

    @classmethod
    def parse(cls, connector: Any) -> 'Connector':
        """:raises Conflict: for what no connector of ours would send"""
        if not isinstance(connector, Mapping):
            raise exceptions.Conflict('there is no connector')
        ours = connector.get(KEY)
        if ours is not None and not isinstance(ours, Mapping):
            raise exceptions.Conflict(
                f'connector key "{KEY}" is no object; one with "lvstores" '
                f'is accepted'
            )
        stores = (ours or {}).get('lvstores', [])
        if not isinstance(stores, list) or not all(
            isinstance(store, str) for store in stores
        ):
            raise exceptions.Conflict(
                f'connector key "{KEY}": "lvstores" is no list of UUIDs'
            )
        mode = connector.get('mode', 'rw')
        if mode not in names.MODES:
            raise exceptions.Conflict(
                f'connector key "mode" is "{mode}"; accepted are '
                f'{" and ".join(names.MODES)}'
            )
        host = str(connector.get('host', 'unknown'))
        return cls(host, frozenset(stores), mode)

    def check_local(self, store: str, uuid: str) -> None:
        """:raises Conflict: where its SPDK does not hold the lvstore"""
        if uuid not in self.lvstores:
            raise exceptions.Conflict(
                self.why_not_local(f'pool "{store}" (lvstore {uuid})')
            )

    def why_not_local(self, what: str) -> str:
        """Why this host cannot have a volume of it, and who could."""
        if self.lvstores:
            why = f'the SPDK of host {self.host} does not hold {what}'
        else:
            why = (
                f'host {self.host} sent no "{KEY}" key with lvstores: it has '
                f'no SPDK of its own, or its connector is not registered'
            )
        return f'{why}. As yet, only the host of the target itself can attach'
