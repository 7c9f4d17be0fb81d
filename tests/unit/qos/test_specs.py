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

import ddt
from hypothesis import given
from hypothesis import strategies as st
from oslotest import base

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.qos import specs
from cinder_spdk_vhost.spdk import qos

MIB = 1024**2

# spec -> (field of the limits, what SPDK counts in)
FIELDS = {
    'total_iops_sec': ('rw_ios_per_sec', 1000),
    'total_bytes_sec': ('rw_mbytes_per_sec', MIB),
    'read_bytes_sec': ('r_mbytes_per_sec', MIB),
    'write_bytes_sec': ('w_mbytes_per_sec', MIB),
}


@ddt.ddt
class Specs(base.BaseTestCase):
    def test_the_table_is_complete(self) -> None:
        self.assertEqual(set(FIELDS), set(specs.KEYS))

    def test_nothing_asked(self) -> None:
        self.assertEqual(specs.NONE, specs.parse({}))
        self.assertFalse(specs.NONE.rates)

    @ddt.data(
        ('total_iops_sec', '0', 0, None),
        ('total_iops_sec', '1', 1000, 1000),
        ('total_iops_sec', '999', 1000, 1000),
        ('total_iops_sec', '1000', 1000, None),
        ('total_iops_sec', '1001', 2000, 2000),
        ('total_iops_sec', '1000000000', 10**9, None),
        ('total_bytes_sec', '0', 0, None),
        ('total_bytes_sec', '1', 1, MIB),
        ('total_bytes_sec', str(MIB), 1, None),
        ('total_bytes_sec', str(MIB + 1), 2, 2 * MIB),
        ('total_bytes_sec', '100000000', 96, 96 * MIB),
        ('total_bytes_sec', str(2**50), 2**30, None),
        ('read_bytes_sec', str(5 * MIB), 5, None),
        ('write_bytes_sec', str(5 * MIB - 1), 5, 5 * MIB),
    )
    @ddt.unpack
    def test_rounding(self, key, value, rate, effective) -> None:
        limits = specs.parse({key: value})
        self.assertEqual(
            qos.RateLimits(**{FIELDS[key][0]: rate}), limits.rates
        )
        expected = ()
        if effective is not None:
            expected = (specs.Rounding(key, int(value), effective),)
            self.assertEqual(
                f'{key} {value} becomes {effective}', str(expected[0])
            )
        self.assertEqual(expected, limits.rounded)

    def test_several(self) -> None:
        limits = specs.parse(
            {
                'total_iops_sec': '1500',
                'read_bytes_sec': str(3 * MIB),
                'write_bytes_sec': '7',
            }
        )
        self.assertEqual(qos.RateLimits(2000, 0, 3, 1), limits.rates)
        self.assertEqual(
            {'total_iops_sec': 2000, 'write_bytes_sec': MIB},
            {r.key: r.effective for r in limits.rounded},
        )

    @ddt.data(
        'read_iops_sec',
        'write_iops_sec',
        'total_iops_sec_max',
        'total_iops_sec_per_gb',
        'size_iops_sec',
        'maxIOPS',
        'TOTAL_IOPS_SEC',
        ' total_iops_sec',
        '',
    )
    def test_unknown_key(self, key: str) -> None:
        error = self.assertRaises(
            exceptions.InvalidSpec, specs.parse, {key: '1000'}
        )
        self.assertIn(f'QoS spec {key} ', str(error))
        for accepted in specs.KEYS:
            self.assertIn(accepted, str(error))

    def test_all_unknown_keys_are_named(self) -> None:
        error = self.assertRaises(
            exceptions.InvalidSpec,
            specs.parse,
            {'b': '1', 'total_iops_sec': '1', 'a': '1'},
        )
        self.assertIn('QoS spec a, b is', str(error))

    @ddt.data(
        '-1',
        '+1',
        '',
        ' ',
        ' 5',
        '5\n',
        'x',
        '1.5',
        '1e3',
        '0x10',
        '1_000',
        '１２',
        '1000 IOPS',
        'nan',
        'inf',
        None,
    )
    def test_bad_value(self, value: str) -> None:
        for key in specs.KEYS:
            error = self.assertRaises(
                exceptions.InvalidSpec, specs.parse, {key: value}
            )
            self.assertIn(f'{key} is "{value}"', str(error))
            self.assertIn('whole number from 0', str(error))

    @ddt.data(
        ('total_iops_sec', 10**9),
        ('total_bytes_sec', 2**50),
        ('read_bytes_sec', 2**50),
        ('write_bytes_sec', 2**50),
    )
    @ddt.unpack
    def test_too_much(self, key: str, most: int) -> None:
        specs.parse({key: str(most)})
        for value in (most + 1, 2**64, 10**100):
            error = self.assertRaises(
                exceptions.InvalidSpec, specs.parse, {key: str(value)}
            )
            self.assertIn(f'{key} is "{value}"', str(error))
            self.assertIn(str(most), str(error))

    @ddt.data(
        ('read_bytes_sec',),
        ('write_bytes_sec',),
        ('read_bytes_sec', 'write_bytes_sec'),
    )
    def test_total_excludes_apart(self, apart) -> None:
        asked = dict.fromkeys((*apart, 'total_bytes_sec'), '1048576')
        error = self.assertRaises(exceptions.InvalidSpec, specs.parse, asked)
        self.assertIn(f'excludes {" and ".join(apart)}', str(error))

    @given(
        st.sampled_from(sorted(FIELDS)),
        st.integers(min_value=0, max_value=10**9),
    )
    def test_never_less_and_never_a_step_more(self, key, asked) -> None:
        field, step = FIELDS[key]
        limits = specs.parse({key: str(asked)})
        rate = getattr(limits.rates, field)
        effective = rate if key == 'total_iops_sec' else rate * MIB
        self.assertGreaterEqual(effective, asked)
        self.assertLess(effective, asked + step)
        self.assertEqual(0, effective % step)
        self.assertEqual(
            [] if effective == asked else [(key, asked, effective)],
            [(r.key, r.asked, r.effective) for r in limits.rounded],
        )

    @given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
    def test_nonsense_is_refused(self, asked) -> None:
        if asked:
            error = self.assertRaises(
                exceptions.InvalidSpec, specs.parse, asked
            )
            self.assertIn(min(asked), str(error))

    @given(
        st.sampled_from(sorted(FIELDS)),
        st.text(max_size=20) | st.text('0123456789+-_. １', max_size=12),
    )
    def test_a_value_is_a_number_or_refused(self, key, value) -> None:
        try:
            limits = specs.parse({key: value})
        except exceptions.InvalidSpec as e:
            self.assertIn(key, str(e))
        else:
            self.assertRegex(value, r'^[0-9]+\Z')
            self.assertIsInstance(limits, specs.Limits)
