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

"""SPDK's limits as QEMU takes them."""

import unittest

from cinder_spdk_vhost.embedded import qos
from cinder_spdk_vhost.embedded.qsd import limits

MIB = 1 << 20


class LimitsTest(unittest.TestCase):
    def check(self, asked: qos.Limits, *expected: int) -> None:
        names = ('iops-total', 'bps-total', 'bps-read', 'bps-write')
        self.assertEqual(
            dict(zip(names, expected, strict=True)), limits.for_qemu(asked)
        )

    def test_none(self) -> None:
        self.check(qos.NO_LIMITS, 0, 0, 0, 0)

    def test_alone(self) -> None:
        self.check((2000, 0, 0, 0), 2000, 0, 0, 0)
        self.check((0, 3, 0, 0), 0, 3 * MIB, 0, 0)
        self.check((0, 0, 4, 5), 0, 0, 4 * MIB, 5 * MIB)

    def test_total_beside_directions(self) -> None:
        self.check((1000, 3, 0, 5), 1000, 0, 3 * MIB, 3 * MIB)
        self.check((0, 6, 4, 0), 0, 0, 4 * MIB, 6 * MIB)
