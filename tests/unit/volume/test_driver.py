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

from cinder import context
from cinder import exception as cinder_exception
import ddt
from hypothesis import given
from oslotest import base

from cinder_spdk_vhost import exceptions, rpc
from cinder_spdk_vhost.volume import driver, setup
from tests.fixtures import driver as fixture
from tests.unit import locking, scripted
from tests.unit.volume import test_connectors

BUSY = cinder_exception.VolumeIsBusy(volume_name='v')


@ddt.ddt
class Reported(base.BaseTestCase):
    def _raised(self, error: Exception, busy: Any = None) -> Exception:
        try:
            with driver._reported('doing it', busy):
                raise error
        except Exception as e:
            return e

    @ddt.data(
        (exceptions.InUse('x'), None, 'VolumeBackendAPIException'),
        (exceptions.InUse('x'), BUSY, 'VolumeIsBusy'),
        (exceptions.InvalidSpec('x'), BUSY, 'InvalidVolumeType'),
        (exceptions.InvalidName('x'), BUSY, 'VolumeBackendAPIException'),
        (exceptions.Conflict('x'), BUSY, 'VolumeBackendAPIException'),
        (exceptions.PoolDown('x'), BUSY, 'VolumeBackendAPIException'),
        (exceptions.Postponed('x'), BUSY, 'VolumeBackendAPIException'),
        (rpc.NoSpace('m', -28, 'x'), BUSY, 'VolumeBackendAPIException'),
        (rpc.Busy('m', -16, 'x'), BUSY, 'VolumeBackendAPIException'),
        (rpc.OutcomeUnknown('m', 'x'), BUSY, 'VolumeBackendAPIException'),
        (rpc.ConnectionFailed('m', 'x'), BUSY, 'VolumeBackendAPIException'),
    )
    @ddt.unpack
    def test_translation(self, error, busy, kind: str) -> None:
        raised = self._raised(error, busy)
        self.assertEqual(kind, type(raised).__name__)
        self.assertIs(error, raised.__cause__)
        if raised is not BUSY:
            self.assertIn('doing it', str(raised))
            self.assertIn('x', str(raised))

    def test_steps_are_named(self) -> None:
        error = exceptions.Conflict('why')
        error.add_note('make the socket')
        self.assertIn(
            'doing it: make the socket: why', str(self._raised(error))
        )

    def test_why_it_is_busy_is_logged(self) -> None:
        logged = self.useFixture(scripted.Logged())
        self._raised(exceptions.InUse('a guest has it'), BUSY)
        [text] = logged.at('WARNING')
        self.assertIn('a guest has it', text)

    @ddt.data(ValueError('a bug'), BUSY)
    def test_others_pass(self, error: Exception) -> None:
        self.assertIs(error, self._raised(error))

    def test_nothing_raised(self) -> None:
        with driver._reported('doing it', BUSY):
            pass


class TestCase(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.logged = self.useFixture(scripted.Logged())
        self.script = scripted.Script(
            spdk_get_version={
                'version': 'SPDK v26.05',
                'fields': {'major': 26, 'minor': 5},
            },
            rpc_get_methods=sorted(setup.REQUIRED_METHODS),
            bdev_lvol_get_lvstores=[scripted.store('P')],
            bdev_lvol_get_lvols=[],
            bdev_get_bdevs=scripted.named(
                {'base-of-P': scripted.bdev('base-of-P')}
            ),
            vhost_get_controllers=scripted.NOT_FOUND,
        )

    def new(self, **options: Any) -> driver.SPDKVhostDriver:
        made = fixture.make_driver(scripted.URL, **options)
        with mock.patch.object(
            setup,
            'open_target',
            lambda conf: scripted.target(self.script),
        ):
            made.do_setup(context.get_admin_context())
        self.addCleanup(made._janitor.stop)
        return made

    def started(self, **options: Any) -> driver.SPDKVhostDriver:
        made = self.new(**options)
        # What they do would come in between.
        with (
            mock.patch.object(made._janitor, 'start'),
            mock.patch.object(made._restorer, 'start'),
        ):
            made.check_for_setup_error()
        return made

    def away(self) -> None:
        for method in self.script.answers:
            self.script.answers[method] = scripted.Away()


class Starting(TestCase):
    def test_bad_options(self) -> None:
        made = fixture.make_driver('ftp://nowhere')
        error = self.assertRaises(
            cinder_exception.VolumeDriverException,
            made.do_setup,
            context.get_admin_context(),
        )
        self.assertIn('spdk_rpc_url', str(error))

    def test_spdk_that_lacks_something(self) -> None:
        self.script.answers['rpc_get_methods'] = ['spdk_get_version']
        error = self.assertRaises(
            cinder_exception.VolumeBackendAPIException,
            self.new().check_for_setup_error,
        )
        self.assertIn('vhost_create_blk_controller', str(error))

    def test_target_away(self) -> None:
        here = dict(self.script.answers)
        self.away()
        made = self.started(spdk_pools=['P'])
        [pool] = made.get_volume_stats(refresh=True)['pools']
        self.assertEqual('down', pool['backend_state'])
        self.script.answers.update(here)
        [pool] = made.get_volume_stats(refresh=True)['pools']
        self.assertEqual('up', pool['backend_state'])
        self.assertIn('rpc_get_methods', self.script.methods)

    def test_stats(self) -> None:
        stats = self.started(
            reserved_percentage=7, max_over_subscription_ratio='3.5'
        ).get_volume_stats(refresh=True)
        self.assertEqual('NVMe-TCP', stats['storage_protocol'])
        self.assertFalse(stats['shared_targets'])
        [pool] = stats['pools']
        self.assertEqual(7, pool['reserved_percentage'])
        self.assertEqual(3.5, pool['max_over_subscription_ratio'])


class Connections(TestCase):
    @given(test_connectors.FORGED | test_connectors.JSON)
    def _forged(self, forged: Any) -> None:
        volume = fixture.volume('P')
        for call, kind in (
            (
                lambda: self.made.validate_connector(forged),
                cinder_exception.InvalidConnectorException,
            ),
            (
                lambda: self.made.initialize_connection(volume, forged),
                cinder_exception.VolumeBackendAPIException,
            ),
        ):
            self.assertRaises(kind, call)

    def test_forged_connectors(self) -> None:
        self.made = self.started()
        before = len(self.script.sent)
        self._forged()
        # To look whether a pool has come up is all that may be sent.
        sent = {method for method, _ in self.script.sent[before:]}
        self.assertLessEqual(
            sent, {'bdev_lvol_get_lvstores', 'framework_get_reactors'}
        )

    def test_valid_connector(self) -> None:
        made = self.started()
        made.validate_connector(fixture.connector(['uuid-of-P']))
        error = self.assertRaises(
            cinder_exception.InvalidConnectorException,
            made.validate_connector,
            fixture.connector(['another']),
        )
        self.assertIn('storage-1', str(error))

    def test_export_is_kept_while_anybody_is_attached(self) -> None:
        made = self.started()
        volume = fixture.volume('P')
        before = len(self.script.sent)
        row = fixture.attach(volume, None)
        made.remove_export(context.get_admin_context(), volume)
        self.assertEqual([], self.script.sent[before:])
        volume.volume_attachment.objects.remove(row)
        made.remove_export(context.get_admin_context(), volume)
        [trip] = self.script.trips[-1:]
        self.assertEqual(
            {
                'bdev_get_bdevs',
                'nvmf_get_subsystems',
                'nvmf_subsystem_get_controllers',
                'vhost_get_controllers',
                'nbd_get_disks',
                'ublk_get_disks',
            },
            {method for method, _ in trip},
        )

    def test_detaching_one_of_two(self) -> None:
        made = self.started()
        volume = fixture.volume('P')
        connector = fixture.connector(['uuid-of-P'])
        fixture.attach(volume, connector)
        other = fixture.attach(volume, connector)
        before = len(self.script.sent)
        self.assertTrue(made.terminate_connection(volume, connector))
        self.assertEqual([], self.script.sent[before:])
        other.connector = fixture.connector(['uuid-of-P'], 'ro')
        self.assertFalse(made.terminate_connection(volume, connector))
        self.assertIn(
            ('vhost_get_controllers', {'name': f'volume-{volume.id}-rw'}),
            self.script.sent[before:],
        )
        self.assertNotIn(
            ('vhost_get_controllers', {'name': f'volume-{volume.id}-ro'}),
            self.script.sent[before:],
        )

    def test_detaching_everybody(self) -> None:
        made = self.started()
        volume = fixture.volume('P')
        before = len(self.script.sent)
        self.assertFalse(made.terminate_connection(volume, None, force=True))
        self.assertEqual(
            {f'volume-{volume.id}-rw', f'volume-{volume.id}-ro'},
            {
                params['name']
                for method, params in self.script.sent[before:]
                if method == 'vhost_get_controllers'
            },
        )
        self.assertIn('nbd_get_disks', self.script.methods[before:])


class BadInput(TestCase):
    def _refused(self, call: Any, *args: Any) -> str:
        before = len(self.script.sent)
        error = self.assertRaises(
            cinder_exception.VolumeBackendAPIException, call, *args
        )
        for method, _ in self.script.sent[before:]:
            self.assertIn('_get_', method)
        return str(error)

    def test_sizes(self) -> None:
        made = self.started()
        for size in (0, -1, 2**40):
            said = self._refused(made.create_volume, fixture.volume('P', size))
            self.assertIn(str(size), said)
            said = self._refused(made.extend_volume, fixture.volume('P'), size)
            self.assertIn(str(size), said)

    def test_unknown_pool(self) -> None:
        made = self.started()
        said = self._refused(made.create_volume, fixture.volume('nowhere'))
        for part in ('"nowhere"', 'available: P'):
            self.assertIn(part, said)

    def test_name_over_the_limit(self) -> None:
        made = self.started()
        said = self._refused(
            made.create_volume, fixture.volume('P', _name_id='x' * 60)
        )
        self.assertIn('63', said)

    def test_shrinking(self) -> None:
        made = self.started()
        volume = fixture.volume('P', 4)
        self.script.answers['bdev_get_bdevs'] = scripted.lvol(
            f'P/volume-{volume.id}', 4
        )
        said = self._refused(made.extend_volume, volume, 3)
        self.assertIn('only grow', said)

    def test_clone_smaller_than_its_source(self) -> None:
        made = self.started()
        source = fixture.volume('P', 2)
        said = self._refused(
            made.create_cloned_volume, fixture.volume('P', 1), source
        )
        self.assertIn('1 GiB', said)
        said = self._refused(
            made.create_volume_from_snapshot,
            fixture.volume('P', 1),
            fixture.snapshot(source),
        )
        self.assertIn('1 GiB', said)
