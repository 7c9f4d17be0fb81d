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
from typing import Any

from cinder import exception as cinder_exception
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.operations import janitor, locks
from tests.unit import locking, scripted

# Bounds a test that hangs; no result depends on it.
PATIENCE = 20
NEVER = 1e6


class Job:
    """Something to do that can be made to fail.

    :ivar times: how often it was tried
    """

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.times = 0
        self.done = threading.Event()

    def __call__(self) -> None:
        self.times += 1
        if self._errors:
            raise self._errors.pop(0)
        self.done.set()


class TestCase(base.BaseTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.useFixture(locking.Locks())
        self.logged = self.useFixture(scripted.Logged())

    def start(
        self, sweep: Any = lambda: None, interval: float = NEVER
    ) -> janitor.Janitor:
        """One that works, and whose first sweep is over."""
        swept = threading.Event()

        def first() -> None:
            try:
                sweep()
            finally:
                swept.set()

        worker = janitor.Janitor(first, interval)
        self.addCleanup(worker.stop)
        worker.start()
        self.assertTrue(swept.wait(PATIENCE))
        self.idle(worker)
        return worker

    def idle(self, worker: janitor.Janitor) -> None:
        self.assertTrue(worker.wait_idle(PATIENCE))


class Jobs(TestCase):
    def test_done_soon(self) -> None:
        worker = self.start()
        job = Job()
        worker.soon('it', job)
        self.idle(worker)
        self.assertEqual(1, job.times)
        self.assertEqual([], worker.pending())

    def test_in_order(self) -> None:
        worker = self.start()
        order = []
        held = threading.Event()
        worker.soon('hold', lambda: held.wait(PATIENCE))
        for name in ('a', 'b', 'c'):
            worker.soon(name, lambda name=name: order.append(name))
        held.set()
        self.idle(worker)
        self.assertEqual(['a', 'b', 'c'], order)

    def test_the_same_twice_is_once_and_the_later(self) -> None:
        worker = self.start()
        held = threading.Event()
        worker.soon('hold', lambda: held.wait(PATIENCE))
        first, second = Job(), Job()
        worker.soon('it', first)
        worker.soon('it', second)
        held.set()
        self.idle(worker)
        self.assertEqual((0, 1), (first.times, second.times))

    def test_asked_for_again_while_it_runs(self) -> None:
        """What is found then came too late for the first run."""
        worker = self.start()
        running, held = threading.Event(), threading.Event()

        def first() -> None:
            running.set()
            held.wait(PATIENCE)

        again = Job()
        worker.soon('it', first)
        self.assertTrue(running.wait(PATIENCE))
        worker.soon('it', again)
        held.set()
        self.idle(worker)
        self.assertEqual(1, again.times)

    def test_failed_one_waits_for_the_sweep(self) -> None:
        worker = self.start()
        job = Job(ValueError('why'))
        worker.soon('it', job)
        self.idle(worker)
        self.assertEqual((1, ['it']), (job.times, worker.pending()))
        [warning] = self.logged.at('WARNING')
        self.assertIn('it failed', warning)
        self.assertIn('why', warning)
        worker.sweep()
        self.idle(worker)
        self.assertEqual((2, []), (job.times, worker.pending()))

    def test_failed_one_that_is_asked_for_again(self) -> None:
        worker = self.start()
        job = Job(ValueError())
        worker.soon('it', job)
        self.idle(worker)
        worker.soon('it', job)
        self.idle(worker)
        self.assertEqual((2, []), (job.times, worker.pending()))

    def test_postponed_is_no_warning(self) -> None:
        worker = self.start()
        job = Job(exceptions.Postponed('not now'), exceptions.Postponed('no'))
        worker.soon('it', job)
        self.idle(worker)
        worker.sweep()
        self.idle(worker)
        self.assertEqual(['it'], worker.pending())
        worker.sweep()
        self.idle(worker)
        self.assertEqual([], worker.pending())
        self.assertEqual(3, job.times)
        self.assertEqual([], self.logged.at('WARNING', 'ERROR'))

    def test_one_that_fails_does_not_keep_others(self) -> None:
        worker = self.start()
        job = Job()
        worker.soon('bad', Job(ValueError()))
        worker.soon('good', job)
        self.idle(worker)
        self.assertEqual(1, job.times)

    def test_a_job_may_bring_another(self) -> None:
        worker = self.start()
        job = Job()
        worker.soon('it', lambda: worker.soon('next', job))
        self.idle(worker)
        self.assertEqual(1, job.times)

    def test_wait_idle_gives_up(self) -> None:
        worker = self.start()
        held = threading.Event()
        worker.soon('it', lambda: held.wait(PATIENCE))
        self.assertFalse(worker.wait_idle(0.01))
        held.set()
        self.idle(worker)


class Sweeping(TestCase):
    def test_at_once_and_every_so_often(self) -> None:
        times = threading.Semaphore(0)
        worker = janitor.Janitor(times.release, 0.001)
        self.addCleanup(worker.stop)
        worker.start()
        for _ in range(3):
            self.assertTrue(times.acquire(timeout=PATIENCE))

    def test_by_itself_it_tries_again(self) -> None:
        worker = self.start(interval=0.01)
        job = Job(ValueError(), exceptions.Postponed('x'), ValueError())
        worker.soon('it', job)
        self.assertTrue(job.done.wait(PATIENCE))
        self.assertEqual(4, job.times)

    def test_a_failing_sweep_is_logged_and_ends_nothing(self) -> None:
        def sweep() -> None:
            raise ValueError('no target')

        worker = self.start(sweep)
        job = Job()
        worker.soon('it', job)
        self.idle(worker)
        self.assertEqual(1, job.times)
        [warning] = self.logged.at('WARNING')
        self.assertIn('no target', warning)

    def test_busy_janitor_sweeps_nevertheless(self) -> None:
        times = threading.Semaphore(0)
        worker = janitor.Janitor(times.release, 0.001)
        self.addCleanup(worker.stop)

        def endless() -> None:
            worker.soon('endless', endless)

        worker.soon('endless', endless)
        worker.start()
        for _ in range(3):
            self.assertTrue(times.acquire(timeout=PATIENCE))


class Undoing(TestCase):
    def test_waits_for_the_sweep(self) -> None:
        worker = self.start()
        undo = Job()
        worker.undo_later('volume-1')('make it', undo)
        self.idle(worker)
        self.assertEqual((0, ['undo make it']), (undo.times, worker.pending()))
        worker.sweep()
        self.idle(worker)
        self.assertEqual((1, []), (undo.times, worker.pending()))

    def test_forgotten(self) -> None:
        worker = self.start()
        one, other, plain = Job(), Job(), Job(ValueError())
        worker.undo_later('volume-1')('make one', one)
        worker.undo_later('volume-10')('make other', other)
        worker.soon('plain', plain)
        self.idle(worker)
        worker.forget('volume-1')
        self.assertCountEqual(['undo make other', 'plain'], worker.pending())
        worker.sweep()
        self.idle(worker)
        self.assertEqual((0, 1, 2), (one.times, other.times, plain.times))

    def test_what_concerns_another_host_is_not_forgotten(self) -> None:
        worker = self.start()
        mine, other, whole = Job(), Job(), Job()
        worker.undo_later('volume-1', host='me')('mine', mine)
        worker.undo_later('volume-1', host='other')('other', other)
        worker.undo_later('volume-1')('whole', whole)
        worker.forget('volume-1', 'me')
        self.assertEqual(['undo other'], worker.pending())
        worker.undo_later('volume-1', host='me')('mine', mine)
        worker.forget('volume-1')
        self.assertCountEqual(['undo other', 'undo mine'], worker.pending())
        worker.sweep()
        self.idle(worker)
        self.assertEqual((1, 1, 0), (mine.times, other.times, whole.times))

    def test_runs_under_its_lock(self) -> None:
        worker = self.start()
        undo = Job()
        worker.undo_later('volume-1')('make it', undo)
        with locks.holding('volume-1'):
            worker.sweep()
            # It cannot run now, however long this takes.
            self.assertFalse(undo.done.wait(0.05))
        self.assertTrue(undo.done.wait(PATIENCE))

    def test_forgotten_while_it_waits_for_the_lock(self) -> None:
        worker = self.start()
        undo = Job()
        worker.undo_later('volume-1')('make it', undo)
        with locks.holding('volume-1'):
            worker.sweep()
            worker.forget('volume-1')
        self.idle(worker)
        self.assertEqual((0, []), (undo.times, worker.pending()))

    def test_forgetting_waits_for_the_one_that_runs(self) -> None:
        worker = self.start()
        running, held = threading.Event(), threading.Event()
        over = []

        def undo() -> None:
            running.set()
            held.wait(PATIENCE)
            over.append('undo')

        worker.undo_later('volume-1')('make it', undo)
        worker.sweep()
        self.assertTrue(running.wait(PATIENCE))
        worker.forget('volume-2')
        thread = threading.Thread(
            target=lambda: (worker.forget('volume-1'), over.append('forgot'))
        )
        thread.start()
        held.set()
        thread.join(PATIENCE)
        self.idle(worker)
        self.assertEqual(['undo', 'forgot'], over)
        self.assertEqual([], worker.pending())

    def test_is_tried_again_too(self) -> None:
        worker = self.start()
        undo = Job(ValueError(), exceptions.Postponed('x'))
        worker.undo_later('volume-1')('make it', undo)
        for times in (1, 2, 3):
            self.assertEqual(['undo make it'], worker.pending())
            worker.sweep()
            self.idle(worker)
            self.assertEqual(times, undo.times)
        self.assertEqual([], worker.pending())

    def test_a_lock_that_cannot_be_had_ends_nothing(self) -> None:
        worker = self.start()
        undo, job = Job(), Job()
        worker.undo_later('volume-1')('make it', undo)
        error = cinder_exception.LockCreationFailed('no coordination')
        with locking.broken(error):
            worker.sweep()
            self.idle(worker)
        self.assertEqual((0, ['undo make it']), (undo.times, worker.pending()))
        [warning] = self.logged.at('WARNING')
        self.assertIn('undo make it', warning)
        worker.soon('it', job)
        self.idle(worker)
        worker.sweep()
        self.idle(worker)
        self.assertEqual((1, 1), (undo.times, job.times))


class Stopping(TestCase):
    def test_the_job_that_runs_is_finished_and_no_other_started(self) -> None:
        worker = self.start()
        running, held = threading.Event(), threading.Event()
        finished = []

        def first() -> None:
            running.set()
            held.wait(PATIENCE)
            finished.append('first')

        worker.soon('first', first)
        worker.soon('second', lambda: finished.append('second'))
        self.assertTrue(running.wait(PATIENCE))
        stopping = threading.Thread(target=worker.stop)
        stopping.start()
        while not worker._stopped:
            pass
        held.set()
        stopping.join(PATIENCE)
        self.assertEqual(['first'], finished)

    def test_twice(self) -> None:
        worker = self.start()
        worker.stop()
        worker.stop()

    def test_what_was_never_started(self) -> None:
        janitor.Janitor(lambda: None, NEVER).stop()
