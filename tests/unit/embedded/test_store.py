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

"""The state file when it can't be written."""

import os
import shutil
import sqlite3
import unittest

from cinder_spdk_vhost.embedded import store
from tests.conformance import process

ROW = ('u', 'n', 1, 1, 1, 1, 1)


class StoreTest(unittest.TestCase):
    def setUp(self) -> None:
        directory = process.temporary_directory()
        self.addCleanup(shutil.rmtree, directory)
        self.path = os.path.join(directory, 'state.sqlite')

    def open(self) -> store.Store:
        opened = store.Store(self.path)
        self.addCleanup(opened.close)
        return opened

    def test_room_is_kept(self) -> None:
        state = self.open()
        for path in (self.path, f'{self.path}-wal'):
            taken = os.stat(path).st_blocks * 512
            self.assertLess(1 << 20, taken)
        before = (
            os.path.getsize(self.path),
            os.path.getsize(self.path + '-wal'),
        )
        for number in range(1000):
            state.save_lvstore((f'u{number}', *ROW[1:]))
            if number % 100 == 99:
                state.commit()
        after = os.path.getsize(self.path), os.path.getsize(self.path + '-wal')
        self.assertEqual(before, after)

    def test_half_of_a_change_is_not_saved(self) -> None:
        state = self.open()
        state.save_lvstore(ROW)
        with self.assertRaises(sqlite3.Error):
            state.save_lvol(('too', 'few'))
        for _ in range(2):
            with self.assertRaises(sqlite3.Error):
                state.commit()
        state.close()
        self.assertIsNone(self.open().lvstore('u'))
