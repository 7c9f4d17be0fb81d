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

"""The limits of a volume type hold for a guest that wants more."""

from concurrent import futures
import operator

from tests.fixtures.guest import load
from tests.functional import guest_case
from tests.functional.guest_case import KIB, MIB

SECONDS = 10
TRIES = 3
NEAR = 0.05

iops = operator.attrgetter('iops')
bandwidth = operator.attrgetter('bytes_per_second')


class LimitsTest(guest_case.GuestHttpTestCase):
    """One guest, and a disk for each kind of limit.

    Low ones, so that the processor is not what limits.
    """

    def setUp(self):
        super().setUp()
        self.disks = {}
        for name, specs in (
            ('total_iops', {'total_iops_sec': '1000'}),
            ('total_bytes', {'total_bytes_sec': str(2 * MIB)}),
            ('write_bytes', {'write_bytes_sec': str(MIB)}),
        ):
            volume = self.volume(volume_type=self.type(specs).id)
            self.disks[name] = volume, self.attach_to(volume)
        # A guest's many small requests cost it much; this way its kernel
        # makes them of few large ones.
        _, disk = self.disks['total_iops']
        queue = f'/sys/block/{disk}/queue'
        self.guest().run(f'echo 4 >{queue}/max_sectors_kb')

    def test_limits_are_real(self):
        self.assert_rates(
            total_iops=1000, total_bytes=2 * MIB, write_bytes=MIB
        )
        # Others take effect while the guest runs.
        self.set_limit('total_iops', rw_ios_per_sec=2000)
        self.set_limit('total_bytes', rw_mbytes_per_sec=4)
        self.set_limit('write_bytes', w_mbytes_per_sec=3)
        self.assert_rates(
            total_iops=2000, total_bytes=4 * MIB, write_bytes=3 * MIB
        )
        # Reads were never limited here, and now nothing is.
        self.set_limit('write_bytes', w_mbytes_per_sec=0)
        for mode in ('read', 'write'):
            self.assertGreater(
                bandwidth(self.load('write_bytes', mode, 2)), 4 * MIB
            )

    def set_limit(self, disk, **limits):
        volume, _ = self.disks[disk]
        self.target.rpc.call(
            'bdev_set_qos_limit', name=self.alias(volume), **limits
        )

    def load(self, disk, mode, seconds=SECONDS, size=64 * KIB):
        _, name = self.disks[disk]
        return load.run(
            self.guest(), name, mode, seconds, size, workers=2, count=1024
        )

    def loads(self):
        """As much as the guest can on all disks at a time."""
        with futures.ThreadPoolExecutor(len(self.disks)) as executor:
            ios, total, writes = (
                executor.submit(self.load, *arguments)
                for arguments in (
                    ('total_iops', 'write', SECONDS, 256 * KIB),
                    ('total_bytes', 'read'),
                    ('write_bytes', 'write'),
                )
            )
            return {
                'total_iops': iops(ios.result()),
                'total_bytes': bandwidth(total.result()),
                'write_bytes': bandwidth(writes.result()),
            }

    def assert_rates(self, **limits):
        """No disk gives more than its limit, and each gives that much.

        Where it does not, other things may have taken the processor: it
        gets another chance. What is too much is too much at once.
        """
        missed, tries = set(limits), []
        for _ in range(TRIES):
            rates = self.loads()
            tries.append(rates)
            for disk, rate in rates.items():
                self.assertLess(rate, (1 + NEAR) * limits[disk], disk)
                if rate > (1 - NEAR) * limits[disk]:
                    missed.discard(disk)
            if not missed:
                return
        self.fail(f'{missed} did not come near to {limits}: {tries}')
