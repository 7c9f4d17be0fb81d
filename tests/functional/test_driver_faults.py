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

"""Every request of every flow fails in four ways, one at a time.

What failed must have left the target as it was; what succeeded in spite of
a lost answer must be whole; and what failed must work when asked again.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

from cinder import exception
import ddt

from cinder_spdk_vhost import names
from tests.fixtures import driver as fixture
from tests.fixtures import tap
from tests.fixtures import target as target_fixture
from tests.functional import driver_case

GIB = driver_case.GIB
FAULTS = {
    'error': tap.error,
    'drop_before': tap.drop_before,
    'drop_after': tap.drop_after,
    # Done, but the driver has given up when the answer comes.
    'late': lambda: tap.delay(1.5 * TIMEOUT),
}
TIMEOUT = 1.0
PORTALS = ['tcp://127.0.0.1:4420', 'tcp://[::1]:4420']
# These have minutes to answer, and are not late before.
PATIENT = ('bdev_lvol_delete', 'bdev_lvol_inflate', 'bdev_wait_for_examine')
# More requests than the longest flow sends.
MOST = 20


@dataclasses.dataclass
class Flow:
    """One operation, ready to be run.

    :ivar run: does it
    :ivar check: asserts that it is done, and whole
    """

    run: Callable[[], Any]
    check: Callable[[], None]


class _Flows(driver_case.DriverTestCase):
    """How each flow is prepared."""

    def create(self) -> Flow:
        volume = fixture.volume(self.pool)
        self.addCleanup(self.remove, volume)
        return Flow(
            lambda: self.driver.create_volume(volume),
            lambda: self.assertEqual(GIB, self.size(volume)),
        )

    def delete(self) -> Flow:
        volume = self.volume()
        return Flow(
            lambda: self.driver.delete_volume(volume),
            lambda: self.assertIsNone(self.lvol(volume.name)),
        )

    def extend(self) -> Flow:
        volume = self.volume()
        return Flow(
            lambda: self.driver.extend_volume(volume, 2),
            lambda: self.assertEqual(2 * GIB, self.size(volume)),
        )

    def create_snapshot(self) -> Flow:
        volume = self.volume()
        snapshot = fixture.snapshot(volume)
        self.addCleanup(self.remove_snapshot, snapshot)
        return Flow(
            lambda: self.driver.create_snapshot(snapshot),
            lambda: self.assertEqual(snapshot.name, self.parent(volume)),
        )

    def delete_snapshot(self) -> Flow:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        return Flow(
            lambda: self.driver.delete_snapshot(snapshot),
            lambda: self.assertEqual((None, None), self._merged(volume)),
        )

    def _merged(self, volume: Any) -> tuple[Any, Any]:
        """Nothing is left of its snapshot."""
        left = [n for n in self.names() if n.startswith(('snap', 'trash'))]
        return (self.parent(volume), left[0] if left else None)

    def delete_shared_snapshot(self) -> Flow:
        """One that a volume stands on beside its origin."""
        snapshot = self.snapshot(self.volume())
        volume = self.from_snapshot(snapshot)
        stone = f'trash-{snapshot.id}'
        return Flow(
            lambda: self.driver.delete_snapshot(snapshot),
            lambda: self.assertEqual(
                (snapshot.name, True),
                (self.parent(volume), self.lvol(stone) is not None),
            ),
        )

    def create_from_snapshot(self) -> Flow:
        snapshot = self.snapshot(self.volume())
        volume = fixture.volume(self.pool, 2)
        self.addCleanup(self.remove, volume)
        return Flow(
            lambda: self.driver.create_volume_from_snapshot(volume, snapshot),
            lambda: self.assertEqual(
                (2 * GIB, snapshot.name),
                (self.size(volume), self.parent(volume)),
            ),
        )

    def clone(self) -> Flow:
        source = self.volume()
        volume = fixture.volume(self.pool, 2)
        self.addCleanup(self.remove, volume)
        return Flow(
            lambda: self.driver.create_cloned_volume(volume, source),
            lambda: self.assertEqual(
                (2 * GIB, self.parent(source)),
                (self.size(volume), self.parent(volume)),
            ),
        )

    def revert(self) -> Flow:
        volume = self.volume()
        snapshot = self.snapshot(volume)
        self.driver.extend_volume(volume, 2)
        volume.size = 2
        before = self.of(volume)['uuid']

        def check() -> None:
            self.assertEqual(
                (2 * GIB, snapshot.name, sorted([volume.name, snapshot.name])),
                (self.size(volume), self.parent(volume), self.names()),
            )
            self.assertNotEqual(before, self.of(volume)['uuid'])

        return Flow(
            lambda: self.driver.revert_to_snapshot(None, volume, snapshot),
            check,
        )

    def attach(self) -> Flow:
        return self._attach(self.volume())

    def attach_with_other_limits(self) -> Flow:
        """Limits of an earlier attachment are in force on the idle volume."""
        volume = self.volume()
        with fixture.type_with(qos={'total_iops_sec': '7000'}) as type_id:
            volume.volume_type_id = type_id
            self.driver.initialize_connection(volume, self.connector())
            self.driver.terminate_connection(volume, self.connector())
        return self._attach(volume)

    def _attach(self, volume: Any) -> Flow:
        context = fixture.type_with(qos={'total_iops_sec': '2000'})
        volume.volume_type_id = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

        def check() -> None:
            controller = self.target.controllers()[f'{volume.name}-rw']
            block = controller['backend_specific']['block']
            self.assertEqual(self.of(volume)['name'], block['bdev'])
            limits = self.of(volume)['assigned_rate_limits']
            self.assertEqual(2000, limits['rw_ios_per_sec'])

        return Flow(
            lambda: self.driver.initialize_connection(
                volume, self.connector()
            ),
            check,
        )

    def attach_block_device(self) -> Flow:
        volume = self._without_device()
        context = fixture.type_with(qos={'total_iops_sec': '2000'})
        volume.volume_type_id = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)

        def check() -> None:
            self.assertEqual([self.of(volume)['name']], self.disks())
            limits = self.of(volume)['assigned_rate_limits']
            self.assertEqual(2000, limits['rw_ios_per_sec'])

        return Flow(
            lambda: self.driver.initialize_connection(
                volume, fixture.connector_of_this_host()
            ),
            check,
        )

    def detach_block_device(self) -> Flow:
        volume = self._without_device()
        here = fixture.connector_of_this_host()
        self.driver.initialize_connection(volume, here)
        return Flow(
            lambda: self.driver.terminate_connection(volume, here),
            lambda: self.assertEqual([], self.disks()),
        )

    def _without_device(self) -> Any:
        """A volume that can have a block device."""
        if reason := target_fixture.why_no_disks():
            self.skipTest(reason)
        return self.volume()

    def disks(self) -> list[str]:
        """The bdevs that are block devices."""
        return [disk['bdev_name'] for disk in self.target.disks()]

    def detach(self) -> Flow:
        volume = self.volume()
        self.driver.initialize_connection(volume, self.connector())
        return Flow(
            lambda: self.driver.terminate_connection(volume, self.connector()),
            lambda: self.assertNotIn(
                f'{volume.name}-rw', self.target.controllers()
            ),
        )

    def attach_remotely(self) -> Flow:
        volume = self.volume()
        context = fixture.type_with(qos={'total_iops_sec': '2000'})
        volume.volume_type_id = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return self._attach_remotely(volume, 1)

    def attach_remotely_with_other_limits(self) -> Flow:
        volume = self.volume()
        with fixture.type_with(qos={'total_iops_sec': '7000'}) as type_id:
            volume.volume_type_id = type_id
            self.driver.initialize_connection(volume, fixture.remote(1))
            self.driver.terminate_connection(volume, fixture.remote(1))
        context = fixture.type_with(qos={'total_iops_sec': '2000'})
        volume.volume_type_id = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return self._attach_remotely(volume, 1)

    def attach_second_host(self) -> Flow:
        volume = self.volume()
        self.driver.initialize_connection(volume, fixture.remote(2))
        return self._attach_remotely(volume, 1, 2)

    def _attach_remotely(self, volume: Any, *hosts: int) -> Flow:
        def check() -> None:
            found = self._subsystem(volume)
            self.assertEqual(_nqns(*hosts), {h['nqn'] for h in found['hosts']})
            [space] = found['namespaces']
            self.assertEqual(
                (volume.id, self.of(volume)['name']),
                (space['uuid'], space['bdev_name']),
            )
            self.assertEqual(len(PORTALS), len(found['listen_addresses']))
            self.assertIn(f'{volume.name}-rw', self.target.controllers())

        return Flow(
            lambda: self.driver.initialize_connection(
                volume, fixture.remote(hosts[0])
            ),
            check,
        )

    def detach_remotely(self) -> Flow:
        volume = self.volume()
        self.driver.initialize_connection(volume, fixture.remote(1))
        return Flow(
            lambda: self.driver.terminate_connection(
                volume, fixture.remote(1)
            ),
            lambda: self.assertEqual(
                (None, {}),
                (self._subsystem(volume), self.target.controllers()),
            ),
        )

    def detach_one_of_two_hosts(self) -> Flow:
        volume = self.volume()
        for number in (1, 2):
            self.driver.initialize_connection(volume, fixture.remote(number))

        def check() -> None:
            found = self._subsystem(volume)
            self.assertEqual(_nqns(2), {h['nqn'] for h in found['hosts']})
            self.assertIn(f'{volume.name}-rw', self.target.controllers())

        return Flow(
            lambda: self.driver.terminate_connection(
                volume, fixture.remote(1)
            ),
            check,
        )

    def _subsystem(self, volume: Any) -> Any:
        return self.target.dump()['subsystems'].get(
            names.subsystem(volume.name)
        )


def _nqns(*hosts: int) -> set[str]:
    return {fixture.remote(number)['nqn'] for number in hosts}


FLOWS = (
    'create',
    'delete',
    'extend',
    'create_snapshot',
    'delete_snapshot',
    'delete_shared_snapshot',
    'create_from_snapshot',
    'clone',
    'revert',
    'attach',
    'attach_with_other_limits',
    'attach_block_device',
    'detach_block_device',
    'detach',
    'attach_remotely',
    'attach_remotely_with_other_limits',
    'attach_second_host',
    'detach_remotely',
    'detach_one_of_two_hosts',
)


@ddt.ddt
class TestFaults(_Flows):
    """In pools that read zeros after unmap: volumes are thin."""

    zeroing = True
    options = {'spdk_rpc_timeout': TIMEOUT, 'spdk_nvmf_portals': PORTALS}
    faults = tuple(FAULTS)

    @ddt.data(*FLOWS)
    def test_each_request_fails(self, name: str) -> None:
        hit = 0
        for fault in self.faults:
            for nth in range(1, MOST):
                with self.subTest(fault=fault, request=nth):
                    if not self._fails_at(name, fault, nth):
                        break
                    hit += 1
            else:
                self.fail(f'{name} sends more than {MOST} requests')
        self.assertGreaterEqual(hit, 3)

    def _fails_at(self, name: str, fault: str, nth: int) -> bool:
        """Run a flow; whether it sent so many requests at all."""
        flow: Flow = getattr(self, name)()
        self.settle()
        before = self.target.dump()
        rule = self.tap.inject(
            FAULTS[fault](),
            nth=nth,
            when=lambda e: fault != 'late' or e.method not in PATIENT,
        )
        try:
            flow.run()
            failed = None
        except exception.CinderException as e:
            failed = e
        foreground = bool(rule.fired)
        self.tap.heal()
        self.sweep()
        if failed is not None:
            self.assertTrue(foreground, failed)
            self.assertEqual(before, self.target.dump(), failed)
            flow.run()
            self.settle()
        flow.check()
        self.doCleanups_of_flow()
        return foreground

    def doCleanups_of_flow(self) -> None:
        """Remove what this run made; keep what the test itself made."""
        self.tap.heal()
        while len(self._cleanups) > self._kept:
            function, args, kwargs = self._cleanups.pop()
            function(*args, **kwargs)
        self.check_clean()

    def setUp(self) -> None:
        super().setUp()
        self._kept = len(self._cleanups)


class TestFaultsThick(TestFaults):
    """In pools that don't: volumes are thick and deleted with zeros."""

    zeroing = False
    faults = ('error', 'drop_before', 'drop_after')
