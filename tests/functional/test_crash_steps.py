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

"""The target is killed at the steps of each change to its volumes.

At each of them with ``CRASH_POINTS=100`` or more, in CI at some.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from typing import Any, ClassVar

from oslotest import base

from tests.fixtures import target as targets
from tests.functional import crash_case
from tests.functional.crash_case import MIB

POOL = 'pool'
#: More steps than any change has.
_MOST = 60
_STRIDE = 1 if crash_case.POINTS >= 50 else 4


class Steps(base.BaseTestCase):
    """Volumes are what they were, or what they were to become.

    They are made once, and copied for each step. A chain of snapshots
    ``old``, ``middle`` and ``new``, ``volume`` on it, all with data of their
    own, with a ``clone`` of ``middle``; and ``heir``, which has nothing but
    what its snapshot ``testator`` has.
    """

    directory: ClassVar[pathlib.Path]
    _stack: ClassVar[contextlib.ExitStack]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if targets.real_url():
            cls.skipTest('a target that is not ours is not killed')
        if shutil.which('qemu-storage-daemon') is None:
            cls.skipTest('qemu-storage-daemon is not installed')
        if reason := crash_case.host_disks_unavailable():
            cls.skipTest(reason)
        with contextlib.ExitStack() as stack:
            cls.directory = pathlib.Path(tempfile.mkdtemp(prefix='steps-'))
            stack.callback(shutil.rmtree, cls.directory, ignore_errors=True)
            with targets.EmbeddedTarget(
                cls.directory / 'before', {POOL: '1G'}
            ) as target:
                _make_volumes(target)
            cls._stack = stack.pop_all()

    @classmethod
    def tearDownClass(cls) -> None:
        cls._stack.close()
        super().tearDownClass()

    def copy(self) -> targets.EmbeddedTarget:
        """A target with all the volumes."""
        directory = self.directory / 'copy'
        shutil.rmtree(directory, ignore_errors=True)
        subprocess.run(
            ['cp', '-a', self.directory / 'before', directory], check=True
        )
        return targets.EmbeddedTarget(directory, {POOL: '1G'})

    def look(self, target: targets.EmbeddedTarget) -> dict[str, Any]:
        """Everything that a user can see, the data included."""
        seen = target.dump()['lvols']
        for alias, about in seen.items():
            # A new volume's is its own. Where data was copied in before the
            # end, there are clusters already. Who has no clones any more is
            # a snapshot until the next start.
            for name in ('uuid', 'allocated', 'snapshot'):
                about.pop(name)
            data = crash_case.read_bdev(target, alias, 8 * MIB)
            about['data'] = hashlib.sha256(data).hexdigest()
        return seen

    def check(self, method: str, served: str = '', **params: Any) -> None:
        """Kill before each step of a method until there are no more.

        :param served: a volume that somebody uses meanwhile
        """
        with self.copy() as target:
            before = self.look(target)
            target.rpc.call(method, **params)
            after = self.look(target)
        self.assertNotEqual(before, after)
        outcomes = []
        seed = crash_case.seed()
        for step in range(1 + seed % _STRIDE, _MOST, _STRIDE):
            target = self.copy()
            died = self.die_at(target, step, method, served, params)
            with target:
                seen = self.look(target)
                outcomes.append(seen == after)
                if seen != after:
                    self.assertEqual(before, seen, f'step {step}')
                    target.rpc.call(method, **params)
                self.assert_no_garbage(target)
            if not died:
                break
        # The change is there from some step on.
        self.assertEqual(sorted(outcomes), outcomes)
        self.assertTrue(outcomes[-1])
        self.assertFalse(died)

    def die_at(
        self,
        target: targets.EmbeddedTarget,
        step: int,
        method: str,
        served: str,
        params: dict[str, Any],
    ) -> bool:
        """Whether it died; if not, the request has succeeded."""
        with DyingTarget(target.directory, {POOL: '1G'}) as dying:
            if served:
                dying.rpc.call('nbd_start_disk', bdev_name=served)
            dying.die_at.write_text(str(step))
            try:
                dying.rpc.call(method, **params)
            except ConnectionError:
                dying.wait()
                return True
            # What comes after the answer is no step of it.
            dying.die_at.unlink()
            return False

    def assert_no_garbage(self, target: targets.EmbeddedTarget) -> None:
        (store,) = (target.directory / 'state' / 'images').iterdir()
        lvols = target.rpc.call('bdev_lvol_get_lvols', lvs_name=POOL)
        names = [path.name for path in store.iterdir()]
        self.assertLessEqual(len(names), len(lvols), names)
        self.assertFalse([name for name in names if name.endswith('.new')])

    def test_snapshot(self) -> None:
        self.check(
            'bdev_lvol_snapshot',
            served='pool/volume',
            lvol_name='pool/volume',
            snapshot_name='newest',
        )

    def test_delete_of_what_another_reads(self) -> None:
        self.check('bdev_lvol_delete', name='pool/old')

    def test_delete_of_what_another_takes(self) -> None:
        self.check('bdev_lvol_delete', name='pool/testator')

    def test_delete_of_what_is_served(self) -> None:
        self.check(
            'bdev_lvol_delete', served='pool/volume', name='pool/volume'
        )

    def test_inflate(self) -> None:
        self.check('bdev_lvol_inflate', name='pool/volume')

    def test_decouple(self) -> None:
        self.check('bdev_lvol_decouple_parent', name='pool/volume')

    def test_resize(self) -> None:
        self.check(
            'bdev_lvol_resize',
            served='pool/volume',
            name='pool/volume',
            size_in_mib=24,
        )


class DyingTarget(targets.EmbeddedTarget):
    """See :mod:`tests.fixtures.dying_target`."""

    @property
    def die_at(self) -> pathlib.Path:
        return self.directory / 'die-at'

    def start(self) -> None:
        place = self._command.index('cinder_spdk_vhost.cmd.target')
        self._command[place] = 'tests.fixtures.dying_target'
        self.die_at.unlink(missing_ok=True)
        os.environ['DIE_AT'] = str(self.die_at)
        try:
            super().start()
        finally:
            del os.environ['DIE_AT']

    def wait(self) -> None:
        """Until it is dead."""
        if self._process is not None:
            self._process.wait(20)


def _make_volumes(target: targets.Target) -> None:
    def create(name: str) -> None:
        target.rpc.call(
            'bdev_lvol_create',
            lvs_name=POOL,
            lvol_name=name,
            size_in_mib=16,
            thin_provision=True,
        )

    def write(name: str, letter: bytes, offset: int) -> None:
        with (
            crash_case.host_disk(target, f'{POOL}/{name}') as device,
            open(device, 'r+b') as file,
        ):
            file.seek(offset)
            file.write(letter * MIB)

    def snapshot(origin: str, name: str) -> None:
        target.rpc.call(
            'bdev_lvol_snapshot',
            lvol_name=f'{POOL}/{origin}',
            snapshot_name=name,
        )

    create('volume')
    for number, name in enumerate(('old', 'middle', 'new')):
        write('volume', name[:1].encode(), number * MIB)
        write('volume', name[:1].upper().encode(), 6 * MIB)
        snapshot('volume', name)
    write('volume', b'v', 3 * MIB)
    target.rpc.call(
        'bdev_lvol_clone',
        snapshot_name=f'{POOL}/middle',
        clone_name='clone',
    )
    write('clone', b'c', 5 * MIB)
    create('heir')
    write('heir', b'h', MIB)
    snapshot('heir', 'testator')
