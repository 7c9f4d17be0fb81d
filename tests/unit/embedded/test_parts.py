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

"""The small parts: maps, masks, pools, limits, parameters."""

import unittest

from hypothesis import given
from hypothesis import strategies as st

from cinder_spdk_vhost.embedded import (
    clusters,
    decode,
    errors,
    lvols,
    nvmf,
    pools,
    qos,
    reactors,
)

_MIB = 1 << 20


class ClustersTest(unittest.TestCase):
    """Maps as text."""

    @given(st.integers(min_value=0, max_value=1 << 300))
    def test_round_trip(self, own: int) -> None:
        self.assertEqual(own, clusters.loads(clusters.dumps(own)))

    def test_usual_maps_are_short(self) -> None:
        self.assertEqual('', clusters.dumps(clusters.NONE))
        self.assertEqual('0,262144', clusters.dumps(clusters.first(262144)))


class MaskTest(unittest.TestCase):
    """Core masks."""

    def test_accepted(self) -> None:
        for text, mask in (
            ('0x3', 3),
            ('3', 3),
            ('0XfF', 255),
            ('[0]', 1),
            ('[0,2-3]', 13),
            ('[ 1 , 3 ]', 10),
        ):
            self.assertEqual(mask, reactors.parse_mask(text))

    def test_refused(self) -> None:
        for text in ('', '0', '0x0', 'zz', '-1', '[]', '[3-1]', '[a]', '[1'):
            with self.assertRaises(reactors.MaskError):
                reactors.parse_mask(text)


class PoolTest(unittest.TestCase):
    """--pool."""

    def test_accepted(self) -> None:
        for text, size, kind in (
            ('a=10G', 10 << 30, pools.AIO),
            ('a=500M', 500 << 20, pools.AIO),
            ('a=500MiB:aio', 500 << 20, pools.AIO),
            ('a=1T:malloc', 1 << 40, pools.MALLOC),
            ('a=1048576', 1 << 20, pools.AIO),
        ):
            pool = pools.Pool.parse(text)
            self.assertEqual(
                ('a', size, kind), (pool.name, pool.size, pool.kind)
            )

    def test_refused_and_named(self) -> None:
        for text, named in (
            ('a', 'NAME=SIZE'),
            ('=1G', "''"),
            ('a/b=1G', "'a/b'"),
            ('..=1G', "'..'"),
            (f'{"x" * 64}=1G', '63'),
            ('a=', "''"),
            ('a=10X', "'10X'"),
            ('a=-1G', "'-1G'"),
            ('a=0', "'0'"),
            ('a=1.5G', "'1.5G'"),
            ('a=1G:disk', "'disk'"),
        ):
            with self.assertRaisesRegex(ValueError, named):
                pools.Pool.parse(text)


class LayoutTest(unittest.TestCase):
    """How a store divides its device: figures of real ones."""

    def test_recorded_layouts(self) -> None:
        for size, cluster, data in (
            (2048, 4, 511),
            (2048, 1, 2039),
            (64, 1, 63),
            (1024, 4, 255),
            (256, 1, 254),
        ):
            layout = lvols.Layout.plan(size * _MIB, cluster * _MIB, 100)
            self.assertEqual(data, layout.data_clusters)
            self.assertEqual(32728, layout.most_clusters)

    def test_too_much_metadata(self) -> None:
        with self.assertRaisesRegex(errors.Errno, 'Cannot allocate memory'):
            lvols.Layout.plan(2048 * _MIB, 4096, 100)


class QosTest(unittest.TestCase):
    """The limit that can be set once."""

    def _set(self, limits: qos.Qos, channels: int = 0, **asked: int) -> None:
        if limits.begin(asked, channels):
            limits.finish()

    def test_idle_once(self) -> None:
        limits = qos.Qos()
        self._set(limits, rw_ios_per_sec=0)
        self._set(limits, rw_ios_per_sec=1001, rw_mbytes_per_sec=5)
        self.assertEqual((2000, 5, 0, 0), limits.limits)
        for value in (0, 3000):
            with self.assertRaises(errors.Errno):
                self._set(limits, rw_ios_per_sec=value)

    def test_a_channel_frees_it(self) -> None:
        limits = qos.Qos()
        self._set(limits, rw_ios_per_sec=1000)
        limits.channel_opened()
        self._set(limits, 1, rw_ios_per_sec=3000)
        self._set(limits, 0, rw_ios_per_sec=4000)
        limits.last_descriptor_closed()
        with self.assertRaises(errors.Errno):
            self._set(limits, rw_ios_per_sec=5000)
        self.assertEqual((4000, 0, 0, 0), limits.limits)

    def test_cleared_and_set_again(self) -> None:
        limits = qos.Qos()
        self._set(limits, 1, rw_ios_per_sec=1000)
        self._set(limits, 1, rw_ios_per_sec=0)
        limits.last_descriptor_closed()
        self._set(limits, rw_ios_per_sec=7000)
        self.assertEqual((7000, 0, 0, 0), limits.limits)

    def test_two_changes_in_one_poll(self) -> None:
        limits = qos.Qos()
        limits.begin({'rw_ios_per_sec': 1000}, 1)
        with self.assertRaises(errors.Errno):
            limits.begin({'rw_ios_per_sec': 2000}, 1)


class DecodeTest(unittest.TestCase):
    """Parameters."""

    params = decode.Params(
        {'name': decode.string}, {'size': decode.uint64, 'on': decode.boolean}
    )

    def test_accepted(self) -> None:
        self.assertEqual(
            {'name': 'a', 'size': 2048, 'on': True},
            self.params.decode({'name': 'a', 'size': 2048.0, 'on': True}),
        )

    def test_refused(self) -> None:
        for params in (
            None,
            [],
            ['a'],
            {},
            {'name': 5},
            {'name': None},
            {'name': 'a\0b'},
            {'name': 'a', 'other': 1},
            {'name': 'a', 'size': -1},
            {'name': 'a', 'size': 1.5},
            {'name': 'a', 'size': '1'},
            {'name': 'a', 'size': True},
            {'name': 'a', 'size': 1 << 64},
            {'name': 'a', 'on': 1},
            decode.Repeated(name='a'),
        ):
            with (
                self.subTest(params=params),
                self.assertRaises(errors.RpcError),
            ):
                self.params.decode(params)


class NqnTest(unittest.TestCase):
    """The form of NQNs."""

    def test_forms(self) -> None:
        for nqn, valid in (
            ('nqn.2016-06.io.spdk:a', True),
            ('nqn.2016-06.io.spdk', False),
            ('nqn.2016-06.io.spdk:', False),
            ('iqn.2016-06.io.spdk:a', False),
            ('nqn.2016-06.1o.spdk:x', False),
            (f'nqn.2016-06.io.spdk:{"a" * 203}', True),
            (f'nqn.2016-06.io.spdk:{"a" * 204}', False),
            ('nqn.2014-08.org.nvmexpress:uuid:1111', False),
        ):
            self.assertEqual(valid, nvmf.valid_nqn(nqn), nqn)
