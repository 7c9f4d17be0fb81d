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

from typing import Any
from unittest import mock

import ddt
from oslotest import base as test_base

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import base, block, nvmeof, portals, vhost_user
from cinder_spdk_vhost.operations import janitor
from cinder_spdk_vhost.spdk import qos
from tests.unit import locking, scripted
from tests.unit.export import nvme_hosts

VOLUME, PATH, BDEV = nvme_hosts.VOLUME, nvme_hosts.PATH, nvme_hosts.BDEV
NQN, ID = nvme_hosts.NQN, nvme_hosts.ID
CONTROLLER = f'{VOLUME}-rw'
UNLIMITED = qos.RateLimits()
LIMITED = qos.RateLimits(rw_ios_per_sec=2000)
PORTALS = portals.parse(['tcp://192.0.2.5:4420', 'tcp://[2001:db8::5]:4421'])
ONE, TWO = nvme_hosts.nqn(1), nvme_hosts.nqn(2)
LOOK = [
    'bdev_get_bdevs',
    'vhost_get_controllers',
    'nvmf_get_subsystems',
    'nvmf_get_transports',
]
CHECK = ['bdev_get_bdevs', 'nvmf_get_subsystems']


class TestCase(test_base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        patch = mock.patch('time.sleep')
        self.sleep = patch.start()
        self.addCleanup(patch.stop)
        self.host = nvme_hosts.NvmeHost()
        self.janitor = janitor.Janitor(lambda: None, 1e6)
        self.target = scripted.target(self.host)
        self.sockets = vhost_user.VhostUser(self.target, self.janitor)
        self.exports = self.make(PORTALS)

    def make(self, where: Any) -> nvmeof.NvmeOf:
        return nvmeof.NvmeOf(self.target, self.janitor, self.sockets, where)

    def wanted(
        self, limits: qos.RateLimits = UNLIMITED, mode: str = 'rw'
    ) -> base.Wanted:
        return base.Wanted(
            'P', self.host.path.partition('/')[2], mode, limits, False, True
        )

    def attach(self, nqn: str = ONE, **changes: Any) -> nvmeof.Export:
        return self.exports.attach(
            self.wanted(**changes), nvmeof.Host(nqn, 'compute-1')
        )

    def detach(self, nqn: str = ONE, **changes: Any) -> bool:
        return self.exports.detach(
            VOLUME, nqn, **{'force': False, 'keep_socket': False, **changes}
        )

    def trips(self, before: int = 0) -> list[list[str]]:
        return [[m for m, _ in trip] for trip in self.host.trips[before:]]

    def connect(self, *hosts: str) -> None:
        self.host.connected[NQN][:] = hosts


@ddt.ddt
class Attaching(TestCase):
    def test_what_a_host_is_told(self) -> None:
        self.assertEqual(
            nvmeof.Export(NQN, ID, PORTALS, LIMITED),
            self.attach(limits=LIMITED),
        )

    def test_what_is_made(self) -> None:
        self.attach()
        found = dict(self.host.exported)
        for key in ('hosts', 'listen_addresses', 'namespaces'):
            found[key] = list(found[key])
        self.assertEqual(
            {
                'nqn': NQN,
                'serial_number': ID[:20],
                'model_number': 'cinder-spdk-vhost',
                'ana': True,
                'max_namespaces': 1,
                'allow_any_host': False,
                'hosts': [{'nqn': ONE}],
                'listen_addresses': [
                    {
                        'trtype': 'TCP',
                        'adrfam': 'IPv6',
                        'traddr': '2001:db8::5',
                        'trsvcid': '4421',
                    },
                    {
                        'trtype': 'TCP',
                        'adrfam': 'IPv4',
                        'traddr': '192.0.2.5',
                        'trsvcid': '4420',
                    },
                ],
                'namespaces': [
                    {
                        'nsid': 1,
                        'bdev_name': BDEV,
                        'uuid': ID,
                        'nguid': ID.replace('-', '').upper(),
                    }
                ],
            },
            found,
        )

    def test_order(self) -> None:
        self.attach(limits=LIMITED)
        self.assertEqual(
            [
                LOOK,
                [
                    'vhost_create_blk_controller',
                    'nvmf_create_subsystem',
                    'bdev_set_qos_limit',
                ],
                [
                    'nvmf_subsystem_add_ns',
                    'nvmf_subsystem_add_listener',
                    'nvmf_subsystem_add_listener',
                    'nvmf_subsystem_add_host',
                ],
                CHECK,
            ],
            self.trips(),
        )

    def test_a_second_host(self) -> None:
        self.attach()
        before = len(self.host.trips)
        self.attach(TWO)
        self.assertEqual(
            [LOOK, ['nvmf_subsystem_add_host'], CHECK], self.trips(before)
        )
        self.assertEqual([TWO, ONE], self.host.admitted)

    def test_again_changes_nothing(self) -> None:
        first = self.attach(limits=LIMITED)
        before = len(self.host.trips)
        self.assertEqual(first, self.attach(limits=LIMITED))
        self.assertEqual([LOOK, CHECK], self.trips(before))

    def test_other_limits_on_an_idle_volume(self) -> None:
        """They are in force before anybody can connect."""
        self.host.limits = qos.RateLimits(1000).as_dict()
        self.attach(limits=LIMITED)
        self.assertEqual(LIMITED.as_dict(), self.host.limits)
        self.assertEqual(5, len(self.host.trips))
        self.assertEqual(
            ['bdev_set_qos_limit', 'nvmf_subsystem_add_host'], self.trips()[3]
        )

    def test_other_limits_on_an_exported_volume(self) -> None:
        self.attach()
        before = len(self.host.trips)
        self.attach(TWO, limits=LIMITED)
        self.assertEqual(3, len(self.host.trips) - before)
        self.assertEqual(LIMITED.as_dict(), self.host.limits)

    def test_no_controller_can_be_made_any_more(self) -> None:
        """Somebody removed the placeholder; other hosts need none."""
        self.attach()
        self.host.controllers.clear()
        self.attach(TWO)
        self.assertEqual({}, self.host.controllers)

    def test_a_controller_that_is_there_will_do(self) -> None:
        self.sockets.attach(self.wanted())
        before = len(self.host.trips)
        self.attach()
        self.assertEqual(['nvmf_create_subsystem'], self.trips(before)[1])

    def test_a_controller_of_something_else(self) -> None:
        self.host.controllers[CONTROLLER] = scripted.controller(
            CONTROLLER, 'other'
        )
        self.assertRaises(exceptions.Conflict, self.attach)
        self.assertIsNone(self.host.exported)

    def test_half_of_an_earlier_life(self) -> None:
        self.attach()
        self.host.remove_namespace({'nqn': NQN})
        self.attach(TWO)
        self.assertEqual([TWO, ONE], self.host.admitted)
        self.assertEqual(1, len(self.host.exported['namespaces']))

    def test_a_portal_that_was_added(self) -> None:
        self.exports = self.make(PORTALS[:1])
        self.attach()
        self.exports = self.make(PORTALS)
        self.attach()
        self.assertEqual(2, len(self.host.exported['listen_addresses']))

    def test_the_first_one_makes_the_transport(self) -> None:
        self.host.transports.clear()
        self.attach()
        self.attach(TWO)
        self.assertEqual(['TCP'], self.host.transports)

    def test_a_transport_that_spdk_does_not_have(self) -> None:
        self.exports = self.make(portals.parse(['rdma://192.0.2.5:4420']))
        said = str(self.assertRaises(exceptions.Conflict, self.attach))
        for part in ('spdk_nvmf_portals', 'rdma', scripted.URL):
            self.assertIn(part, said)
        self.assertIsNone(self.host.exported)

    def test_no_room_for_a_subsystem(self) -> None:
        self.host.others = 1024
        said = str(self.assertRaises(exceptions.Conflict, self.attach))
        for part in (scripted.URL, '1024', 'nvmf_set_max_subsystems'):
            self.assertIn(part, said)
        self.assertEqual({}, self.host.controllers)

    def test_refused_for_another_reason(self) -> None:
        self.host.answers['nvmf_create_subsystem'] = nvme_hosts.INTERNAL
        self.assertRaises(rpc.TargetError, self.attach)
        self.assertEqual({}, self.host.controllers)

    def test_claimed_by_somebody_else(self) -> None:
        self.host.claimed = True
        said = str(self.assertRaises(exceptions.Conflict, self.attach))
        for part in (PATH, 'exclusive_write', 'somebody else'):
            self.assertIn(part, said)
        self.assertEqual({}, self.host.subsystems)

    @ddt.data(
        {'serial_number': 'other'},
        {'model_number': 'other'},
        {'namespaces': [{'nsid': 1, 'bdev_name': 'other', 'uuid': ID}]},
        {'namespaces': [{'nsid': 2, 'bdev_name': BDEV, 'uuid': ID}]},
        {'namespaces': [{'nsid': 1, 'bdev_name': BDEV, 'uuid': 'other'}]},
        {'allow_any_host': True},
    )
    def test_a_subsystem_that_is_not_ours(self, changes) -> None:
        self.attach()
        self.host.exported.update(changes)
        before = dict(self.host.exported)
        sent = len(self.host.sent)
        said = str(self.assertRaises(exceptions.Conflict, self.attach, TWO))
        self.assertIn(NQN, said)
        self.assertEqual(before, self.host.exported)
        for method, _ in self.host.sent[sent:]:
            self.assertIn(method, ('nvmf_delete_subsystem', *LOOK))

    def test_a_volume_whose_id_is_no_uuid(self) -> None:
        self.host.path = 'P/volume-1'
        self.assertRaises(exceptions.InvalidName, self.attach)
        self.assertEqual([], self.host.sent)

    def test_no_such_volume(self) -> None:
        self.host.answers['bdev_get_bdevs'] = scripted.NOT_FOUND
        self.assertRaises(exceptions.Conflict, self.attach)

    def test_a_snapshot(self) -> None:
        self.host.path = f'P/snapshot-{ID}'
        said = str(
            self.assertRaises(exceptions.Conflict, self.attach, mode='ro')
        )
        self.assertIn('takes writes', said)
        self.host.answers['bdev_get_bdevs'] = lambda _: scripted.lvol(
            self.host.path,
            claimed=self.host.claimed,
            supported_io_types={'write': False, 'unmap': False},
        )
        self.attach(mode='ro')
        [controller] = self.host.controllers
        self.assertEqual(f'snapshot-{ID}-ro', controller)


@ddt.ddt
class Failing(TestCase):
    """Each request of an attachment fails, in each way that it can."""

    METHODS = (
        'vhost_create_blk_controller',
        'nvmf_create_subsystem',
        'bdev_set_qos_limit',
        'nvmf_subsystem_add_ns',
        'nvmf_subsystem_add_listener',
        'nvmf_subsystem_add_host',
    )

    def _fail(self, method: str, error: Exception, done: bool) -> None:
        does = self.host.answers[method]

        def answer(params: Any) -> Any:
            self.host.answers[method] = does
            if done:
                does(params)
            raise error

        self.host.answers[method] = answer

    @ddt.data(*METHODS)
    def test_refused(self, method: str) -> None:
        self._fail(method, nvme_hosts.INTERNAL, done=False)
        self.assertRaises(rpc.RPCError, self.attach, limits=LIMITED)
        self._check_gone()
        self.attach(limits=LIMITED)

    @ddt.data(*METHODS)
    def test_lost(self, method: str) -> None:
        self._fail(method, scripted.Lost(), done=False)
        self.assertRaises(rpc.OutcomeUnknown, self.attach, limits=LIMITED)
        self._check_gone()

    @ddt.data(*METHODS)
    def test_lost_and_done(self, method: str) -> None:
        self._fail(method, scripted.Lost(), done=True)
        self.attach(limits=LIMITED)
        self.assertEqual([ONE], self.host.admitted)
        self.assertEqual(2, len(self.host.exported['listen_addresses']))

    def _check_gone(self) -> None:
        self.assertEqual({}, self.host.subsystems)
        self.assertEqual({}, self.host.controllers)
        self.assertFalse(any(self.host.limits.values()))
        self.assertEqual([], self.janitor.pending())

    @ddt.data('nvmf_subsystem_add_host', 'bdev_set_qos_limit')
    def test_of_a_second_host(self, method: str) -> None:
        self.attach()
        before = repr(self.host.subsystems)
        self._fail(method, nvme_hosts.INTERNAL, done=False)
        self.assertRaises(rpc.RPCError, self.attach, TWO, limits=LIMITED)
        self.assertEqual(before, repr(self.host.subsystems))
        self.assertEqual([CONTROLLER], list(self.host.controllers))

    def test_limits_that_are_not_in_force(self) -> None:
        self.host.answers['bdev_set_qos_limit'] = True
        self.assertRaises(exceptions.Conflict, self.attach, limits=LIMITED)
        self._check_gone()

    def test_namespace_of_a_subsystem_that_was_there(self) -> None:
        self.attach()
        self.host.remove_namespace({'nqn': NQN})
        self._fail('nvmf_subsystem_add_host', nvme_hosts.INTERNAL, done=False)
        self.assertRaises(rpc.RPCError, self.attach, TWO)
        self.assertEqual([], self.host.exported['namespaces'])
        self.assertEqual([ONE], self.host.admitted)

    def test_undoing_is_left_to_the_janitor(self) -> None:
        """The placeholder outlives the namespace there, too."""
        self._fail('nvmf_subsystem_add_host', nvme_hosts.INTERNAL, done=False)
        self.host.answers['nvmf_delete_subsystem'] = scripted.Away()
        self.assertRaises(rpc.RPCError, self.attach)
        self.assertEqual([CONTROLLER], list(self.host.controllers))
        self.assertEqual(2, len(self.janitor.pending()))
        self.host.answers['nvmf_delete_subsystem'] = self.host.delete_subsystem
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        for _ in range(2):
            self.janitor.sweep()
            self.assertTrue(self.janitor.wait_idle(20))
        self._check_gone()

    def test_a_host_that_could_not_be_shut_out_is_later(self) -> None:
        """Even if another host has the volume by then."""
        self.attach()
        self.host.answers['bdev_get_bdevs'] = scripted.in_turn(
            lambda _: self.host.lvol(),
            scripted.NOT_FOUND,
            lambda _: self.host.lvol(),
        )
        self.host.answers['nvmf_subsystem_remove_host'] = scripted.Away()
        self.assertRaises(exceptions.Conflict, self.attach, TWO)
        self.assertEqual([TWO, ONE], self.host.admitted)
        self.host.answers['nvmf_subsystem_remove_host'] = self.host.remove_host
        self.attach(nvme_hosts.nqn(3))
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        self.janitor.sweep()
        self.assertTrue(self.janitor.wait_idle(20))
        self.assertEqual([nvme_hosts.nqn(3), ONE], self.host.admitted)


@ddt.ddt
class Detaching(TestCase):
    def test_the_last(self) -> None:
        self.attach()
        before = len(self.host.trips)
        self.assertTrue(self.detach())
        self.assertEqual({}, self.host.subsystems)
        self.assertEqual({}, self.host.controllers)
        self.assertEqual(3, len(self.host.trips) - before)

    def test_one_of_two(self) -> None:
        self.attach()
        self.attach(TWO)
        self.connect(TWO)
        before = len(self.host.trips)
        self.assertTrue(self.detach())
        self.assertEqual([TWO], self.host.admitted)
        self.assertEqual([CONTROLLER], list(self.host.controllers))
        self.assertEqual(2, len(self.host.trips) - before)

    def test_one_that_is_not_on_the_list(self) -> None:
        self.attach()
        self.assertFalse(self.detach(TWO))
        self.assertEqual([ONE], self.host.admitted)

    def test_nothing_there(self) -> None:
        self.assertFalse(self.detach())
        self.assertEqual(1, len(self.host.trips))

    def test_connected(self) -> None:
        self.attach()
        self.attach(TWO)
        self.connect(ONE)
        said = str(self.assertRaises(exceptions.InUse, self.detach))
        for part in (ONE, NQN):
            self.assertIn(part, said)
        self.assertEqual([TWO, ONE], self.host.admitted)
        self.assertEqual(
            [mock.call(0.2)] * 3, self.sleep.call_args_list, 'about 0.6 s'
        )
        self.assertTrue(self.detach(TWO))

    @ddt.data(1, 2)
    def test_connected_and_forced(self, hosts: int) -> None:
        self.attach()
        self.connect(ONE)
        if hosts == 2:
            self.attach(TWO)
        self.assertTrue(self.detach(force=True))
        self.sleep.assert_not_called()
        self.assertEqual(
            [TWO] if hosts == 2 else None,
            self.host.admitted if self.host.exported else None,
        )

    def test_leaving(self) -> None:
        self.attach()
        self.connect(ONE)
        self.sleep.side_effect = lambda _: self.connect()
        self.assertTrue(self.detach())
        self.assertEqual(1, self.sleep.call_count)

    def test_the_socket_stays_for_a_guest_that_has_it(self) -> None:
        self.attach()
        [found] = self.host.controllers[CONTROLLER]
        found['sessions'] = [{'id': 1, 'started': True}]
        self.detach()
        self.assertEqual([CONTROLLER], list(self.host.controllers))

    def test_the_socket_stays_for_a_guest_to_come(self) -> None:
        self.attach()
        self.detach(keep_socket=True)
        self.assertEqual([CONTROLLER], list(self.host.controllers))

    def _socket_cannot_go(self) -> None:
        self.attach()
        self.host.answers['vhost_delete_controller'] = nvme_hosts.INTERNAL
        self.assertTrue(self.detach())
        self.assertEqual({}, self.host.subsystems)
        self.host.answers['vhost_delete_controller'] = self.host.delete

    def test_the_socket_goes_later(self) -> None:
        self._socket_cannot_go()
        self.janitor.start()
        self.addCleanup(self.janitor.stop)
        self.janitor.sweep()
        self.assertTrue(self.janitor.wait_idle(20))
        self.assertEqual({}, self.host.controllers)

    def test_the_socket_goes_the_second_time(self) -> None:
        self._socket_cannot_go()
        self.assertFalse(self.detach())
        self.assertEqual({}, self.host.controllers)

    def test_the_socket_stays_for_who_comes_before_it_could_go(self) -> None:
        self._socket_cannot_go()
        self.sockets.attach(self.wanted())
        self.assertEqual([], self.janitor.pending())

    def test_somebody_elses(self) -> None:
        self.attach()
        self.host.exported['serial_number'] = 'other'
        self.assertFalse(self.detach())
        self.exports.detach_all(VOLUME, force=True)
        self.assertEqual([ONE], self.host.admitted)

    def test_a_subsystem_without_hosts(self) -> None:
        self.attach()
        self.host.exported['hosts'].clear()
        self.assertFalse(self.detach())
        self.assertEqual({}, self.host.subsystems)

    @ddt.data(True, False)
    def test_everybody(self, force: bool) -> None:
        self.attach()
        self.attach(TWO)
        self.exports.detach_all(VOLUME, force=force)
        self.assertEqual({}, self.host.subsystems)

    def test_everybody_while_some_are_connected(self) -> None:
        self.attach()
        self.connect(ONE)
        self.assertRaises(
            exceptions.InUse, self.exports.detach_all, VOLUME, force=False
        )
        self.exports.detach_all(VOLUME, force=True)
        self.assertEqual({}, self.host.subsystems)

    @ddt.data('nvmf_subsystem_remove_host', 'nvmf_delete_subsystem')
    def test_lost(self, method: str) -> None:
        self.attach()
        if method == 'nvmf_subsystem_remove_host':
            self.attach(TWO)
        does = self.host.answers[method]

        def answer(params: Any) -> Any:
            does(params)
            raise scripted.Lost

        self.host.answers[method] = answer
        self.assertTrue(self.detach())


class Sockets(TestCase):
    """A guest on the target's host beside hosts elsewhere."""

    def _attach(self, mode: str = 'rw') -> vhost_user.Export:
        return self.sockets.attach(self.wanted(mode=mode))

    def test_after_another_host(self) -> None:
        self.attach()
        before = len(self.host.trips)
        self.assertEqual(CONTROLLER, self._attach().controller)
        self.assertEqual(2, len(self.host.trips) - before)

    def test_it_stays_beside_a_namespace(self) -> None:
        self.attach()
        self._attach()
        for force in (False, True):
            self.sockets.detach(VOLUME, 'rw', force)
        self.assertEqual([CONTROLLER], list(self.host.controllers))
        self.detach()
        self.assertEqual({}, self.host.controllers)

    def test_that_of_the_other_mode_goes(self) -> None:
        self._attach('ro')
        self.attach()
        self.sockets.detach(VOLUME, 'ro', False)
        self.assertEqual([CONTROLLER], list(self.host.controllers))

    def test_one_that_cannot_be_made_any_more(self) -> None:
        self.attach()
        said = str(self.assertRaises(exceptions.Conflict, self._attach, 'ro'))
        for part in (PATH, 'NVMe-oF', ONE):
            self.assertIn(part, said)
        self.assertEqual([CONTROLLER], list(self.host.controllers))

    def test_a_block_device(self) -> None:
        self.attach()
        devices = block.Block(self.target, self.janitor)
        said = str(
            self.assertRaises(
                exceptions.Conflict, devices.attach, self.wanted()
            )
        )
        self.assertIn('NVMe-oF', said)
        self.assertEqual([ONE], self.host.admitted)

    def test_a_scratch_subsystem_that_was_left(self) -> None:
        self.host.create_subsystem(
            {'nqn': names.scratch_subsystem(VOLUME), 'max_namespaces': 1}
        )
        self.host.add_namespace(
            {
                'nqn': names.scratch_subsystem(VOLUME),
                'namespace': {'bdev_name': PATH},
            }
        )
        self.attach()
        self.assertEqual([NQN], list(self.host.subsystems))
