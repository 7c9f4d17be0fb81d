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

import threading

from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.operations import pins

PATIENCE = 20


class Pins(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.pins = pins.Pins()

    def _removable(self, *names: str) -> bool:
        try:
            with self.pins.removing(*names):
                return True
        except exceptions.Postponed as e:
            self.assertIn('is worked on', str(e))
            return False

    def test_pinned_cannot_go(self) -> None:
        with self.pins.pinning('a', None, 'b'):
            self.assertFalse(self._removable('a'))
            self.assertFalse(self._removable('c', 'b'))
            self.assertTrue(self._removable('c'))
        self.assertTrue(self._removable('a', 'b'))

    def test_pinned_twice(self) -> None:
        with self.pins.pinning('a'):
            with self.pins.pinning('a'):
                pass
            self.assertFalse(self._removable('a'))
        self.assertTrue(self._removable('a'))

    def test_what_goes_cannot_go_again(self) -> None:
        with self.pins.removing('a', 'b'):
            self.assertFalse(self._removable('b', 'c'))
            self.assertTrue(self._removable('c'))
        self.assertTrue(self._removable('b'))

    def test_refused_removal_leaves_nothing(self) -> None:
        with self.pins.pinning('a'):
            self.assertFalse(self._removable('a', 'b'))
            self.assertTrue(self._removable('b'))

    def test_given_back_after_errors(self) -> None:
        for hold in (self.pins.pinning, self.pins.removing):
            with self.assertRaises(ValueError), hold('a'):
                raise ValueError
        self.assertTrue(self._removable('a'))

    def test_pinning_waits_for_what_goes(self) -> None:
        order = []
        asked = threading.Event()

        def pin() -> None:
            asked.set()
            with self.pins.pinning('a'):
                order.append('pinned')

        thread = threading.Thread(target=pin)
        with self.pins.removing('a'):
            thread.start()
            asked.wait(PATIENCE)
            # It cannot come in, however long this takes.
            thread.join(0.05)
            order.append('gone')
        thread.join(PATIENCE)
        self.assertEqual(['gone', 'pinned'], order)

    def test_nothing(self) -> None:
        with self.pins.pinning(None), self.pins.removing():
            pass
