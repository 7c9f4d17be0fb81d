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

A host with our key says which lvstores its own SPDK holds. Who forges that
gets a socket made on the target's host, which only that host's root and
QEMUs can reach.

Where the target listens for NVMe-oF, any other host gets the volume that way
and says by which NQN it will come. Who forges that lets another host connect
to a volume of his own, over a network that he has to be on.

A host without our key is Cinder's own, or has no SPDK. If it describes itself
as os-brick describes this very host, and the target is here, it gets a block
device. Who forges that (os-brick's description of a host is no secret) gets
one made of a volume of his own, and is told its path. He cannot open it, it
is on this host; he takes one of its NBD devices (16 by default) until the
volume is detached or deleted, and this host's kernel, udev and LVM look at
what he wrote on the volume, as they do whenever it is copied to an image.
And he can end a copy of his own volume that is under way. Nobody else's
volume is touched.

That the description fits does not make it true of an honest host, either:
two hosts may have been installed from one image. So every id that both give
has to be the same, not one of them; and the target's device has to be on
this host, with the volume's size, before anybody is told of it.
"""

from collections.abc import Mapping
import dataclasses
import socket
from typing import Any

from cinder.volume import volume_utils
from oslo_config import cfg

from cinder_spdk_vhost import exceptions, names
from cinder_spdk_vhost.export import nvmeof

KEY = 'spdk_vhost'

OTHERWISE = (
    'Hosts other than the target itself attach over NVMe-oF, if '
    'spdk_nvmf_portals is set and they send an "nqn"'
)

# What os-brick says of a host, and no two hosts should share.
_IDS = ('initiator', 'nqn', 'system uuid')

CONF = cfg.CONF
CONF.import_opt('my_ip', 'cinder.common.config')


@dataclasses.dataclass(frozen=True)
class Connector:
    """A host that wants a volume.

    :ivar host: its name, for messages only
    :ivar lvstores: UUIDs of the stores that its own SPDK holds, as it says;
        empty where it has none
    :ivar mode: rw or ro
    :ivar stock: whether it lacks our key, as Cinder's own does
    :ivar nqn: how it names itself over NVMe-oF, unchecked; None where it
        does not
    """

    host: str
    lvstores: frozenset[str]
    mode: str
    stock: bool
    nqn: object = None

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
        return cls(
            host,
            frozenset(stores),
            mode,
            is_stock(connector),
            connector.get('nqn'),
        )

    def check_local(self, store: str, uuid: str) -> None:
        """:raises Conflict: where its SPDK does not hold the lvstore"""
        if uuid not in self.lvstores:
            raise exceptions.Conflict(
                self.why_not_local(f'pool "{store}" (lvstore {uuid})')
            )

    def nvmeof_host(self) -> nvmeof.Host:
        """Who it is over NVMe-oF.

        :raises Conflict: it sent no NQN, or none that is one
        """
        if self.nqn is None:
            raise exceptions.Conflict(
                f'host {self.host} sent no "nqn", by which it would be let '
                f'in over NVMe-oF: /etc/nvme/hostnqn and nvme-cli are missing '
                f'there'
            )
        try:
            return nvmeof.Host(names.host_nqn(self.nqn), self.host)
        except exceptions.InvalidName as e:
            raise exceptions.Conflict(f'host {self.host}: {e}') from None

    def why_not_local(self, what: str) -> str:
        """Why this host cannot have a volume of it, and who could."""
        if self.lvstores:
            why = f'the SPDK of host {self.host} does not hold {what}'
        else:
            why = (
                f'host {self.host} sent no "{KEY}" key with lvstores: it has '
                f'no SPDK of its own, or its connector is not registered'
            )
        return f'{why}. {OTHERWISE}'


def is_stock(connector: Mapping[str, Any]) -> bool:
    """Whether a connector lacks our key."""
    return connector.get(KEY) is None


def check_here(connector: Mapping[str, Any], target: str, here: bool) -> None:
    """Check that a connector without our key may have a block device.

    :param target: how messages name the target
    :param here: whether that is on this host
    :raises Conflict: the target is elsewhere, or the connector is another
        host's
    """
    who = (
        f'host {connector.get("host", "unknown")} sent no "{KEY}" key: it '
        f'has no SPDK of its own, or its connector is not registered'
    )
    if not here:
        raise exceptions.Conflict(
            f'{who}. It could have a block device if cinder-volume ran on '
            f'the host of the target {target}. {OTHERWISE}'
        )
    differs = _difference(connector)
    if differs is not None:
        raise exceptions.Conflict(
            f'{who}. It could have a block device on the host of the target, '
            f'of which os-brick gives another "{differs}". {OTHERWISE}'
        )


def _difference(connector: Mapping[str, Any]) -> str | None:
    """The first key that tells a connector's host from this one."""
    for key, ours in (('host', socket.gethostname()), ('ip', CONF.my_ip)):
        if connector.get(key) != ours:
            return key
    given = [key for key in _IDS if connector.get(key)]
    if given:
        # Asked last: some of it takes root.
        here = volume_utils.brick_get_connector_properties()
        for key in given:
            if here.get(key) and connector[key] != here[key]:
                return key
    return None
