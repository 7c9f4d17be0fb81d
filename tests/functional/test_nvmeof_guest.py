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

"""A guest with a distribution's kernel uses volumes over NVMe/TCP.

Here the guest is the host that a volume is attached to: its own initiator
connects to what the driver exported.
"""

import contextlib
import pathlib
import socket
from typing import Any, ClassVar
import unittest

from cinder import exception

from tests.fixtures import driver as fixture
from tests.fixtures import guest as guest_fixture
from tests.fixtures import target as target_fixture
from tests.fixtures.guest import Disk, pattern
from tests.fixtures.guest.hotplug import HotplugGuest
from tests.functional import driver_case

# QEMU's user network has its host's loopback there, and no need to be root.
_GATEWAY = '10.0.2.2'
# Nobody boots from it: a ROM would be one more package to install.
_CARD = 'virtio-net-pci,netdev=n,romfile='
_NETWORK = ('-netdev', 'user,id=n', '-device', _CARD)
_SET_UP = (
    'modprobe virtio_net; modprobe nvme-tcp\n'
    'ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0'
)
_CONNECT_SECONDS = 120


class TestNvmeofGuest(driver_case.DriverTestCase):
    """One guest for all tests; each leaves it without connections."""

    zeroing = True
    guest: ClassVar[HotplugGuest]

    @classmethod
    def setUpClass(cls) -> None:
        if target_fixture.real_url() is None:
            raise unittest.SkipTest(
                'the embedded target serves no data over a network: SPDK_RPC '
                'has to name a real one'
            )
        if reason := guest_fixture.unavailable():
            raise unittest.SkipTest(reason)
        super().setUpClass()

    @classmethod
    def start_more(
        cls, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        super().start_more(directory, stack)
        portal = f'tcp://127.0.0.1:{_free_port()}'
        cls.options = {'spdk_nvmf_portals': [portal]}
        cls.guest = HotplugGuest(args=_NETWORK)
        # Before the target goes: that does not end well under a guest.
        stack.callback(cls.guest.kill)
        cls.guest.start()
        cls.guest.run(_SET_UP)

    def attach(self, volume: Any, connector: Any) -> tuple[Any, Any]:
        """Cinder's row of an attachment, and what the host is told."""
        answer = self.driver.initialize_connection(volume, connector)
        return fixture.attach(volume, connector), answer['data']

    def detach(self, volume: Any, row: Any) -> None:
        self.driver.terminate_connection(volume, row.connector)
        volume.volume_attachment.objects.remove(row)
        self.driver.remove_export(None, volume)
        self.settle()

    def connect(self, export: Any, host: str) -> str:
        """Have the guest connect as a host, as nvme-cli does.

        :param export: what the driver told some host
        :param host: the NQN to come with
        :returns: the disk's name in the guest
        :raises CommandError: it is refused
        """
        [(_, port, transport)] = export['portals']
        options = {
            'nqn': export['target_nqn'],
            'transport': transport,
            'traddr': _GATEWAY,
            'trsvcid': port,
            'hostnqn': host,
            # Newer kernels want one of these for each host NQN.
            'hostid': host.rpartition(':')[2],
        }
        words = ','.join(f'{key}={value}' for key, value in options.items())
        self.guest.run(f'echo {words} >/dev/nvme-fabrics', _CONNECT_SECONDS)
        self.addCleanup(self.disconnect)
        # By its id, as os-brick finds it. With native multipath each path is
        # a disk as well, but none that can be opened.
        found = self.guest.run(
            'for i in $(seq 200); do\n'
            'cd /sys/block; for disk in *; do\n'
            f'if grep -qsx {export["vol_uuid"]} $disk/uuid && '
            '[ -b /dev/$disk ]; then echo $disk; exit; fi\n'
            'done; sleep 0.1; done; ls /sys/block >&2; exit 1'
        )
        return found.strip()

    def disconnect(self) -> None:
        """From everything; it is over when this returns."""
        self.guest.run(
            'for path in /sys/class/nvme/nvme*/delete_controller; do\n'
            'if [ -e $path ]; then echo 1 >$path; fi; done'
        )

    def facts(self, disk: str) -> dict[str, str]:
        keys = ('uuid', 'nguid', 'size', 'ro')
        found = self.guest.run(f'cd /sys/block/{disk}; cat {" ".join(keys)}')
        return dict(zip(keys, found.splitlines(), strict=True))

    def read(self, disk: str, first: int, count: int = 1) -> list[str]:
        return pattern.read(self.guest, disk, first, count)

    def test_a_volume_is_found_and_used(self) -> None:
        """In over the network twice, and then on the target's own host."""
        volume = self.volume()
        connector = fixture.remote(1)
        row, export = self.attach(volume, connector)
        disk = self.connect(export, connector['nqn'])
        self.assertEqual(
            {
                'uuid': volume.id,
                'nguid': volume.id,
                'size': str(driver_case.GIB // 512),
                'ro': '0',
            },
            self.facts(disk),
        )
        self.assertEqual([pattern.ZEROS] * 2, self.read(disk, 0, 2))
        pattern.write(self.guest, disk, 'first', 0, 2)
        pattern.write(self.guest, disk, 'end', 1023)
        self.assertEqual(['first', 'first'], self.read(disk, 0, 2))

        before = self.target.dump()
        error = self.assertRaises(
            exception.VolumeBackendAPIException,
            self.driver.terminate_connection,
            volume,
            connector,
        )
        self.assertIn(f'{connector["nqn"]} is connected', str(error))
        self.assertEqual(before, self.target.dump())
        self.assertEqual(['end'], self.read(disk, 1023))
        self.disconnect()
        self.detach(volume, row)

        connector = fixture.remote(2)
        row, export = self.attach(volume, connector)
        disk = self.connect(export, connector['nqn'])
        self.assertEqual(['first', 'first'], self.read(disk, 0, 2))
        pattern.write(self.guest, disk, 'second', 1)
        self.disconnect()
        self.detach(volume, row)

        row, export = self.attach(volume, self.connector())
        disk = self.guest.plug(Disk(export['vhost']['socket']))
        try:
            self.assertEqual(['first', 'second'], self.read(disk, 0, 2))
            self.assertEqual(['end'], self.read(disk, 1023))
        finally:
            self.guest.unplug(disk)
        self.detach(volume, row)

    def test_only_hosts_on_the_list_get_in(self) -> None:
        volume = self.volume()
        listed, stranger = fixture.remote(1), fixture.remote(2)
        row, export = self.attach(volume, listed)
        self.assert_refused(export, stranger)
        self.connect(export, listed['nqn'])
        # Nor does a host that is in open the door for others.
        self.assert_refused(export, stranger)
        self.disconnect()
        other, _ = self.attach(volume, stranger)
        self.detach(volume, row)
        self.assert_refused(export, listed)
        self.connect(export, stranger['nqn'])
        self.disconnect()
        self.detach(volume, other)

    def assert_refused(self, export: Any, connector: Any) -> None:
        """The target refuses it, not the guest's kernel by itself."""
        self.guest.run('dmesg -c >/dev/null')
        self.assertRaises(
            guest_fixture.CommandError,
            self.connect,
            export,
            connector['nqn'],
        )
        self.assertIn(
            f'{export["target_nqn"]} is not allowed, '
            f'hostnqn: {connector["nqn"]}',
            self.guest.run('dmesg'),
        )


def _free_port() -> int:
    """A port that nobody listens at now."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
