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

"""What one volume costs does not depend on how many there are."""

from collections.abc import Callable
import sys
from typing import Any
import unittest

from tests.unit.embedded import inprocess


def _steps(action: Callable[[], Any]) -> int:
    """How many functions are called, Python's and others, in an action."""
    count = 0

    def profile(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        if event in ('call', 'c_call'):
            count += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        action()
    finally:
        sys.setprofile(before)
    return count


class ScaleTest(unittest.TestCase):
    """Counted in calls, not in time: iterating over volumes would show."""

    def setUp(self) -> None:
        self.books = inprocess.Books(100 << 30)
        self.addCleanup(self.books.close)
        self._made = 0

    def _fill(self, count: int) -> None:
        while self._made < count:
            self._create(f'filler-{self._made}')
            self._made += 1

    def _create(self, name: str) -> Any:
        return self.books.call(
            'bdev_lvol_create',
            lvs_name='P',
            lvol_name=name,
            size_in_mib=1024,
            thin_provision=True,
        )

    def _costs(self) -> dict[str, int]:
        call = self.books.call
        actions: dict[str, Callable[[], Any]] = {
            'create': lambda: self._create('v'),
            'find by alias': lambda: call('bdev_get_bdevs', name='P/v'),
            'not found': lambda: self.books.target.bdevs.find('P/none'),
            'snapshot': lambda: call(
                'bdev_lvol_snapshot', lvol_name='P/v', snapshot_name='s'
            ),
            'clone': lambda: call(
                'bdev_lvol_clone', snapshot_name='P/s', clone_name='c'
            ),
            'resize': lambda: call(
                'bdev_lvol_resize', name='P/c', size_in_mib=2048
            ),
            'rename': lambda: call(
                'bdev_lvol_rename', old_name='P/c', new_name='d'
            ),
            'limit': lambda: call(
                'bdev_set_qos_limit', name='P/v', rw_ios_per_sec=1000
            ),
            'delete a clone': lambda: call('bdev_lvol_delete', name='P/d'),
            'delete a snapshot': lambda: call('bdev_lvol_delete', name='P/s'),
            'delete': lambda: call('bdev_lvol_delete', name='P/v'),
        }
        return {name: _steps(action) for name, action in actions.items()}

    def test_the_same_at_10_and_at_10000(self) -> None:
        self._fill(10)
        self._costs()  # what is made once, at first use
        few = self._costs()
        self._fill(10_000)
        self._costs()  # the places of what was deleted are taken again
        self.assertEqual(few, self._costs())
