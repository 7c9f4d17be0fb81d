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

"""The daemon's trace, read."""

import unittest

from cinder_spdk_vhost.embedded import basebdevs, bdevs
from cinder_spdk_vhost.embedded.qsd import traffic

OPENED = 'bdrv_open_common bs {} filename "" flags 0x2022 format_name "{}"'
WRITE = 'blk_co_pwritev blk 0x1 bs {} offset 4096 bytes {} flags 0x0'
READ = 'blk_co_preadv blk 0x1 bs {} offset 0 bytes {} flags 0x0'


class TrafficTest(unittest.TestCase):
    def setUp(self) -> None:
        self.traffic = traffic.Traffic()

    def follow(self, address: str) -> bdevs.Bdev:
        bdev = basebdevs.Malloc(f'bdev{address}', 512, 8, None)
        self.traffic.line(OPENED.format(address, traffic.TOP))
        self.assertEqual(address, self.traffic.follow(bdev))
        return bdev

    def test_counts(self) -> None:
        one, two = self.follow('0x10'), self.follow('0x20')
        for line in (
            WRITE.format('0x10', 512),
            WRITE.format('0x10', 1024),
            READ.format('0x10', 4096),
            READ.format('0x20', 8192),
            WRITE.format('0x30', 512),
        ):
            self.traffic.line(line)
        self.assertEqual(
            (2, 1536, 1, 4096),
            (
                one.io.num_write_ops,
                one.io.bytes_written,
                one.io.num_read_ops,
                one.io.bytes_read,
            ),
        )
        self.assertEqual((0, 8192), (two.io.num_write_ops, two.io.bytes_read))
        self.assertEqual({one}, self.traffic.written())
        self.assertEqual(set(), self.traffic.written())
        self.assertEqual({one}, self.traffic.writing())
        # The write may have ended after it was looked at.
        self.assertEqual({one}, self.traffic.written())
        self.assertEqual(set(), self.traffic.writing())
        self.assertEqual(set(), self.traffic.written())

    def test_other_nodes_are_not_followed(self) -> None:
        self.traffic.line(OPENED.format('0x10', traffic.TOP))
        self.traffic.line(OPENED.format('0x11', 'qcow2'))
        bdev = basebdevs.Malloc('bdev', 512, 8, None)
        self.assertEqual('0x10', self.traffic.follow(bdev))

    def test_closed(self) -> None:
        one, two = self.follow('0x10'), self.follow('0x20')
        self.traffic.leave('0x10')
        self.traffic.line(WRITE.format('0x10', 512))
        self.traffic.forget()
        self.traffic.line(WRITE.format('0x20', 512))
        self.assertEqual((0, 0), (one.io.num_write_ops, two.io.num_write_ops))

    def test_what_the_daemon_says_is_logged(self) -> None:
        with self.assertLogs(traffic.LOG, 'WARNING') as logs:
            self.traffic.line('qemu-storage-daemon: no such thing')
            self.traffic.line('')
            self.traffic.line('bdrv_open_common something new')
        self.assertEqual(1, len(logs.output))
