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

"""NVMe-oF: subsystems that hosts reach volumes in.

SPDK says "Invalid parameters" or "Internal error" for nearly everything
that it refuses, with no errno: only :func:`get_subsystem` and
:func:`create_transport` tell what the matter is. After any other refusal,
look.

Requests about one subsystem that travel together on one connection are done
in their order, its creation among them (v26.05, recorded: SPDK queues them).
A deletion must not travel with any of the others: it makes those before it
fail, and can end the target.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import InvalidParams, Request

NQN_MAX_BYTES = 223
SERIAL_MAX = 20
MODEL_MAX = 40
#: How many a target has by default, the discovery subsystem among them.
SUBSYSTEMS_MAX = 1024
#: Addresses of one subsystem (src).
LISTENERS_MAX = 16


@dataclasses.dataclass(frozen=True)
class Listener:
    """An address that a subsystem is reached at.

    :ivar transport: ``tcp`` or ``rdma``
    :ivar family: ``IPv4`` or ``IPv6``
    :ivar address: as it was given when it was added
    """

    transport: str
    family: str
    address: str
    port: int

    def as_dict(self) -> dict[str, str]:
        """As requests have it; SPDK takes a port as text only."""
        return {
            'trtype': self.transport.upper(),
            'adrfam': self.family,
            'traddr': self.address,
            'trsvcid': str(self.port),
        }


@dataclasses.dataclass(frozen=True)
class Namespace:
    """A bdev in a subsystem.

    :ivar bdev: its name; for an lvol its UUID
    :ivar nguid: 32 hexadecimal digits, in capitals
    """

    nsid: int
    bdev: str
    uuid: str | None
    nguid: str | None


@dataclasses.dataclass(frozen=True)
class Keys:
    """Names, in the target's keyring, of what a host is asked for.

    :ivar dhchap: the host's key; None where it needn't authenticate
    :ivar dhchap_ctrlr: the key that the target shows in return
    """

    dhchap: str | None = None
    dhchap_ctrlr: str | None = None


@dataclasses.dataclass(frozen=True)
class Subsystem:
    """One subsystem.

    :ivar allow_any_host: whether ``hosts`` is not looked at
    :ivar hosts: by NQN, who may connect
    :ivar listeners: the newest first
    :ivar namespaces: by number; which host sees which can't be read back
    """

    nqn: str
    serial: str
    model: str
    allow_any_host: bool
    hosts: Mapping[str, Keys]
    listeners: tuple[Listener, ...]
    namespaces: tuple[Namespace, ...]


def _parse_listener(data: dict[str, Any]) -> Listener:
    port = data['trsvcid']
    return Listener(
        transport=data['trtype'].lower(),
        family=data['adrfam'],
        address=data['traddr'],
        # Transports that are not ours have other things there.
        port=int(port) if port.isdecimal() else 0,
    )


def _parse_subsystem(result: list[dict[str, Any]]) -> Subsystem:
    data = result[0]
    return Subsystem(
        nqn=data['nqn'],
        # The discovery subsystem has no more than hosts and listeners.
        serial=data.get('serial_number', ''),
        model=data.get('model_number', ''),
        allow_any_host=data['allow_any_host'],
        hosts={
            host['nqn']: Keys(
                host.get('dhchap_key'), host.get('dhchap_ctrlr_key')
            )
            for host in data['hosts']
        },
        listeners=tuple(map(_parse_listener, data['listen_addresses'])),
        namespaces=tuple(
            Namespace(
                nsid=space['nsid'],
                bdev=space['bdev_name'],
                uuid=space.get('uuid'),
                nguid=space.get('nguid'),
            )
            for space in data.get('namespaces', ())
        ),
    )


def create_transport(transport: str) -> Request[Any]:
    """Make ``tcp`` or ``rdma`` listenable, with SPDK's own values.

    Exists where it was made before; InvalidParams where this SPDK was built
    without it. Of two that arrive at once one is refused in words of its
    own: look, then.
    """
    return Request('nvmf_create_transport', {'trtype': transport.upper()})


def get_transports() -> Request[frozenset[str]]:
    """Those that were made: ``tcp``, ``rdma``."""
    return Request(
        'nvmf_get_transports',
        mutates=False,
        optional=True,
        parse=lambda result: frozenset(
            data['trtype'].lower() for data in result
        ),
    )


def create_subsystem(
    nqn: str,
    *,
    max_namespaces: int,
    serial: str | None = None,
    model: str | None = None,
    ana_reporting: bool = False,
) -> Request[Any]:
    """Make a subsystem that no host may connect to, without a listener.

    A TargetError for everything: an NQN that is taken or not of the form,
    no room for one more.
    """
    params: dict[str, Any] = {'nqn': nqn, 'max_namespaces': max_namespaces}
    if serial is not None:
        params['serial_number'] = serial
    if model is not None:
        params['model_number'] = model
    if ana_reporting:
        params['ana_reporting'] = True
    return Request('nvmf_create_subsystem', params)


def get_subsystem(nqn: str) -> Request[Subsystem]:
    """Look one up. NotFound where there is none."""
    return Request(
        'nvmf_get_subsystems',
        {'nqn': nqn},
        mutates=False,
        optional=True,
        parse=_parse_subsystem,
    )


def get_names() -> Request[list[str]]:
    """NQNs of all subsystems, in their order, discovery's among them.

    Grows with the target: for counting them now and then, never for finding
    one.
    """
    return Request(
        'nvmf_get_subsystems',
        mutates=False,
        parse=lambda result: [data['nqn'] for data in result],
    )


def delete_subsystem(nqn: str) -> Request[Any]:
    """Delete a subsystem and with it its claims, connected hosts or not.

    "Invalid parameters" is all that SPDK says of one that is not there.
    """
    return Request('nvmf_delete_subsystem', {'nqn': nqn})


def add_namespace(
    nqn: str,
    bdev: str,
    *,
    nsid: int | None = None,
    uuid: str | None = None,
    nguid: str | None = None,
) -> Request[int]:
    """Make a bdev a namespace, which opens it and claims it.

    Answers with its number. InvalidParams where somebody else claims it,
    the number is taken, or there is no such bdev or subsystem. That an
    identifier is another's is not looked at.

    :param nsid: the lowest free number by default
    :param uuid: the bdev's by default
    :param nguid: 32 hexadecimal digits; what the bdev's UUID makes by
        default, even where ``uuid`` is another
    """
    namespace: dict[str, Any] = {'bdev_name': bdev}
    if nsid is not None:
        namespace['nsid'] = nsid
    if uuid is not None:
        namespace['uuid'] = uuid
    if nguid is not None:
        namespace['nguid'] = nguid
    return Request(
        'nvmf_subsystem_add_ns', {'nqn': nqn, 'namespace': namespace}
    )


def remove_namespace(nqn: str, nsid: int) -> Request[Any]:
    """Give a bdev's claim back, connected hosts or not: they see it go.

    InvalidParams where it is not there.
    """
    return Request('nvmf_subsystem_remove_ns', {'nqn': nqn, 'nsid': nsid})


def add_listener(nqn: str, listener: Listener) -> Request[Any]:
    """Be reachable at an address, which subsystems can share.

    InvalidParams where it is there already, is not an address of the
    target's host, its port is another's, or its transport was not made.
    """
    return Request(
        'nvmf_subsystem_add_listener',
        {'nqn': nqn, 'listen_address': listener.as_dict()},
    )


def remove_listener(nqn: str, listener: Listener) -> Request[Any]:
    """Be reachable there no more; who is connected there is cut off.

    InvalidParams where it is not there.
    """
    return Request(
        'nvmf_subsystem_remove_listener',
        {'nqn': nqn, 'listen_address': listener.as_dict()},
    )


def add_host(
    nqn: str,
    host: str,
    *,
    dhchap_key: str | None = None,
    dhchap_ctrlr_key: str | None = None,
) -> Request[Any]:
    """Let a host connect.

    A TargetError ("Internal error") where it may already, with whatever
    keys, or its NQN is not of the form; InvalidParams where there is no
    such subsystem or key.

    :param dhchap_key: name in the target's keyring
    :param dhchap_ctrlr_key: the same; only beside the other
    """
    params = {'nqn': nqn, 'host': host}
    if dhchap_key is not None:
        params['dhchap_key'] = dhchap_key
    if dhchap_ctrlr_key is not None:
        params['dhchap_ctrlr_key'] = dhchap_ctrlr_key
    return Request('nvmf_subsystem_add_host', params)


def remove_host(nqn: str, host: str) -> Request[Any]:
    """Don't let a host connect any more; it is cut off if it is connected.

    A TargetError ("Internal error") where it may not anyway.
    """
    return Request('nvmf_subsystem_remove_host', {'nqn': nqn, 'host': host})


def get_controllers(nqn: str) -> Request[frozenset[str]]:
    """NQNs of the hosts that are connected, by however many paths.

    InvalidParams where there is no such subsystem.
    """
    return Request(
        'nvmf_subsystem_get_controllers',
        {'nqn': nqn},
        mutates=False,
        optional=True,
        absent=(InvalidParams,),
        parse=lambda result: frozenset(data['hostnqn'] for data in result),
    )
