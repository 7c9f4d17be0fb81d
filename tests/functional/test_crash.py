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

"""Kills under a guest that writes: nothing that was flushed is lost.

Each kill point draws what is killed (the target, the daemon that has its
data, both, or the target by SIGTERM) and when. ``CRASH_POINTS=200`` has more
of them than the 24 of CI, and ``CRASH_SEED=N`` those of a run that failed.
"""

import contextlib
import hashlib
import pathlib
import random
import shutil
import tempfile
import time
from typing import Any, ClassVar

from oslotest import base

from tests.fixtures import target as targets
from tests.fixtures.guest import Disk, Guest, unavailable
from tests.functional import crash_case
from tests.functional.crash_case import MIB

POOL = 'pool'
KINDS = ('target', 'daemon', 'both', 'term')
_WEIGHTS = (4, 4, 2, 1)


class Kills(base.BaseTestCase):
    """A target and a guest for the class; controllers are made by RPC."""

    #: where the guest's flushes end
    flush: ClassVar[str] = 'cache'
    target: ClassVar[targets.EmbeddedTarget]
    victim: ClassVar[crash_case.Victim]
    volume: ClassVar[str]
    _stack: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if targets.real_url():
            cls.skipTest('a target that is not ours is not killed')
        if reason := unavailable():
            cls.skipTest(reason)
        with contextlib.ExitStack() as stack:
            directory = pathlib.Path(tempfile.mkdtemp(prefix='crash-'))
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
            cls.target = targets.EmbeddedTarget(
                directory, {POOL: '2G'}, ('--flush', cls.flush)
            )
            stack.callback(cls.target.stop)
            cls.target.start()
            cls.volume = cls.target.rpc.call(
                'bdev_lvol_create',
                lvs_name=POOL,
                lvol_name='volume',
                size_in_mib=64,
                thin_provision=True,
            )
            cls.restore()
            guest = Guest([Disk(cls.target.vhost_dir / 'disk')])
            stack.enter_context(guest)
            cls.victim = crash_case.Victim(cls.target, guest, cls.restore)
            cls.victim.writers.start()
            cls._stack = stack.pop_all()

    @classmethod
    def restore(cls) -> None:
        cls.target.rpc.call(
            'vhost_create_blk_controller', ctrlr='disk', dev_name=cls.volume
        )

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()

    def setUp(self) -> None:
        super().setUp()
        self.seed = crash_case.seed()
        self.random = random.Random(self.seed)
        self.story: list[str] = [f'CRASH_SEED={self.seed}']
        crash_case.attach_details(self, self.target, self.story)

    def kind(self) -> str:
        return self.random.choices(KINDS, _WEIGHTS)[0]

    def assert_disk_right(self) -> None:
        """The guest goes on, and what it has written is there."""
        self.victim.writers.wait_writing()
        self.assertEqual([], self.victim.check(self.volume))

    def assert_on_disk(self, bdev: str, rounds: list[int]) -> str:
        """What the host reads is as old as those rounds; gives a digest."""
        writers = self.victim.writers
        data = crash_case.read_bdev(self.target, bdev, writers.size)
        self.assertEqual([], writers.wrong(data, rounds)[:5], bdev)
        return hashlib.sha256(data).hexdigest()


class KilledProcesses(Kills):
    """Nothing goes on but the guest's writes."""

    flush = 'disk'

    def test_kills(self) -> None:
        for number in range(crash_case.POINTS):
            self.victim.writers.wait_writing()
            kind, delay = self.kind(), self.random.uniform(0, 0.3)
            self.story.append(f'{number}: {kind} after {delay:.3f} s')
            time.sleep(delay)
            self.victim.kill(kind)
            self.assert_disk_right()
        self.assertEqual(
            [], self.victim.writers.wrong(self.victim.writers.read(), [0] * 4)
        )

    def test_kills_after_copies(self) -> None:
        """What was copied for a request that was answered is there.

        The guest writes nothing between: its flushes would hide a lack.
        """
        writers, call = self.victim.writers, self.target.rpc.call
        volume = f'{POOL}/volume'
        copies = [
            ('bdev_lvol_delete', f'{POOL}/two'),
            ('bdev_lvol_decouple_parent', volume),
            ('bdev_lvol_inflate', volume),
        ]
        for method, name in copies:
            for snapshot in ('one', 'two'):
                writers.wait_writing()
                call(
                    'bdev_lvol_snapshot',
                    lvol_name=volume,
                    snapshot_name=snapshot,
                )
            writers.pause()
            kind = self.random.choice(('target', 'daemon'))
            self.story.append(f'{kind} after {method}')
            call(method, name=name)
            self.victim.kill(kind)
            self.assertEqual([], self.victim.check(self.volume))
            writers.wait_writing()
            # One is read by whoever reads two.
            for snapshot in ('two', 'one'):
                self.target.rpc.maybe(
                    'bdev_lvol_delete', name=f'{POOL}/{snapshot}'
                )


class KilledRequests(Kills):
    """A request to the target is under way at each kill.

    What it was to do is done afterwards or is not, and what is there has
    the data that it must have.
    """

    def setUp(self) -> None:
        super().setUp()
        #: snapshots: rounds that were reported before each, and its digest
        self.snapshots: dict[str, tuple[list[int], str | None]] = {}
        self.size = 64
        self.number = 0

    def test_kills(self) -> None:
        for number in range(crash_case.POINTS):
            self.victim.writers.wait_writing()
            method, params = self.request()
            # Under a load the long ones take tenths of a second.
            longest = self.random.choice((0.02, 0.2))
            kind, delay = self.kind(), self.random.uniform(0, longest)
            self.story.append(
                f'{number}: {kind} {delay * 1000:.1f} ms after '
                f'{method} {params}'
            )
            with crash_case.send(self.target, method, **params) as answer:
                time.sleep(delay)
                self.victim.kill(kind)
                if kind == 'daemon':
                    # The target is there still, and at work.
                    answer.settimeout(60)
                    self.story.append(f'-> {answer.recv(4096)!r}')
            self.assert_disk_right()
            self.look_at_volumes()

    def request(self) -> tuple[str, dict[str, Any]]:
        """One of those that change chains."""
        names = sorted(self.snapshots)
        volume = f'{POOL}/volume'
        while len(names) < 2:
            # What is there for the others, and not disturbed.
            name, params = self.snapshot()
            self.target.rpc.call('bdev_lvol_snapshot', **params)
            names.append(name)
            self.victim.writers.wait_writing()
        kinds = ['snapshot', 'resize', 'limit', 'delete', 'delete']
        kinds += ['inflate', 'decouple', 'clone']
        if len(names) > 3:
            kinds = ['delete', 'inflate']
        kind = self.random.choice(kinds)
        if kind == 'snapshot':
            return 'bdev_lvol_snapshot', self.snapshot()[1]
        if kind == 'clone':
            return 'bdev_lvol_clone', {
                'snapshot_name': f'{POOL}/{self.random.choice(names)}',
                'clone_name': 'clone',
            }
        if kind == 'delete':
            return 'bdev_lvol_delete', {
                'name': f'{POOL}/{self.random.choice(names)}'
            }
        if kind == 'resize':
            self.size += 4
            return 'bdev_lvol_resize', {
                'name': volume,
                'size_in_mib': self.size,
            }
        if kind == 'limit':
            return 'bdev_set_qos_limit', {
                'name': volume,
                'rw_ios_per_sec': 100000,
            }
        method = {
            'inflate': 'bdev_lvol_inflate',
            'decouple': 'bdev_lvol_decouple_parent',
        }[kind]
        return method, {'name': volume}

    def snapshot(self) -> tuple[str, dict[str, Any]]:
        """A new one's name, and how to ask for it."""
        self.number += 1
        name = f's{self.number}'
        self.snapshots[name] = (self.victim.writers.rounds(), None)
        params = {'lvol_name': f'{POOL}/volume', 'snapshot_name': name}
        return name, params

    def look_at_volumes(self) -> None:
        """What there is now is what there may be, with its data."""
        lvols = {
            lvol['name']: lvol
            for lvol in self.target.rpc.call(
                'bdev_lvol_get_lvols', lvs_name=POOL
            )
        }
        self.assertFalse(any(v['is_degraded'] for v in lvols.values()))
        clone = lvols.pop('clone', None)
        if clone is not None:
            self.assert_on_disk(f'{POOL}/clone', [0] * 4)
            self.target.rpc.call('bdev_lvol_delete', name=f'{POOL}/clone')
        lvols.pop('volume')
        self.assertLessEqual(set(lvols), set(self.snapshots))
        for name, (rounds, digest) in list(self.snapshots.items()):
            if name not in lvols:
                del self.snapshots[name]
                continue
            now = self.assert_on_disk(f'{POOL}/{name}', rounds)
            self.assertIn(digest, (None, now), name)
            self.snapshots[name] = rounds, now
        size = self.target.lvol(f'{POOL}/volume')['num_blocks'] * 512
        self.assertEqual(0, size % (4 * MIB))
        self.assertLessEqual(64 * MIB, size)
        self.assertLessEqual(size, self.size * MIB)
        self.size = size // MIB
        self.assertEqual(size, self.victim.guest.disk('vda').size)
