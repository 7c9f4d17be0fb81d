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

import ddt
from oslotest import base

from cinder_spdk_vhost import rpc
from cinder_spdk_vhost.spdk import bdev, lvol, nbd, ublk, vhost
from tests.unit import scripted

DELETE = lvol.delete('P/volume-1', 0)
RESIZE = lvol.resize('P/volume-2', 1024)


class Look:
    """The look whether a mutation was done."""

    def __init__(self, finds: Any) -> None:
        self._finds = finds
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        if isinstance(self._finds, Exception):
            raise self._finds
        return self._finds


@ddt.ddt
class Settle(base.BaseTestCase):
    def _settle(self, answer: Any, look: Look) -> scripted.Script:
        script = scripted.Script(bdev_lvol_delete=answer)
        self.target = scripted.target(script)
        try:
            self.error = None
            self.target.settle(DELETE, look)
        except rpc.RPCError as e:
            self.error = e
        return script

    def test_answered(self) -> None:
        look = Look(False)
        script = self._settle(True, look)
        self.assertIsNone(self.error)
        self.assertEqual((1, 0), (len(script.trips), look.times))

    @ddt.data(
        (scripted.NOT_FOUND, rpc.NotFound),
        (scripted.Refused('Device or resource busy'), rpc.Busy),
        (scripted.Away(), rpc.ConnectionFailed),
    )
    @ddt.unpack
    def test_refused_needs_no_look(self, answer, kind) -> None:
        look = Look(True)
        self._settle(answer, look)
        self.assertIs(kind, type(self.error))
        self.assertEqual(0, look.times)

    def test_answer_lost_and_done(self) -> None:
        look = Look(True)
        script = self._settle(scripted.Lost(), look)
        self.assertIsNone(self.error)
        self.assertEqual(1, look.times)
        self.assertEqual(['bdev_lvol_delete'], script.methods)

    def test_answer_lost_and_not_done(self) -> None:
        script = self._settle(scripted.Lost(), Look(False))
        self.assertIsInstance(self.error, rpc.OutcomeUnknown)
        self.assertEqual(['bdev_lvol_delete'], script.methods)

    @ddt.data(
        rpc.ConnectionFailed('look', 'away'),
        rpc.ConnectionLost('look', 'lost'),
        rpc.NotFound('look', -19, 'No such device'),
    )
    def test_answer_lost_and_so_is_the_look(self, error) -> None:
        self._settle(scripted.Lost(), Look(error))
        self.assertIsInstance(self.error, rpc.OutcomeUnknown)
        self.assertEqual('bdev_lvol_delete', self.error.method)


@ddt.ddt
class SettleAll(base.BaseTestCase):
    def _settle(
        self, delete: Any, resize: Any, *looks: Look
    ) -> scripted.Script:
        script = scripted.Script(
            bdev_lvol_delete=delete, bdev_lvol_resize=resize
        )
        self.error = None
        try:
            scripted.target(script).settle_all(
                *zip((DELETE, RESIZE), looks, strict=True)
            )
        except rpc.RPCError as e:
            self.error = e
        return script

    def test_nothing_is_no_round_trip(self) -> None:
        script = scripted.Script()
        scripted.target(script).settle_all()
        self.assertEqual([], script.trips)

    def test_one_round_trip(self) -> None:
        script = self._settle(True, True, Look(False), Look(False))
        self.assertIsNone(self.error)
        self.assertEqual(1, len(script.trips))

    def test_first_failure_is_raised_and_all_are_sent(self) -> None:
        script = self._settle(
            scripted.NOT_FOUND, scripted.EXISTS, Look(True), Look(True)
        )
        self.assertIsInstance(self.error, rpc.NotFound)
        self.assertEqual(2, len(script.sent))

    def test_later_failure_is_not_overlooked(self) -> None:
        self._settle(True, scripted.EXISTS, Look(True), Look(True))
        self.assertIsInstance(self.error, rpc.Exists)

    @ddt.data(
        (True, True, None, None),
        (True, False, rpc.OutcomeUnknown, 'bdev_lvol_resize'),
        (False, True, rpc.OutcomeUnknown, 'bdev_lvol_delete'),
        (False, False, rpc.OutcomeUnknown, 'bdev_lvol_delete'),
    )
    @ddt.unpack
    def test_lost_answers_are_looked_after_each(
        self, first, second, kind, method
    ) -> None:
        looks = Look(first), Look(second)
        self._settle(scripted.Lost(), scripted.Lost(), *looks)
        self.assertEqual([1, 1], [look.times for look in looks])
        self.assertEqual(kind, self.error and type(self.error))
        self.assertEqual(method, self.error and self.error.method)

    def test_lost_after_a_refusal_is_still_looked_after(self) -> None:
        looks = Look(True), Look(True)
        self._settle(scripted.NOT_FOUND, scripted.Lost(), *looks)
        self.assertIsInstance(self.error, rpc.NotFound)
        self.assertEqual([0, 1], [look.times for look in looks])


class SettleEach(base.BaseTestCase):
    def test_what_became_of_each(self) -> None:
        script = scripted.Script(
            bdev_lvol_delete=scripted.Lost(),
            bdev_lvol_resize=scripted.EXISTS,
        )
        error, other, third = scripted.target(script).settle_each(
            (DELETE, Look(True)), (RESIZE, Look(True)), (DELETE, Look(False))
        )
        self.assertIsNone(error)
        self.assertIsInstance(other, rpc.Exists)
        self.assertIsInstance(third, rpc.OutcomeUnknown)
        self.assertEqual(1, len(script.trips))


@ddt.ddt
class Find(base.BaseTestCase):
    def test_find(self) -> None:
        script = scripted.Script(
            bdev_get_bdevs=scripted.named({'P/a': scripted.lvol('P/a')}),
            bdev_wait_for_examine=True,
        )
        target = scripted.target(script)
        self.assertEqual('bdev-of-P/a', target.find(bdev.get('P/a')).name)
        self.assertIsNone(target.find(bdev.get('P/b')))
        self.assertTrue(target.exists('P/a'))
        self.assertFalse(target.gone('P/a'))
        self.assertFalse(target.exists('P/b'))
        self.assertTrue(target.gone('P/b'))

    @ddt.data(
        scripted.Away(), scripted.Lost(), scripted.Refused('whatever', -32603)
    )
    def test_not_knowing_is_not_absence(self, answer) -> None:
        target = scripted.target(scripted.Script(bdev_get_bdevs=answer))
        for look in (target.exists, target.gone):
            self.assertRaises(rpc.RPCError, look, 'P/a')
        self.assertRaises(rpc.RPCError, target.find, bdev.get('P/a'))
        self.assertRaises(rpc.RPCError, target.find_all, bdev.get('P/a'))

    def test_find_all_in_one_round_trip(self) -> None:
        script = scripted.Script(
            bdev_get_bdevs=scripted.NOT_FOUND,
            vhost_get_controllers=scripted.controller('c'),
        )
        device, controller = scripted.target(script).find_all(
            bdev.get('P/a'), vhost.get('c')
        )
        self.assertIsNone(device)
        self.assertEqual('c', controller.name)
        self.assertEqual(1, len(script.trips))

    def test_find_all_of_nothing(self) -> None:
        script = scripted.Script()
        self.assertEqual([], scripted.target(script).find_all())
        self.assertEqual([], script.trips)

    def test_find_all_raises_what_is_no_absence(self) -> None:
        script = scripted.Script(
            bdev_get_bdevs=scripted.NOT_FOUND,
            vhost_get_controllers=scripted.Refused('Method not found', -32601),
        )
        self.assertRaises(
            rpc.MethodNotFound,
            scripted.target(script).find_all,
            bdev.get('P/a'),
            vhost.get('c'),
        )

    def test_find_all_in_what_spdk_may_be_built_without(self) -> None:
        script = scripted.Script(
            nbd_get_disks=[{'nbd_device': '/dev/nbd0', 'bdev_name': 'B'}],
            ublk_get_disks=scripted.NO_METHOD,
        )
        self.assertEqual(
            [[nbd.Disk('/dev/nbd0', 'B')], None],
            scripted.target(script).find_all(nbd.get_all(), ublk.get_all()),
        )

    def test_find_all_where_absence_has_another_name(self) -> None:
        script = scripted.Script(look=scripted.Refused('Invalid parameters'))
        target = scripted.target(script)
        self.assertEqual(
            [None],
            target.find_all(
                rpc.Request('look', mutates=False, absent=(rpc.InvalidParams,))
            ),
        )
        self.assertRaises(
            rpc.InvalidParams,
            target.find_all,
            rpc.Request('look', mutates=False),
        )

    def test_gather_keeps_errors(self) -> None:
        script = scripted.Script(
            bdev_get_bdevs=scripted.NOT_FOUND,
            vhost_get_controllers=scripted.controller('c'),
        )
        error, found = scripted.target(script).gather(
            bdev.get('P/a'), vhost.get('c')
        )
        self.assertIsInstance(error, rpc.NotFound)
        self.assertEqual('c', found.name)

    def test_url_names_the_target(self) -> None:
        self.assertEqual(scripted.URL, scripted.target(scripted.Script()).url)
