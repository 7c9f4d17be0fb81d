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

"""A full disk is told of, once for each volume."""

import unittest
from unittest import mock

from cinder_spdk_vhost.embedded.qsd import space


class SpaceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.space = space.Space('/state')
        self.free = 0
        patch = mock.patch('os.statvfs', self.statvfs)
        patch.start()
        self.addCleanup(patch.stop)

    def statvfs(self, path: str) -> mock.Mock:
        self.assertEqual('/state', path)
        return mock.Mock(f_bavail=self.free, f_bfree=self.free, f_frsize=4096)

    def test_room(self) -> None:
        self.free = 1024
        self.assertFalse(self.space.full())
        with self.assertNoLogs(space.LOG):
            self.space.look(['pool/a'])

    def test_full(self) -> None:
        self.free = 1023
        self.assertTrue(self.space.full())
        with self.assertLogs(space.LOG) as logs:
            self.space.look(['pool/b', 'pool/a'])
            self.space.look(['pool/a'])
            self.space.look(['pool/c', 'pool/a'])
            self.free = 1024
            self.space.look([])
            self.space.look([])
            self.free = 0
            self.space.look(['pool/a'])
        texts = [record.getMessage() for record in logs.records]
        self.assertEqual(4, len(texts), texts)
        self.assertIn('writes fail on pool/a, pool/b', texts[0])
        self.assertIn('writes fail on pool/c', texts[1])
        self.assertIn('room under /state again', texts[2])
        self.assertIn('writes fail on pool/a', texts[3])
