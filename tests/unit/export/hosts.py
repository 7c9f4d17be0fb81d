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

"""A target with one volume, for tests of its exports."""

from typing import Any

from tests.unit import scripted

VOLUME = 'volume-1'
PATH = 'P/volume-1'
BDEV = 'bdev-of-P/volume-1'


class Host(scripted.Script):
    """A target with one volume that keeps what it is told.

    :param path: the volume's
    """

    def __init__(self, path: str = PATH) -> None:
        self.path = path
        super().__init__(
            bdev_get_bdevs=lambda _: self.lvol(),
            bdev_set_qos_limit=self.set_limits,
            vhost_get_controllers=lambda p: self.controllers.get(
                p['name'], scripted.NOT_FOUND
            ),
            vhost_create_blk_controller=self.create,
            vhost_delete_controller=self.delete,
            nvmf_create_subsystem=self.create_subsystem,
            nvmf_subsystem_add_ns=self.add_namespace,
            nvmf_delete_subsystem=self.delete_subsystem,
            nbd_get_disks=lambda _: self.nbd,
            nbd_start_disk=self.start_nbd,
            nbd_stop_disk=self.stop_nbd,
        )
        self.limits: dict[str, int] = {}
        self.controllers: dict[str, Any] = {}
        self.subsystem: str | None = None
        self.claimed = False
        self.nbd: list[dict[str, Any]] = []
        self.ublk: list[dict[str, Any]] = []

    def lvol(self) -> Any:
        claim = {'claim_type': 'exclusive_write'} if self.claimed else {}
        return scripted.lvol(
            self.path,
            assigned_rate_limits=self.limits,
            claimed=self.claimed,
            **claim,
        )

    def set_limits(self, params: Any) -> Any:
        if any(self.limits.values()) and not self.claimed:
            return scripted.IDLE
        self.limits = {k: v for k, v in params.items() if k != 'name'}
        return True

    def create(self, params: Any) -> Any:
        if self.claimed:
            return scripted.Refused('Operation not permitted')
        name = params['ctrlr']
        self.controllers[name] = scripted.controller(
            name, params['dev_name'], readonly=params['readonly']
        )
        return True

    def delete(self, params: Any) -> Any:
        return self.controllers.pop(params['ctrlr'], scripted.NOT_FOUND) and (
            True
        )

    def create_subsystem(self, params: Any) -> Any:
        if self.subsystem is not None:
            return scripted.Refused('Invalid parameters')
        self.subsystem = params['nqn']
        return True

    def add_namespace(self, params: Any) -> Any:
        if self.claimed:
            return scripted.Refused('Invalid parameters')
        self.claimed = True
        return 1

    def delete_subsystem(self, params: Any) -> Any:
        if self.subsystem != params['nqn']:
            return scripted.Refused('Invalid parameters')
        self.subsystem = None
        self.claimed = False
        return True

    def start_nbd(self, params: Any) -> Any:
        if self.claimed:
            return scripted.Refused('Operation not permitted', -1)
        device = f'/dev/nbd{len(self.nbd)}'
        self.nbd.append(
            {'nbd_device': device, 'bdev_name': params['bdev_name']}
        )
        return device

    def stop_nbd(self, params: Any) -> Any:
        left = [d for d in self.nbd if d['nbd_device'] != params['nbd_device']]
        if len(left) == len(self.nbd):
            return scripted.NOT_FOUND
        self.nbd = left
        return True

    def with_ublk(self) -> None:
        """It has a ublk target, too."""
        self.answers |= {
            'ublk_get_disks': lambda _: self.ublk,
            'ublk_start_disk': self.start_ublk,
            'ublk_stop_disk': self.stop_ublk,
        }

    def start_ublk(self, params: Any) -> Any:
        number = params['ublk_id']
        self.ublk.append(
            {
                'ublk_device': f'/dev/ublkb{number}',
                'id': number,
                'queue_depth': 128,
                'num_queues': 1,
                'bdev_name': params['bdev_name'],
            }
        )
        return number

    def stop_ublk(self, params: Any) -> Any:
        self.ublk = [d for d in self.ublk if d['id'] != params['ublk_id']]
        return True
