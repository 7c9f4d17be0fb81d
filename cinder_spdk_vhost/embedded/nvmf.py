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

"""The part of NVMe-oF that has to do with bdevs.

A namespace claims its bdev and opens a channel to it; that is all a driver
needs to change limits on a bdev that nobody uses. No host ever connects
here: data over NVMe-oF takes a real target.
"""

import errno
import re
from typing import Any
import uuid as uuids

from cinder_spdk_vhost.embedded import bdevs, errors

DISCOVERY = 'nqn.2014-08.org.nvmexpress.discovery'
TARGET = 'nvmf_tgt'

DEFAULT_SERIAL = '0' * 20
DEFAULT_MODEL = 'SPDK bdev Controller'
DEFAULT_NAMESPACES = 32
MAX_CNTLID = 65519

_NQN_MAX = 223
_UUID_NQN = 'nqn.2014-08.org.nvmexpress:uuid:'
_MAX_SUBSYSTEMS = 1024
# What a subsystem's table of namespaces can be allocated for.
_MAX_NAMESPACES = 1 << 24
_DMRSL = 2097152
_WZSL = 12

_DATED_NQN = re.compile(
    r'nqn\.\d{4}-\d{2}\.[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?'
    r'(?:\.[A-Za-z](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*:.+',
    re.DOTALL,
)


def valid_nqn(nqn: str) -> bool:
    """Whether a name has the form of an NQN."""
    if len(nqn.encode()) > _NQN_MAX:
        return False
    if nqn == DISCOVERY:
        return True
    if nqn.startswith(_UUID_NQN):
        text = nqn[len(_UUID_NQN) :]
        try:
            return str(uuids.UUID(text)) == text.lower()
        except ValueError:
            return False
    return _DATED_NQN.fullmatch(nqn) is not None


class Namespace:
    """A bdev in a subsystem."""

    def __init__(
        self, number: int, descriptor: bdevs.Descriptor, ids: dict[str, str]
    ) -> None:
        self.number = number
        self.descriptor = descriptor
        bdev = descriptor.bdev
        self._uuid = ids.get('uuid', bdev.uuid)
        self._eui64 = ids.get('eui64')
        # Without one of its own it has what its UUID makes.
        self._nguid = ids.get('nguid', self._uuid.replace('-', ''))

    def describe(self) -> dict[str, Any]:
        """As ``nvmf_get_subsystems`` shows it."""
        name = self.descriptor.bdev.name
        about = {'nsid': self.number, 'bdev_name': name, 'name': name}
        about['nguid'] = self._nguid.upper()
        if self._eui64 is not None:
            about['eui64'] = self._eui64.upper()
        about['uuid'] = self._uuid
        return about


class Subsystem:
    """An NVMe subsystem and its namespaces."""

    def __init__(self, nqn: str, options: dict[str, Any]) -> None:
        self.nqn = nqn
        self.max_namespaces = (
            options.get('max_namespaces') or DEFAULT_NAMESPACES
        )
        self._serial = options.get('serial_number', DEFAULT_SERIAL)
        self._model = options.get('model_number', DEFAULT_MODEL)
        self._any_host = options.get('allow_any_host', False)
        self._ana = options.get('ana_reporting', False)
        self._cntlid = (
            options.get('min_cntlid', 1),
            options.get('max_cntlid', MAX_CNTLID),
        )
        self.namespaces: dict[int, Namespace] = {}
        #: its state is changing; nothing else can be done to it
        self.changing = True

    def add(
        self, bdev: bdevs.Bdev, number: int | None, ids: dict[str, str]
    ) -> int:
        """Claim a bdev as a namespace; the lowest free number by default."""
        if not number:
            number = 1
            while number in self.namespaces:
                number += 1
        if number in self.namespaces or number > self.max_namespaces:
            raise errors.Errno(errno.EINVAL)
        descriptor = bdev.open(lambda: None)
        descriptor.claim(bdevs.EXCLUSIVE_WRITE)
        descriptor.open_channel()
        descriptor.on_remove = lambda: self.remove(number)
        self.namespaces[number] = Namespace(number, descriptor, ids)
        return number

    def remove(self, number: int) -> None:
        """Give a namespace's bdev up."""
        namespace = self.namespaces.pop(number, None)
        if namespace is None:
            raise errors.Errno(errno.EINVAL)
        namespace.descriptor.close()

    def describe(self) -> dict[str, Any]:
        """As ``nvmf_get_subsystems`` shows it."""
        about: dict[str, Any] = {
            'nqn': self.nqn,
            'subtype': 'Discovery' if self.nqn == DISCOVERY else 'NVMe',
            'listen_addresses': [],
            'allow_any_host': self._any_host,
            'hosts': [],
        }
        if self.nqn == DISCOVERY:
            return about
        spaces = []
        for number in sorted(self.namespaces):
            space = self.namespaces[number].describe()
            if self._ana:
                space['anagrpid'] = number
            spaces.append(space)
        return {
            **about,
            'serial_number': self._serial,
            'model_number': self._model,
            'max_namespaces': self.max_namespaces,
            'passthrough': False,
            'min_cntlid': self._cntlid[0],
            'max_cntlid': self._cntlid[1],
            'dmrsl': _DMRSL,
            'wzsl': _WZSL,
            'namespaces': spaces,
        }


class Nvmf:
    """All subsystems."""

    def __init__(self) -> None:
        discovery = Subsystem(DISCOVERY, {'allow_any_host': True})
        discovery.changing = False
        self._subsystems = {DISCOVERY: discovery}

    def create(self, nqn: str, options: dict[str, Any]) -> Subsystem:
        """A new subsystem, without listeners and hosts."""
        if (
            nqn in self._subsystems
            or not valid_nqn(nqn)
            or len(self._subsystems) >= _MAX_SUBSYSTEMS
            or options.get('max_namespaces', 0) > _MAX_NAMESPACES
        ):
            raise errors.Errno(errno.EINVAL)
        subsystem = self._subsystems[nqn] = Subsystem(nqn, options)
        return subsystem

    def find(self, nqn: str) -> Subsystem | None:
        """A subsystem by its name."""
        return self._subsystems.get(nqn)

    def all(self) -> list[Subsystem]:
        """All subsystems, in the order of their names."""
        return [
            self._subsystems[nqn]
            for nqn in sorted(self._subsystems, key=str.encode)
        ]

    def delete(self, subsystem: Subsystem) -> None:
        """Delete a subsystem and give its bdevs up."""
        del self._subsystems[subsystem.nqn]
        for number in tuple(subsystem.namespaces):
            subsystem.remove(number)
