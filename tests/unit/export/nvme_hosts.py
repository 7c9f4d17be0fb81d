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

"""A target with one volume and NVMe-oF, for tests of exports."""

from typing import Any

from tests.unit import scripted
from tests.unit.export import hosts

ID = '6c2a3e58-5d0e-4a43-9a3c-0a6a8f4f9f10'
VOLUME = f'volume-{ID}'
PATH = f'P/{VOLUME}'
BDEV = f'bdev-of-{PATH}'
NQN = f'nqn.2026-11.org.cinder-spdk-vhost:{VOLUME}'

INVALID = scripted.Refused('Invalid parameters')
INTERNAL = scripted.Refused('Internal error', -32603)


def nqn(number: int) -> str:
    """That of a host."""
    host = f'{number:08x}-0000-4000-8000-000000000000'
    return f'nqn.2014-08.org.nvmexpress:uuid:{host}'


class NvmeHost(hosts.Host):
    """As the other one, with any number of subsystems.

    :ivar subsystems: by NQN, as SPDK describes them
    :ivar connected: by NQN, the hosts that are
    """

    def __init__(self, path: str = PATH) -> None:
        super().__init__(path)
        self.answers |= {
            'nvmf_get_subsystems': self.get_subsystems,
            'nvmf_get_transports': lambda _: [
                {'trtype': t} for t in self.transports
            ],
            'nvmf_create_transport': self.create_transport,
            'nvmf_subsystem_add_host': self.add_host,
            'nvmf_subsystem_remove_host': self.remove_host,
            'nvmf_subsystem_add_listener': self.add_listener,
            'nvmf_subsystem_remove_ns': self.remove_namespace,
            'nvmf_subsystem_get_controllers': lambda p: [
                {'hostnqn': host} for host in self.connected[self._nqn(p)]
            ],
        }
        self.subsystems: dict[str, Any] = {}
        self.connected: dict[str, list[str]] = {}
        self.transports = ['TCP']
        self.others = 0

    @property
    def exported(self) -> Any:
        """The volume's subsystem, or None."""
        return self.subsystems.get(
            NQN.replace(VOLUME, self.path.partition('/')[2])
        )

    @property
    def admitted(self) -> list[str]:
        return [host['nqn'] for host in self.exported['hosts']]

    def _nqn(self, params: Any) -> str:
        if params['nqn'] not in self.subsystems:
            raise INVALID
        return params['nqn']

    def _of(self, params: Any) -> Any:
        return self.subsystems[self._nqn(params)]

    def get_subsystems(self, params: Any) -> Any:
        if params is None:
            return [*self.subsystems.values(), *[{'nqn': 'x'}] * self.others]
        if params['nqn'] not in self.subsystems:
            raise scripted.NOT_FOUND
        return [self.subsystems[params['nqn']]]

    def create_transport(self, params: Any) -> Any:
        if params['trtype'] != 'TCP':
            raise scripted.Refused("Invalid transport type 'RDMA'")
        self.transports.append('TCP')
        return True

    def create_subsystem(self, params: Any) -> Any:
        if (
            params['nqn'] in self.subsystems
            or len(self.subsystems) + self.others >= 1024
        ):
            raise scripted.Refused(
                f'Unable to create subsystem {params["nqn"]}', -32603
            )
        self.subsystems[params['nqn']] = {
            'nqn': params['nqn'],
            'serial_number': params.get('serial_number', '0' * 20),
            'model_number': params.get('model_number', 'SPDK'),
            'ana': params.get('ana_reporting', False),
            'max_namespaces': params['max_namespaces'],
            'allow_any_host': False,
            'hosts': [],
            'listen_addresses': [],
            'namespaces': [],
        }
        self.connected[params['nqn']] = []
        return True

    def delete_subsystem(self, params: Any) -> Any:
        nqn = self._nqn(params)
        if self.subsystems.pop(nqn)['namespaces']:
            self.claimed = False
        del self.connected[nqn]
        return True

    def add_namespace(self, params: Any) -> Any:
        if self.claimed:
            raise INVALID
        space = params['namespace']
        name = self.lvol()[0]['name']
        if space['bdev_name'] not in (name, self.path):
            raise INVALID
        self._of(params)['namespaces'].append(
            {
                'nsid': space.get('nsid', 1),
                'bdev_name': name,
                'uuid': space.get('uuid', 'the-bdevs'),
                'nguid': space.get('nguid', 'the-bdevs').upper(),
            }
        )
        self.claimed = True
        return 1

    def remove_namespace(self, params: Any) -> Any:
        found = self._of(params)
        if not found['namespaces']:
            raise INVALID
        found['namespaces'].clear()
        self.claimed = False
        return True

    def add_host(self, params: Any) -> Any:
        found = self._of(params)
        if {'nqn': params['host']} in found['hosts']:
            raise INTERNAL
        found['hosts'].insert(0, {'nqn': params['host']})
        return True

    def remove_host(self, params: Any) -> Any:
        found = self._of(params)
        if {'nqn': params['host']} not in found['hosts']:
            raise INTERNAL
        found['hosts'].remove({'nqn': params['host']})
        connected = self.connected[params['nqn']]
        connected[:] = [h for h in connected if h != params['host']]
        return True

    def add_listener(self, params: Any) -> Any:
        found = self._of(params)
        address = params['listen_address']
        if (
            address in found['listen_addresses']
            or address['trtype'] not in self.transports
        ):
            raise INVALID
        found['listen_addresses'].insert(0, address)
        return True
