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

import os
import threading
from unittest import mock

from cinder import coordination
from cinder import exception as cinder_exception
from oslotest import base

from cinder_spdk_vhost.operations import locks
from tests.unit import locking

PATIENCE = 20


class Locks(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())

    def _files(self) -> list[str]:
        directory = os.path.dirname(coordination.COORDINATOR._file_path)
        return [name for name in os.listdir(directory) if 'spdk' in name]

    def test_one_at_a_time(self) -> None:
        inside = 0
        most = 0
        ready = threading.Barrier(4)

        def work() -> None:
            nonlocal inside, most
            ready.wait(PATIENCE)
            for _ in range(10):
                with locks.holding('volume-1'):
                    inside += 1
                    most = max(most, inside)
                    inside -= 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual((0, 1), (inside, most))

    def test_one_who_holds_it_has_it(self) -> None:
        with locks.holding('volume-1'):
            with locks.holding('volume-1', 'volume-2'):
                pass
            self.assertFalse(self._free('volume-1'))
            self.assertTrue(self._free('volume-2'))
        self.assertTrue(self._free('volume-1'))

    def _free(self, lvol: str) -> bool:
        lock = coordination.COORDINATOR.get_lock('spdk-vhost-' + lvol)
        free = []

        def take() -> None:
            if lock.acquire(blocking=False):
                free.append(lvol)
                lock.release()

        thread = threading.Thread(target=take)
        thread.start()
        thread.join(PATIENCE)
        return bool(free)

    def test_a_second_thread_waits(self) -> None:
        order = []
        asked = threading.Event()

        def second() -> None:
            asked.set()
            with locks.holding('volume-1'):
                order.append('second')

        with locks.holding('volume-1'):
            thread = threading.Thread(target=second)
            thread.start()
            asked.wait(PATIENCE)
            # The other cannot have it, however long this takes.
            thread.join(0.05)
            order.append('first')
        thread.join(PATIENCE)
        self.assertEqual(['first', 'second'], order)

    def test_different_lvols_do_not_wait(self) -> None:
        entered = threading.Event()

        def other() -> None:
            with locks.holding('volume-2'):
                entered.set()

        with locks.holding('volume-1'):
            thread = threading.Thread(target=other)
            thread.start()
            self.assertTrue(entered.wait(PATIENCE))
        thread.join(PATIENCE)

    def test_opposite_orders_do_not_block_each_other(self) -> None:
        ready = threading.Barrier(2)

        def work(*lvols: str) -> None:
            ready.wait(PATIENCE)
            for _ in range(20):
                with locks.holding(*lvols):
                    pass

        threads = [
            threading.Thread(target=work, args=lvols, daemon=True)
            for lvols in (('a', 'b'), ('b', 'a'))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        self.assertEqual([False, False], [t.is_alive() for t in threads])

    def test_taken_in_one_order_and_once(self) -> None:
        taken = []
        real = coordination.COORDINATOR.get_lock

        def spy(name: str):
            taken.append(name)
            return real(name)

        with (
            mock.patch.object(coordination.COORDINATOR, 'get_lock', spy),
            locks.holding('c', 'a', 'b', 'a'),
        ):
            pass
        self.assertEqual(
            ['spdk-vhost-a', 'spdk-vhost-b', 'spdk-vhost-c'], taken
        )

    def test_given_back_after_an_error(self) -> None:
        def fail() -> None:
            with locks.holding('a', 'b'):
                raise ValueError

        self.assertRaises(ValueError, fail)
        with locks.holding('b', 'a'):
            pass

    def test_given_back_when_a_later_one_cannot_be_had(self) -> None:
        real = coordination.COORDINATOR.get_lock

        def get_lock(name: str):
            if name.endswith('b'):
                raise cinder_exception.LockCreationFailed('no')
            return real(name)

        def take_both() -> None:
            with locks.holding('a', 'b'):
                self.fail('both are held')

        with mock.patch.object(coordination.COORDINATOR, 'get_lock', get_lock):
            self.assertRaises(cinder_exception.LockCreationFailed, take_both)
        free = threading.Event()

        def take() -> None:
            with locks.holding('a'):
                free.set()

        threading.Thread(target=take, daemon=True).start()
        self.assertTrue(free.wait(PATIENCE))

    def test_none(self) -> None:
        with locks.holding():
            pass

    def test_forgotten_locks_leave_no_file(self) -> None:
        with locks.holding('volume-1', 'volume-10'):
            pass
        self.assertEqual(2, len(self._files()))
        locks.forget('volume-1')
        [left] = self._files()
        self.assertTrue(left.endswith('volume-10'))
        locks.forget('volume-1')
