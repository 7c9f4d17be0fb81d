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

"""Where a target listens for NVMe-oF: the option ``spdk_nvmf_portals``.

Addresses are canonical literals, because os-brick finds a connection that
is there by comparing texts with what the kernel shows, and looks up nothing.
"""

from collections.abc import Iterable
import dataclasses
import ipaddress
import re

from cinder_spdk_vhost import exceptions

TRANSPORTS = ('tcp', 'rdma')

_FORM = re.compile(r'([a-z]+)://(?:\[([^\[\]]*)\]|([^\[\]:]*)):([0-9]+)')
_ACCEPTED = (
    'accepted are tcp://ADDRESS:PORT and rdma://ADDRESS:PORT, with a '
    'canonical IPv4 address or a canonical IPv6 address in brackets, such '
    'as tcp://192.0.2.5:4420 or tcp://[2001:db8::5]:4420'
)


@dataclasses.dataclass(frozen=True)
class Portal:
    """One address that a target listens on.

    :ivar transport: tcp or rdma
    :ivar address: an IP address, in its canonical form
    """

    transport: str
    address: str
    port: int

    @classmethod
    def parse(cls, text: str) -> 'Portal':
        """:raises Conflict: says what is accepted"""
        match = _FORM.fullmatch(text)
        if match is None or match[1] not in TRANSPORTS:
            raise exceptions.Conflict(f'"{text}" is no portal; {_ACCEPTED}')
        transport, six, four, digits = match.groups()
        address = six if six is not None else four
        _check_address(text, address, 6 if six is not None else 4)
        port = int(digits)
        if not 1 <= port <= 65535 or str(port) != digits:
            raise exceptions.Conflict(
                f'"{text}": port {digits} is none; 1 to 65535 are accepted'
            )
        return cls(transport, address, port)

    @property
    def family(self) -> str:
        """As SPDK calls it."""
        return 'IPv6' if ':' in self.address else 'IPv4'


def _check_address(text: str, address: str, version: int) -> None:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise exceptions.Conflict(
            f'"{text}": "{address}" is no IP address, and names are not '
            f'looked up; {_ACCEPTED}'
        ) from None
    if parsed.version != version:
        raise exceptions.Conflict(
            f'"{text}": IPv6 addresses, and no others, are given in '
            f'brackets; {_ACCEPTED}'
        )
    if str(parsed) != address:
        raise exceptions.Conflict(
            f'"{text}": the canonical form of {address} is {parsed}, which '
            f'is accepted'
        )
    if parsed.is_unspecified or parsed.is_multicast or '%' in address:
        raise exceptions.Conflict(
            f'"{text}": a host cannot connect to {address}; an address that '
            f'the target has on its network is accepted'
        )
    if parsed.version == 6 and (parsed.is_link_local or parsed.ipv4_mapped):
        raise exceptions.Conflict(
            f'"{text}": {address} is not what every host would connect to; '
            f'an address that is unique on the network is accepted, an IPv4 '
            f'one as such'
        )


def parse(texts: Iterable[str]) -> tuple[Portal, ...]:
    """The portals of a list, in its order.

    :raises Conflict: for one that is malformed, or is there twice
    """
    found: list[Portal] = []
    for text in texts:
        portal = Portal.parse(text)
        if portal in found:
            raise exceptions.Conflict(
                f'"{text}" is there twice; once is accepted'
            )
        found.append(portal)
    return tuple(found)
