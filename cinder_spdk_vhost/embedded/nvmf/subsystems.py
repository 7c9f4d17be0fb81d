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

"""NVMe subsystems, their namespaces, hosts and listeners."""

import errno
from typing import Any

from cinder_spdk_vhost.embedded import bdevs, errors, keyring
from cinder_spdk_vhost.embedded.nvmf import names, psk, transports

DEFAULT_SERIAL = '0' * 20
DEFAULT_MODEL = 'SPDK bdev Controller'
DEFAULT_NAMESPACES = 32
MIN_CNTLID = 1
MAX_CNTLID = 65519
OPTIMIZED = 'optimized'

_MAX_SUBSYSTEMS = 1024
_MAX_LISTENERS = 16
# What a subsystem's table of namespaces can be allocated for.
_MAX_NAMESPACES = 1 << 24
_DMRSL = 2097152
_WZSL = 12


def _not_zero(text: str | None) -> str | None:
    """An identifier of zeros is none."""
    return text if text and text.strip('0-') else None


class Namespace:
    """A bdev in a subsystem."""

    def __init__(
        self,
        number: int,
        descriptor: bdevs.Descriptor,
        wanted: dict[str, Any],
    ) -> None:
        self.number = number
        self.descriptor = descriptor
        self.ana_group = wanted.get('anagrpid') or number
        #: whether the hosts that see it are named, and which those are
        self.masked = wanted.get('no_auto_visible', False)
        self.visible_to: set[str] = set()
        bdev = descriptor.bdev
        self._uuid = _not_zero(wanted.get('uuid')) or bdev.uuid
        # Without one of its own it has what the bdev's UUID makes, even if
        # its own UUID is another.
        nguid = _not_zero(wanted.get('nguid'))
        self._nguid = nguid or bdev.uuid.replace('-', '')
        self._eui64 = _not_zero(wanted.get('eui64'))

    def describe(self) -> dict[str, Any]:
        """As ``nvmf_get_subsystems`` shows it."""
        name = self.descriptor.bdev.name
        about = {'nsid': self.number, 'bdev_name': name, 'name': name}
        about['nguid'] = self._nguid.upper()
        if self._eui64 is not None:
            about['eui64'] = self._eui64.upper()
        about['uuid'] = self._uuid
        return about


class Host:
    """Who may connect, and what it has to know."""

    def __init__(self, nqn: str, ring: keyring.Keyring) -> None:
        self.nqn = nqn
        self._ring = ring
        self._keys: dict[str, keyring.Key] = {}
        self._psk: keyring.Key | None = None

    def set_keys(self, wanted: dict[str, str]) -> None:
        """Hold these keys, by what they are for, instead of those it had."""
        if 'dhchap_ctrlr_key' in wanted and 'dhchap_key' not in wanted:
            raise errors.Errno(errno.EINVAL)
        held = {use: self._ring.hold(name) for use, name in wanted.items()}
        self._release_keys()
        self._keys = held

    def use_psk(self, name: str) -> None:
        """Hold a key for TLS as well; it is read and must be one."""
        self._psk = self._ring.hold(name)
        if not psk.is_valid(self._psk.read(psk.MAX_BYTES)):
            raise errors.Errno(errno.EINVAL)

    def _release_keys(self) -> None:
        for key in self._keys.values():
            self._ring.release(key)
        self._keys = {}

    def release(self) -> None:
        """Let go of all keys."""
        self._release_keys()
        if self._psk is not None:
            self._ring.release(self._psk)
            self._psk = None

    def describe(self) -> dict[str, Any]:
        """As ``nvmf_get_subsystems`` shows it; not whether it has a PSK."""
        names_of_keys = {use: key.name for use, key in self._keys.items()}
        return {'nqn': self.nqn, **names_of_keys}


class Listener:
    """An address of a subsystem, and how good a way it is."""

    def __init__(
        self, address: transports.Address, state: str, groups: int
    ) -> None:
        self.address = address
        self.states = [state] * groups


class Subsystem:
    """An NVMe subsystem."""

    def __init__(
        self, nqn: str, options: dict[str, Any], *, discovery: bool = False
    ) -> None:
        self.nqn = nqn
        self._discovery = discovery
        self.max_namespaces = (
            0
            if discovery
            else options.get('max_namespaces') or DEFAULT_NAMESPACES
        )
        self.any_host = options.get('allow_any_host', False)
        self._ana = options.get('ana_reporting', False)
        self._passthrough = options.get('passthrough', False)
        self._shown = {
            'serial_number': options.get('serial_number', DEFAULT_SERIAL),
            'model_number': options.get('model_number', DEFAULT_MODEL),
            'max_namespaces': self.max_namespaces,
            'passthrough': self._passthrough,
            'min_cntlid': options.get('min_cntlid', MIN_CNTLID),
            'max_cntlid': options.get('max_cntlid', MAX_CNTLID),
            'dmrsl': options.get('dmrsl', _DMRSL),
            'wzsl': options.get('wzsl', _WZSL),
        }
        self.namespaces: dict[int, Namespace] = {}
        self._hosts: dict[str, Host] = {}
        # The newest stands first.
        self._listeners: list[Listener] = []
        #: its deletion has begun: what was to change in it will fail
        self.deleted = False

    def add(self, bdev: bdevs.Bdev, wanted: dict[str, Any]) -> int:
        """Claim a bdev as a namespace; the lowest free number by default."""
        number: int = wanted.get('nsid', 0)
        if not number:
            number = 1
            while number in self.namespaces:
                number += 1
        if (
            number in self.namespaces
            or number > self.max_namespaces
            or wanted.get('anagrpid', 0) > self.max_namespaces
            # It takes a real NVMe device below.
            or self._passthrough
        ):
            raise errors.Errno(errno.EINVAL)
        descriptor = bdev.open(lambda: None)
        descriptor.claim(bdevs.EXCLUSIVE_WRITE)
        descriptor.open_channel()
        descriptor.on_remove = lambda: self.remove(number)
        self.namespaces[number] = Namespace(number, descriptor, wanted)
        return number

    def _namespace(self, number: int) -> Namespace:
        namespace = self.namespaces.get(number)
        if namespace is None:
            raise errors.Errno(errno.EINVAL)
        return namespace

    def remove(self, number: int) -> None:
        """Give a namespace's bdev up."""
        namespace = self._namespace(number)
        del self.namespaces[number]
        namespace.descriptor.close()

    def set_ana_group(self, number: int, group: int) -> None:
        """Move a namespace to another group."""
        if not 0 < group <= self.max_namespaces:
            raise errors.Errno(errno.EINVAL)
        self._namespace(number).ana_group = group

    def show_to(self, number: int, host: str, *, visible: bool) -> None:
        """Show a masked namespace to a host, or no more."""
        namespace = self._namespace(number)
        if not namespace.masked or not names.valid_nqn(host):
            raise errors.Errno(errno.EINVAL)
        if visible:
            namespace.visible_to.add(host)
        else:
            namespace.visible_to.discard(host)

    def allow(
        self, host: Host, keys: dict[str, str], psk_name: str | None
    ) -> None:
        """Let a host connect; the keys are in the keyring."""
        if not names.valid_nqn(host.nqn) or host.nqn in self._hosts:
            raise errors.Errno(errno.EINVAL)
        try:
            host.set_keys(keys)
            if psk_name is not None:
                host.use_psk(psk_name)
        except errors.Errno:
            host.release()
            raise
        self._hosts[host.nqn] = host

    def host(self, nqn: str) -> Host:
        """A host that may connect."""
        host = self._hosts.get(nqn)
        if host is None:
            raise errors.Errno(errno.EINVAL)
        return host

    def disallow(self, nqn: str) -> None:
        """Don't let a host connect any more."""
        self.host(nqn).release()
        del self._hosts[nqn]

    def _listener(self, address: transports.Address) -> Listener | None:
        for listener in self._listeners:
            if listener.address.same(address):
                return listener
        return None

    def listen(self, address: transports.Address, state: str) -> None:
        """Be reachable at an address."""
        if self._listener(address) is not None:
            raise errors.Errno(errno.EEXIST)
        if len(self._listeners) >= _MAX_LISTENERS:
            raise errors.Errno(errno.EINVAL)
        address.check()
        self._listeners.insert(
            0, Listener(address, state, self.max_namespaces)
        )

    def stop_listening(self, address: transports.Address) -> None:
        """Be reachable there no more."""
        listener = self._listener(address)
        if listener is None:
            raise errors.Errno(errno.ENOENT)
        self._listeners.remove(listener)

    def set_ana_state(
        self, address: transports.Address, state: str, group: int
    ) -> None:
        """Say how good a way an address is to a group, or to all (0)."""
        listener = self._listener(address)
        if listener is None or not self._ana or group > self.max_namespaces:
            raise errors.Errno(errno.EINVAL)
        if group:
            listener.states[group - 1] = state
        else:
            listener.states = [state] * self.max_namespaces

    def release(self) -> None:
        """Give all bdevs and keys up."""
        for number in tuple(self.namespaces):
            self.remove(number)
        for nqn in tuple(self._hosts):
            self.disallow(nqn)
        self._listeners.clear()

    def describe_listeners(self) -> list[dict[str, Any]]:
        """As ``nvmf_subsystem_get_listeners`` shows them."""
        shown = []
        for listener in self._listeners:
            about: dict[str, Any] = {'address': listener.address.describe()}
            if self._ana:
                about['ana_states'] = [
                    {'ana_group': index, 'ana_state': state}
                    for index, state in enumerate(listener.states, 1)
                ]
            shown.append(about)
        return shown

    def describe(self) -> dict[str, Any]:
        """As ``nvmf_get_subsystems`` shows it."""
        about: dict[str, Any] = {
            'nqn': self.nqn,
            'subtype': 'Discovery' if self._discovery else 'NVMe',
            'listen_addresses': [
                listener.address.describe() for listener in self._listeners
            ],
            'allow_any_host': self.any_host,
            'hosts': [
                host.describe() for host in reversed(self._hosts.values())
            ],
        }
        if self._discovery:
            return about
        spaces = []
        for number in sorted(self.namespaces):
            namespace = self.namespaces[number]
            space = namespace.describe()
            if self._ana:
                space['anagrpid'] = namespace.ana_group
            spaces.append(space)
        return {**about, **self._shown, 'namespaces': spaces}


class Nvmf:
    """The target: all subsystems, and the transports."""

    def __init__(self) -> None:
        discovery = Subsystem(
            names.DISCOVERY, {'allow_any_host': True}, discovery=True
        )
        self._subsystems = {names.DISCOVERY: discovery}
        self.transports = transports.Transports()

    def create(self, nqn: str, options: dict[str, Any]) -> Subsystem:
        """A new subsystem, without listeners and hosts."""
        if (
            nqn in self._subsystems
            or not names.valid_nqn(nqn)
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
        subsystem.release()
