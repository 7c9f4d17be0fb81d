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

from collections.abc import Callable
import threading
import time
from typing import Any
from unittest import mock

from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.reconcile import incarnation, restore
from tests.unit import scripted

PATIENCE = 20


def item(number: int, pool: str = 'P') -> restore.Item:
    return restore.Item(f'id-{number}', pool, f'volume-{number}')


class TestCase(base.BaseTestCase):
    """A target that tests restart, and what its volumes were.

    :ivar rows: what the database says
    :ivar up: pools that are there
    :ivar there: volumes that are exported
    :ivar failing: by volume, why it can't be attached
    """

    def setUp(self) -> None:
        super().setUp()
        self.logged = self.useFixture(scripted.Logged())
        for name, value in {
            'AWAY_SECONDS': 0.02,
            'RETRY_SECONDS': (0.01, 0.02),
            'LOADING_SECONDS': (0.01, 0.02),
            'PATIENCE_SECONDS': 0.0,
        }.items():
            patch = mock.patch.object(restore, name, value)
            patch.start()
            self.addCleanup(patch.stop)
        self.rows = [item(number) for number in range(3)]
        self.up = {'P'}
        self.there: list[str] = []
        self.failing: dict[str, Exception] = {}
        self.looks = 0
        self.away = False
        self.uptime = 1e6
        self.pid = 1
        self.before_each: Callable[[restore.Item], Any] = lambda _: None
        script = scripted.Script(
            framework_get_reactors=lambda _: scripted.running(
                self.pid, self.uptime
            )
        )
        self.target = scripted.target(script)
        self.watch = incarnation.Watch()
        self.restorer = restore.Restorer(
            self.target,
            self.watch,
            restore.Doing(
                refresh=self.refresh,
                pools=lambda: set(self.up),
                wanted=lambda: list(self.rows),
                restore=self.restore,
            ),
        )

    def refresh(self) -> bool:
        self.looks += 1
        if self.away:
            return False
        asked = time.monotonic()
        self.watch.saw(self.target.ask(self.watch.look()), asked)
        return True

    def restore(self, wanted: restore.Item) -> None:
        self.before_each(wanted)
        if wanted.volume in self.failing:
            raise self.failing[wanted.volume]
        self.there.append(wanted.volume)

    def start(self) -> None:
        self.restorer.start()
        self.addCleanup(self.restorer.stop)

    def started(self) -> None:
        """Started, and done with the target as it was found."""
        self.start()
        self.settle()
        self.there.clear()
        self.logged.records.clear()

    def settle(self) -> None:
        self.assertTrue(self.restorer.wait_idle(PATIENCE))

    def restart(self) -> None:
        """The target ends, and is there again."""
        self.pid += 1
        self.restorer._note_loss()

    def eventually(self, true: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)

    def warnings(self) -> list[str]:
        return self.logged.at('WARNING', 'ERROR')


class When(TestCase):
    def test_the_service_starts(self) -> None:
        """Nobody knows what happened before."""
        self.start()
        self.settle()
        self.assertEqual(['id-0', 'id-1', 'id-2'], sorted(self.there))

    def test_the_target_was_seen_already(self) -> None:
        self.refresh()
        self.start()
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_the_target_is_away_at_first(self) -> None:
        self.away = True
        self.start()
        self.eventually(lambda: self.looks > 2)
        self.assertEqual([], self.there)
        self.away = False
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_only_the_connection_was_lost(self) -> None:
        self.started()
        before = self.looks
        self.restorer._note_loss()
        self.settle()
        self.assertEqual(before + 1, self.looks)
        self.assertEqual([], self.there)
        self.assertEqual([], self.logged.at('INFO', 'WARNING'))

    def test_a_restart_that_the_lost_connection_tells(self) -> None:
        self.started()
        self.restart()
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_a_restart_that_the_stats_poll_sees(self) -> None:
        self.started()
        self.pid += 1
        self.refresh()
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_it_stays_away_for_a_while(self) -> None:
        self.started()
        self.away = True
        self.restart()
        before = self.looks
        self.eventually(lambda: self.looks > before + 3)
        self.assertEqual([], self.there)
        self.away = False
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_nothing_is_asked_while_nothing_happens(self) -> None:
        self.started()
        before = self.looks
        time.sleep(0.2)
        self.assertEqual(before, self.looks)

    def test_stopping_while_it_is_away(self) -> None:
        self.away = True
        self.start()
        self.restorer.stop()
        self.assertEqual([], self.there)


class How(TestCase):
    def test_several_at_a_time(self) -> None:
        self.rows = [item(number) for number in range(64)]
        together = threading.Barrier(restore.WORKERS)
        self.before_each = lambda _: together.wait(PATIENCE)
        self.start()
        self.settle()
        self.assertEqual(64, len(self.there))

    def test_nothing_to_do(self) -> None:
        self.rows = []
        self.start()
        self.settle()
        self.assertEqual([], self.there)

    def test_what_is_in_a_pool_that_is_not_up_waits(self) -> None:
        self.rows += [item(8, 'slow'), item(9, 'slow')]
        self.start()
        self.eventually(lambda: len(self.there) == 3)
        looks = self.looks
        self.eventually(lambda: self.looks > looks + 3)
        self.assertEqual(3, len(self.there))
        self.up.add('slow')
        self.settle()
        self.assertEqual(['id-8', 'id-9'], sorted(self.there[3:]))
        self.assertEqual([], self.warnings())

    def test_what_failed_is_tried_again_and_said_once(self) -> None:
        self.failing['id-1'] = exceptions.Conflict('there is no P/volume-1')
        tries = []
        self.before_each = lambda wanted: tries.append(wanted.volume)
        self.start()
        self.eventually(lambda: tries.count('id-1') > 3)
        self.assertEqual(['id-0', 'id-2'], sorted(self.there))
        [text] = self.warnings()
        for part in ('id-1', 'there is no P/volume-1'):
            self.assertIn(part, text)
        del self.failing['id-1']
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_what_soon_passes_is_not_said(self) -> None:
        self.failing['id-0'] = exceptions.Postponed('is being detached')
        self.start()
        self.eventually(lambda: len(self.there) == 2)
        del self.failing['id-0']
        self.settle()
        self.failing['id-1'] = exceptions.Conflict('not found yet')
        with mock.patch.object(restore, 'PATIENCE_SECONDS', 10):
            self.restart()
            self.eventually(lambda: len(self.there) == 5)
            del self.failing['id-1']
            self.settle()
        self.assertEqual([], self.warnings())

    def test_what_is_not_wanted_any_more(self) -> None:
        self.failing['id-1'] = exceptions.Conflict('for ever')
        self.start()
        self.eventually(lambda: len(self.there) == 2)
        self.rows = self.rows[:1]
        self.settle()

    def test_the_database_is_away(self) -> None:
        rows, self.rows = self.rows, None
        self.start()
        self.eventually(self.warnings)
        self.rows = rows
        self.settle()
        self.assertEqual(3, len(self.there))

    def test_another_restart_in_the_middle(self) -> None:
        self.rows = [item(number) for number in range(100)]
        begun = threading.Event()

        def slowly(_: restore.Item) -> None:
            time.sleep(0.002)
            if len(self.there) > 20 and not begun.is_set():
                begun.set()
                self.there.clear()
                self.restart()

        self.before_each = slowly
        self.start()
        self.settle()
        self.assertTrue(begun.is_set())
        self.assertEqual(
            {wanted.volume for wanted in self.rows}, set(self.there)
        )

    def test_stopping_in_the_middle(self) -> None:
        self.rows = [item(number) for number in range(1000)]
        self.before_each = lambda _: time.sleep(0.01)
        self.start()
        self.eventually(lambda: self.there)
        self.restorer.stop()
        self.assertLess(len(self.there), 1000)

    def test_what_is_said(self) -> None:
        self.start()
        self.settle()
        first, last = self.logged.at('INFO')
        self.assertIn('3 volumes', first)
        self.assertIn('3 volumes are attached again after', last)
        for text in (first, last):
            self.assertIn(scripted.URL, text)
