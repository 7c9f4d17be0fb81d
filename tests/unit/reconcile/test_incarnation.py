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

import time
from unittest import mock

import ddt
from oslotest import base

from cinder_spdk_vhost.reconcile import incarnation
from cinder_spdk_vhost.spdk import app


@ddt.ddt
class Watch(base.BaseTestCase):
    """Looks at a target, at times that the tests say."""

    def setUp(self) -> None:
        super().setUp()
        self.changed = mock.Mock()
        self.watch = incarnation.Watch(self.changed)

    def saw(
        self, at: float, uptime: float, pid: int = 1, took: float = 0.0
    ) -> bool:
        """Whether that look found another target than the one before."""
        before = self.watch.count
        with mock.patch.object(time, 'monotonic', return_value=at + took):
            self.watch.saw(app.Process(pid, uptime), at)
        return self.watch.count > before

    def test_the_first_one_is_another_one(self) -> None:
        self.assertEqual(0, self.watch.count)
        self.assertTrue(self.saw(at=1000, uptime=500))
        self.changed.assert_called_once_with()

    @ddt.data(
        # how long it had run, what went by then, and what was said then
        (500, 60, 560),
        (500, 60, 560.3),
        (500, 60, 559.7),
        # Clocks that differ by a thousandth, for a month.
        (500_000, 2_592_000, 3_092_000 * 1.001),
        (500_000, 2_592_000, 3_092_000 * 0.999),
        (0.5, 1, 1.5),
        (30 * 86400, 0.01, 30 * 86400),
    )
    @ddt.unpack
    def test_it_ran_on(self, uptime, later, uptime_then) -> None:
        self.saw(at=1000, uptime=uptime)
        self.assertFalse(self.saw(at=1000 + later, uptime=uptime_then))
        self.changed.assert_called_once_with()

    @ddt.data(
        (500, 60, 59.9),
        (500, 60, 0.01),
        (500, 60, 60.5),
        (500, 600, 599),
        (500_000, 2_592_000, 2_592_000 * 1.001),
        (2, 1, 0.9),
        (30 * 86400, 1.5, 0.1),
    )
    @ddt.unpack
    def test_it_was_started_again(self, uptime, later, uptime_then) -> None:
        self.saw(at=1000, uptime=uptime)
        self.assertTrue(self.saw(at=1000 + later, uptime=uptime_then))
        self.assertEqual(2, self.changed.call_count)

    def test_another_process(self) -> None:
        self.saw(at=1000, uptime=500)
        self.assertTrue(self.saw(at=1001, uptime=501, pid=2))

    def test_a_slow_answer(self) -> None:
        """It was asked early, and counted late, or the other way round."""
        self.saw(at=1000, uptime=500)
        self.assertFalse(self.saw(at=1010, uptime=510, took=20))
        self.assertFalse(self.saw(at=1031, uptime=550, took=20))
        self.assertTrue(self.saw(at=1060, uptime=5, took=3))

    def test_an_answer_that_was_overtaken(self) -> None:
        self.saw(at=1000, uptime=500, pid=1)
        self.assertTrue(self.saw(at=1020, uptime=5, pid=2))
        self.assertFalse(self.saw(at=1010, uptime=510, pid=1))
        self.assertFalse(self.saw(at=1030, uptime=15, pid=2))

    def test_many_restarts(self) -> None:
        for number in range(1, 20):
            self.assertTrue(self.saw(at=10 * number, uptime=1))
            self.assertFalse(self.saw(at=10 * number + 5, uptime=6))
