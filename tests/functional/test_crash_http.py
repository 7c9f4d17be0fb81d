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

"""cinder-volume is killed, and the target, under an attached guest."""

import contextlib
import os
import random
import time
from typing import Any

from cinderclient import exceptions as cinder_exceptions

from tests.fixtures.guest import writers as guest_writers
from tests.functional import crash_case, guest_case

#: Kill points; each takes a start of all services.
POINTS = max(int(os.environ.get('CRASH_POINTS', '24')) // 8, 1)


class KilledServices(guest_case.GuestHttpTestCase):
    """A request to Cinder is under way at each kill.

    Every other time the target is killed too, if it is ours: the services'
    start brings the guest's disk back. ``CRASH_POINTS=200`` has more kill
    points, ``CRASH_SEED=N`` those of a run that failed.
    """

    def setUp(self) -> None:
        super().setUp()
        seed = crash_case.seed()
        self.random = random.Random(seed)
        self.story = [f'CRASH_SEED={seed}']
        self.addOnException(self._attach_story)
        self.snapshots: list[Any] = []

    def _attach_story(self, _: object) -> None:
        crash_case.attach_story(self, self.story)

    def test_kills(self) -> None:
        volume = self.volume()
        disk = self.attach_to(volume)
        writers = guest_writers.Writers(self.guest(), disk)
        writers.start()
        self.addCleanup(writers.stop)
        writers.wait_writing()
        before = self.controllers_of(volume)
        for number in range(POINTS):
            with_target = number % 2 == 1 and self.target.restartable
            what = self.ask(volume)
            delay = self.random.uniform(0, 0.5)
            self.story.append(
                f'{number}: {delay:.3f} s after {what}'
                + (', and the target' if with_target else '')
            )
            time.sleep(delay)
            self.services.kill()
            # A guest needs no Cinder.
            writers.wait_writing()
            if with_target:
                self.target.restart(kill=True)
            self.services.start()
            writers.wait_writing()
            self.assertEqual('', writers.complaints())
            self.assertEqual(
                'in-use', self.cinder.volumes.get(volume.id).status
            )
            self.assertEqual(set(before), set(self.controllers_of(volume)))
        rounds = writers.pause()
        self.story.append(f'rounds: {rounds}')
        found = writers.wrong(writers.read(), rounds, rounds)
        writers.resume()
        self.assertEqual([], found[:5])

    def ask(self, volume: Any) -> str:
        """Have Cinder begin something; says what."""
        if self.snapshots and self.random.random() < 0.4:
            snapshot = self.snapshots.pop()
            with contextlib.suppress(cinder_exceptions.ClientException):
                snapshot.reset_state('available')
                snapshot.delete()
                return f'delete of snapshot {snapshot.id}'
        snapshots = self.cinder.volume_snapshots
        snapshot = snapshots.create(volume.id, force=True)
        self.addCleanup(self.remove, snapshots, snapshot.id)
        self.snapshots.append(snapshot)
        return f'snapshot {snapshot.id}'
