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

from cinder_spdk_vhost import exceptions, names, rpc
from cinder_spdk_vhost.export import limits
from cinder_spdk_vhost.spdk import qos
from tests.unit import scripted

PATH = 'P/volume-1'
NQN = names.scratch_subsystem('volume-1')
WANTED = qos.RateLimits(rw_ios_per_sec=2000)
BUSY = scripted.Refused('Invalid parameters')

OPENED = [
    'bdev_set_qos_limit',
    'nvmf_create_subsystem',
    'nvmf_subsystem_add_ns',
    'bdev_set_qos_limit',
    'nvmf_delete_subsystem',
]


@ddt.ddt
class Limits(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.later: list[tuple[str, Any]] = []
        self.script = scripted.Script(
            bdev_set_qos_limit=scripted.in_turn(scripted.IDLE, True),
            bdev_get_bdevs=scripted.lvol(PATH),
            nvmf_create_subsystem=True,
            nvmf_subsystem_add_ns=1,
            nvmf_delete_subsystem=True,
        )

    def _set(self, **answers: Any) -> Exception | None:
        self.script.answers |= answers
        setter = limits.Setter(
            scripted.target(self.script),
            'volume-1',
            PATH,
            lambda what, undo: self.later.append((what, undo)),
        )
        try:
            setter.set(WANTED)
        except Exception as e:
            return e
        return None

    def test_first_limits_are_one_round_trip(self) -> None:
        self.assertIsNone(self._set(bdev_set_qos_limit=True))
        self.assertEqual(
            [
                (
                    'bdev_set_qos_limit',
                    {'name': PATH, **WANTED.as_dict()},
                )
            ],
            self.script.sent,
        )

    def test_idle_and_limited(self) -> None:
        self.assertIsNone(self._set())
        self.assertEqual(OPENED, self.script.methods)
        for method, params in self.script.sent:
            if method.startswith('nvmf'):
                self.assertEqual(NQN, params['nqn'])
        self.assertEqual({'bdev_name': PATH}, self._sent('add_ns'))

    def _sent(self, method: str) -> Any:
        [params] = [p for m, p in self.script.sent if m.endswith(method)]
        return params['namespace']

    def test_still_refused_and_closed_again(self) -> None:
        error = self._set(bdev_set_qos_limit=scripted.IDLE)
        self.assertIsInstance(error, rpc.TryAgain)
        self.assertEqual(OPENED, self.script.methods)

    def test_leftover_subsystem_goes_first(self) -> None:
        self.assertIsNone(
            self._set(nvmf_create_subsystem=scripted.in_turn(BUSY, True))
        )
        self.assertEqual(
            [
                'nvmf_create_subsystem',
                'nvmf_delete_subsystem',
                'nvmf_create_subsystem',
            ],
            self.script.methods[1:4],
        )
        self.assertEqual('nvmf_delete_subsystem', self.script.methods[-1])

    def test_cannot_be_opened(self) -> None:
        error = self._set(nvmf_subsystem_add_ns=BUSY)
        self.assertIsInstance(error, rpc.InvalidParams)
        self.assertEqual('nvmf_delete_subsystem', self.script.methods[-1])

    @ddt.data(True, BUSY)
    def test_lost_deletion_is_asked_again(self, second: Any) -> None:
        self.assertIsNone(
            self._set(
                nvmf_delete_subsystem=scripted.in_turn(scripted.Lost(), second)
            )
        )
        self.assertEqual(2, self.script.methods.count('nvmf_delete_subsystem'))
        self.assertEqual([], self.later)

    @ddt.data(scripted.Lost(), scripted.Away())
    def test_deletion_that_cannot_be_settled_is_handed_on(self, error) -> None:
        self.assertIsNone(self._set(nvmf_delete_subsystem=error))
        [(what, undo)] = self.later
        self.assertIn(NQN, what)
        self.assertRaises(rpc.TransportError, undo)
        self.script.answers['nvmf_delete_subsystem'] = True
        undo()

    def test_answer_lost_and_in_force(self) -> None:
        self.assertIsNone(
            self._set(
                bdev_set_qos_limit=scripted.Lost(),
                bdev_get_bdevs=scripted.lvol(
                    PATH, assigned_rate_limits=WANTED.as_dict()
                ),
            )
        )

    def test_answer_lost_and_not_in_force(self) -> None:
        error = self._set(bdev_set_qos_limit=scripted.Lost())
        self.assertIsInstance(error, rpc.OutcomeUnknown)

    def test_idle_on_a_target_without_nvmeof(self) -> None:
        error = self._set(
            bdev_set_qos_limit=scripted.IDLE,
            nvmf_create_subsystem=scripted.NO_METHOD,
        )
        self.assertIsInstance(error, exceptions.Conflict)
        for part in (PATH, 'NVMe-oF'):
            self.assertIn(part, str(error))
