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

"""What subsystems listen on: transports and addresses.

TCP is the only transport, as in the recorded target. Nothing is bound: an
address must be one of this host's, and a port is never found to be taken.
"""

import dataclasses
import errno
import ipaddress
import socket
from typing import Any

from cinder_spdk_vhost.embedded import errors

TCP = 'TCP'
_IPV4, _IPV6 = 'IPv4', 'IPv6'
_FAMILIES = {
    name.lower(): name for name in (_IPV4, _IPV6, 'IB', 'FC', 'Intra-host')
}
_MAX_PORT = 65535

_DEFAULTS: dict[str, Any] = {
    'max_queue_depth': 128,
    'max_io_qpairs_per_ctrlr': 127,
    'in_capsule_data_size': 4096,
    'max_io_size': 131072,
    'max_aq_depth': 128,
    'iobuf_small_cache_size': 4294967295,
    'iobuf_large_cache_size': 4294967295,
    'dif_insert_or_strip': False,
    'zcopy': False,
    'c2h_success': True,
    'sock_priority': 0,
    'abort_timeout_sec': 1,
    'ack_timeout': 0,
    'data_wr_pool_size': 0,
    # It is taken, and false is what is shown.
    'disable_command_passthru': False,
    'kas': 100,
    'min_kato': 10000,
}
_MIN_IO_SIZE = 8192
_MAX_IO_SIZE = 16 * 135168
_MIN_QUEUE_DEPTH = 2
_MIN_ADMIN_DEPTH = 32
_MAX_ADMIN_DEPTH = 4096
_MAX_PRIORITY = 15
_KAS_MS = 100


@dataclasses.dataclass(frozen=True)
class Address:
    """Where a subsystem can be reached.

    :ivar transport: in capitals
    :ivar family: None where it is not said and the transport has none
    :ivar port: as text, empty where it is not said
    """

    transport: str
    family: str | None
    host: str
    port: str

    @classmethod
    def parse(cls, members: dict[str, str]) -> 'Address':
        """From a request; EINVAL if the address family is unknown."""
        transport = members['trtype'].upper()
        family: str | None
        if 'adrfam' in members:
            family = _FAMILIES.get(members['adrfam'].lower())
            if family is None:
                raise errors.Errno(errno.EINVAL)
        else:
            family = _IPV4 if transport in (TCP, 'RDMA') else None
        return cls(
            transport, family, members['traddr'], members.get('trsvcid', '')
        )

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The host as a number, if it is written as one of its family."""
        try:
            found = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        return found if self.family == f'IPv{found.version}' else None

    def same(self, other: 'Address') -> bool:
        """Whether both are one address, however it is written."""
        return (
            self.transport == other.transport
            and self.family == other.family
            and self.ip is not None
            and self.ip == other.ip
            and self.port == other.port
        )

    def check(self) -> None:
        """EINVAL unless one could listen there."""
        ip = self.ip
        port = int(self.port) if self.port.isdecimal() else 0
        if (
            ip is None
            or not 0 < port <= _MAX_PORT
            # A second spelling would be a second socket.
            or self.port != str(port)
            or not _is_local(ip)
        ):
            raise errors.Errno(errno.EINVAL)

    def describe(self) -> dict[str, Any]:
        """As every answer shows it."""
        return {
            'trtype': self.transport,
            'adrfam': self.family or 'unknown',
            'traddr': self.host,
            'trsvcid': self.port,
        }


def _is_local(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if ip.is_loopback or ip.is_unspecified:
        return True
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(ip), 0))
    except OSError:
        return False
    return True


class CreateFailed(Exception):
    """The transport can't be made; said at once, or when it is tried.

    :ivar late: whether only the attempt shows it
    """

    def __init__(self, *, late: bool) -> None:
        self.late = late
        super().__init__()


class Transports:
    """The transports that were made."""

    def __init__(self) -> None:
        self._made: dict[str, dict[str, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name.upper() in self._made

    def add(self, name: str, options: dict[str, Any]) -> None:
        """A transport of these options; EEXIST if it is there by now."""
        if name in self:
            raise errors.Errno(errno.EEXIST)
        self._made[name.upper()] = options

    def describe(self, name: str | None) -> list[dict[str, Any]]:
        """All, or one; ENODEV if that is not there."""
        if name is not None and name not in self:
            raise errors.Errno(errno.ENODEV)
        return [
            {'trtype': made, **options}
            for made, options in self._made.items()
            if name is None or made == name.upper()
        ]

    def kinds(self) -> list[dict[str, str]]:
        """As statistics show them."""
        return [{'trtype': name} for name in self._made]


def tcp_options(wanted: dict[str, Any]) -> dict[str, Any]:
    """What a TCP transport makes of the options of a request."""
    options = {name: wanted.get(name, _DEFAULTS[name]) for name in _DEFAULTS}
    size = options['max_io_size']
    if (
        (size and (size & (size - 1) or size < _MIN_IO_SIZE))
        or not options['kas']
        or not options['min_kato']
    ):
        raise CreateFailed(late=False)
    if (
        options['c2h_success'].__class__ is not bool
        or options['sock_priority'].__class__ is not int
        or not 0 <= options['sock_priority'] <= _MAX_PRIORITY
        or size > _MAX_IO_SIZE
    ):
        raise CreateFailed(late=True)
    step = options['kas'] * _KAS_MS
    options['min_kato'] = -(-options['min_kato'] // step) * step
    options['in_capsule_data_size'] = min(
        options['in_capsule_data_size'], size
    )
    if options['max_queue_depth'] < _MIN_QUEUE_DEPTH:
        options['max_queue_depth'] = _DEFAULTS['max_queue_depth']
    depth = max(options['max_aq_depth'], _MIN_ADMIN_DEPTH)
    options['max_aq_depth'] = (
        depth if depth <= _MAX_ADMIN_DEPTH else _DEFAULTS['max_aq_depth']
    )
    options['disable_command_passthru'] = False
    return options
