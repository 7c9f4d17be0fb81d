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

"""Images: which files there are, and what their tables say."""

import os
import pathlib
import shutil
import struct
import subprocess
import tempfile
import unittest

from cinder_spdk_vhost.embedded.qsd import images

KIB, MIB = 1 << 10, 1 << 20
CLUSTER = 4 * MIB


class ImagesTestCase(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, directory)
        self.files = images.Images(os.path.join(directory, 'store'))

    def path(self, image: str) -> pathlib.Path:
        return pathlib.Path(self.files.path(image))

    def broken(self, text: str, image: str = 'a') -> None:
        with self.assertRaises(images.Broken) as caught:
            self.files.clusters(image, CLUSTER)
        self.assertIn(text, str(caught.exception))
        self.assertIn(str(self.path(image)), str(caught.exception))


class FilesTest(ImagesTestCase):
    def test_life(self) -> None:
        self.assertFalse(self.files.exists('a'))
        self.files.remove('a')
        self.files.sweep(set())
        with open(self.files.begin('a'), 'w') as file:
            file.write('old')
        self.assertFalse(self.files.exists('a'))
        self.assertEqual(0, os.path.getsize(self.files.begin('a')))
        self.files.complete('a')
        self.assertTrue(self.files.exists('a'))
        self.assertEqual(0o600, self.path('a').stat().st_mode & 0o777)
        self.files.remove('a')
        self.assertFalse(self.files.exists('a'))

    def test_sweep(self) -> None:
        for name in 'abc':
            self.files.begin(name)
            self.files.complete(name)
        self.files.begin('a')
        self.files.begin('d')
        self.files.sweep({'a', 'b', 'd'})
        self.assertEqual(
            ['a.qcow2', 'b.qcow2'], sorted(os.listdir(self.files.directory))
        )
        self.files.remove_all()
        self.assertFalse(os.path.exists(self.files.directory))
        self.files.remove_all()


@unittest.skipUnless(shutil.which('qemu-io'), 'qemu-utils is not installed')
class TablesTest(ImagesTestCase):
    """What QEMU's own tools have made."""

    def make(
        self, *commands: str, size: str = '1G', options: str = ''
    ) -> None:
        path = self.files.begin('a')
        run = ['qemu-img', 'create', '-q', '-f', 'qcow2']
        if options:
            run += ['-o', options]
        subprocess.run([*run, path, size], check=True)
        self.files.complete('a')
        words = [word for c in commands for word in ('-c', c)]
        subprocess.run(
            ['qemu-io', *words, self.path('a')],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def clusters(self, cluster_size: int = CLUSTER) -> list[int]:
        found = self.files.clusters('a', cluster_size)
        return [n for n in range(found.bit_length()) if found >> n & 1]

    def patch(self, offset: int, data: bytes) -> None:
        with self.path('a').open('r+b') as file:
            file.seek(offset)
            file.write(data)

    def l1(self) -> int:
        return self.files.header('a').l1_offset

    def l2(self) -> int:
        with self.path('a').open('rb') as file:
            file.seek(self.l1())
            (entry,) = struct.unpack('>Q', file.read(8))
        return entry & ((1 << 56) - 1)

    def test_empty(self) -> None:
        self.make()
        self.assertEqual(1 << 30, self.files.header('a').size)
        self.assertEqual([], self.clusters())

    def test_data(self) -> None:
        self.make('write 0 512', 'write 8M 64k', 'write 600M 9M', size='100G')
        self.assertEqual([0, 2, 150, 151, 152], self.clusters())
        self.assertEqual([0, 1], self.clusters(512 * MIB))
        self.assertEqual([0, 128, *range(9600, 9744)], self.clusters(64 * KIB))

    def test_clusters_smaller_than_the_images(self) -> None:
        self.make('write 64k 4k')
        self.assertEqual(list(range(16, 32)), self.clusters(4 * KIB))

    def test_discarded(self) -> None:
        self.make('write 0 4M', 'write 4M 4M', 'discard 0 4M')
        # Zeros that hide a parent's data are the volume's own.
        self.assertIn(self.clusters(), ([1], [0, 1]))

    def test_not_there(self) -> None:
        self.broken('can not be read')

    def test_short(self) -> None:
        self.make()
        os.truncate(self.path('a'), 20)
        self.broken('has 20 bytes and no header')

    def test_zeroed(self) -> None:
        self.make()
        size = self.path('a').stat().st_size
        self.path('a').write_bytes(bytes(size))
        self.broken('is no qcow2 image')

    def test_marked(self) -> None:
        self.make()
        self.patch(72, (2).to_bytes(8))
        self.broken('is marked as corrupt')

    def test_not_closed(self) -> None:
        self.make('write 0 4k', options='lazy_refcounts=on')
        self.patch(72, (1).to_bytes(8))
        self.assertEqual([0], self.clusters())

    def test_features(self) -> None:
        self.make()
        self.patch(72, (16).to_bytes(8))
        self.broken('header that makes no sense')

    def test_huge_tables(self) -> None:
        self.make()
        self.patch(36, (1 << 31).to_bytes(4))
        self.broken('header that makes no sense')

    def test_cut_off(self) -> None:
        self.make('write 0 4M')
        os.truncate(self.path('a'), self.l2() + 100)
        self.broken('has a table beyond its end')

    def test_garbage(self) -> None:
        for where in ('l1', 'l2', 'refcounts'):
            with self.subTest(where):
                self.make('write 0 4M')
                offset = {
                    'l1': self.l1,
                    'l2': self.l2,
                    'refcounts': lambda: (
                        self.files.header('a').refcounts_offset
                    ),
                }[where]()
                self.patch(offset, os.urandom(256))
                self.broken('has a table')

    def test_a_table_in_another(self) -> None:
        self.make('write 0 4M')
        self.patch(self.l1(), (1 << 63 | self.l2() + 512).to_bytes(8))
        self.broken('nonsense')
