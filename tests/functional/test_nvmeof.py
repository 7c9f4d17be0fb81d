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

"""Volumes over NVMe-oF, beside the other exports, on a target's books."""

import itertools
from typing import Any

from cinder import exception

from cinder_spdk_vhost import names
from tests.fixtures import driver as fixture
from tests.functional import driver_case

PORTALS = ['tcp://127.0.0.1:4420', 'tcp://127.0.0.2:4420', 'tcp://[::1]:4420']


class TestNvmeof(driver_case.DriverTestCase):
    """Every test leaves the target as it found it."""

    zeroing = True
    options = {'spdk_nvmf_portals': PORTALS}

    def subsystem(self, of: Any) -> Any:
        return self.target.dump()['subsystems'].get(names.subsystem(of.name))

    def attach(self, volume: Any, connector: Any) -> Any:
        self.driver.initialize_connection(volume, connector)
        return fixture.attach(volume, connector)

    def detach(self, volume: Any, row: Any) -> None:
        self.driver.terminate_connection(volume, row.connector)
        volume.volume_attachment.objects.remove(row)
        self.driver.remove_export(None, volume)
        self.settle()

    def test_in_every_order(self) -> None:
        """Two hosts elsewhere and a guest here, in and out."""
        volume = self.volume()
        connectors = {
            'here': self.connector(),
            'A': fixture.remote(1),
            'B': fixture.remote(2, spdk_vhost={'lvstores': ['x']}),
        }
        orders = list(itertools.permutations(connectors))
        for way_in, way_out in itertools.product(orders, orders[::2]):
            rows = {n: self.attach(volume, connectors[n]) for n in way_in}
            self.assertEqual(
                {connectors[n]['nqn'] for n in 'AB'}, self.admitted(volume)
            )
            for name in way_out:
                self.detach(volume, rows.pop(name))
                self.assertEqual(
                    {connectors[n]['nqn'] for n in rows if n != 'here'},
                    self.admitted(volume),
                )
                self.assertEqual(
                    [f'{volume.name}-rw'] if rows else [],
                    list(self.target.controllers()),
                )

    def admitted(self, volume: Any) -> set[str]:
        found = self.subsystem(volume) or {'hosts': []}
        return {host['nqn'] for host in found['hosts']}

    def test_the_namespace(self) -> None:
        volume = self.volume()
        row = self.attach(volume, fixture.remote(1))
        found = self.subsystem(volume)
        [space] = found['namespaces']
        self.assertEqual(
            (
                1,
                volume.id,
                volume.id.replace('-', '').upper(),
                self.of(volume)['name'],
            ),
            tuple(space[k] for k in ('nsid', 'uuid', 'nguid', 'bdev_name')),
        )
        self.assertEqual(volume.id[:20], found['serial_number'])
        self.assertFalse(found['allow_any_host'])
        self.assertEqual(3, len(found['listen_addresses']))
        self.detach(volume, row)

    def test_growing(self) -> None:
        volume = self.volume()
        row = self.attach(volume, fixture.remote(1))
        self.driver.extend_volume(volume, 2)
        self.assertEqual(2 * driver_case.GIB, self.size(volume))
        self.detach(volume, row)

    def test_deleting_what_a_lost_detach_left(self) -> None:
        volume = fixture.volume(self.pool)
        self.driver.create_volume(volume)
        self.driver.initialize_connection(volume, fixture.remote(1))
        self.driver.delete_volume(volume)
        self.assertIsNone(self.subsystem(volume))
        self.assertEqual({}, self.target.controllers())

    def test_limits_change_between_two_attachments(self) -> None:
        volume = self.volume()
        for iops in ('5000', '7000', '2000'):
            with fixture.type_with(qos={'total_iops_sec': iops}) as type_id:
                volume.volume_type_id = type_id
                row = self.attach(volume, fixture.remote(1))
                limits = self.of(volume)['assigned_rate_limits']
                self.assertEqual(int(iops), limits['rw_ios_per_sec'])
                self.detach(volume, row)
        volume.volume_type_id = None

    def test_a_snapshot(self) -> None:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        for connector in (fixture.remote(1), self.connector()):
            self.driver.initialize_connection_snapshot(snapshot, connector)
            self.assertEqual(
                [f'{snapshot.name}-ro'], list(self.target.controllers())
            )
            self.driver.terminate_connection_snapshot(snapshot, connector)
            self.driver.remove_export_snapshot(None, snapshot)
            self.assertIsNone(self.subsystem(snapshot))
            self.assertEqual({}, self.target.controllers())

    def test_deleting_a_snapshot_that_was_left_exported(self) -> None:
        volume = self.volume()
        snapshot = fixture.snapshot(volume)
        self.driver.create_snapshot(snapshot)
        self.driver.initialize_connection_snapshot(snapshot, fixture.remote(1))
        self.driver.delete_snapshot(snapshot)
        self.settle()
        self.assertIsNone(self.subsystem(snapshot))
        self.assertEqual([volume.name], self.names())

    def test_a_socket_that_would_come_too_late(self) -> None:
        volume = self.volume()
        row = self.attach(volume, fixture.remote(1))
        before = self.target.dump()
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.initialize_connection,
            volume,
            self.connector(mode='ro'),
        )
        self.assertIn(fixture.remote(1)['nqn'], str(error))
        self.assertEqual(before, self.target.dump())
        self.detach(volume, row)

    def test_somebody_elses_subsystem(self) -> None:
        volume = self.volume()
        nqn = names.subsystem(volume.name)
        self.target.rpc.call('nvmf_create_subsystem', nqn=nqn)
        self.addCleanup(self.target.rpc.call, 'nvmf_delete_subsystem', nqn=nqn)
        before = self.target.dump()
        for _ in range(2):
            error = self.assertRaises(
                exception.VolumeBackendAPIException,
                self.driver.initialize_connection,
                volume,
                fixture.remote(1),
            )
            self.assertIn(nqn, str(error))
        self.driver.terminate_connection(volume, fixture.remote(1))
        self.driver.remove_export(None, volume)
        self.assertEqual(before, self.target.dump())
