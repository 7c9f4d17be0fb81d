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

"""Cutting bytes into JSON values as SPDK does."""

import json
import unittest

from hypothesis import given
from hypothesis import strategies as st

from cinder_spdk_vhost.embedded import framing

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec='utf-8')),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(st.characters(codec='utf-8')), inner, max_size=4
        )
    ),
    max_leaves=12,
)
_TOP = st.lists(_VALUES, max_size=4) | st.dictionaries(
    st.text(st.characters(codec='utf-8')), _VALUES, max_size=4
)


class FramingTest(unittest.TestCase):
    """Whole values come out, beginnings wait, anything else is refused."""

    @given(_TOP, st.booleans(), st.data())
    def test_beginnings_wait(
        self, value: object, escaped: bool, data: st.DataObject
    ) -> None:
        text = json.dumps(value, ensure_ascii=escaped).encode()
        self.assertEqual(([value], len(text), False), framing.split(text))
        cut = data.draw(st.integers(0, len(text) - 1))
        self.assertEqual(([], 0, False), framing.split(text[:cut]))

    @given(st.lists(_TOP, max_size=5), st.sampled_from(['', ' ', '\n\t']))
    def test_several_values(self, values: list[object], gap: str) -> None:
        text = gap.join(map(json.dumps, values)).encode() + b'{'
        taken, length, broken = framing.split(text)
        self.assertEqual(values, taken)
        self.assertLess(length, len(text))
        self.assertFalse(broken)

    def test_what_can_not_become_json(self) -> None:
        for text in (
            b'hello',
            b"{'a':1}",
            b'{"a":1]',
            b'[1,}',
            b'[1 2',
            b'{"a" 1',
            b'{1',
            b'{"a":1,}',
            b'[,',
            b']',
            b'}',
            b'/**/{}',
            b'// x',
            b'NaN',
            b'[NaN]',
            b'[Infinity]',
            b'01 ',
            b'[1.x',
            b'"a\nb"',
            b'"\\x',
            b'"\xff"',
            b'{"a":"\\ud800"}',
            b'{"a":"\\udc00\\ud800"}',
            b'[' * 65,
            b'[' * 65 + b']' * 65,
            b'[' + b'1,' * framing.MAX_VALUES + b'1]',
        ):
            with self.subTest(text=text[:40]):
                self.assertTrue(framing.split(text)[2])

    def test_limits_that_hold(self) -> None:
        for text in (
            b'[' * 64 + b']' * 64,
            b'[' + b'1,' * (framing.MAX_VALUES - 3) + b'1]',
            b'{"a":"\\ud83d\\ude00"}',
        ):
            with self.subTest(text=text[:40]):
                values, length, broken = framing.split(text)
                self.assertEqual((1, len(text)), (len(values), length))
                self.assertFalse(broken)

    def test_a_number_may_go_on(self) -> None:
        self.assertEqual(([], 0, False), framing.split(b'5'))
        self.assertEqual(([5], 1, False), framing.split(b'5 '))

    def test_good_values_before_bad_ones_count(self) -> None:
        self.assertEqual(([{}], 2, True), framing.split(b'{} garbage'))

    def test_a_repeated_member_is_remembered(self) -> None:
        (value,), _, _ = framing.split(b'{"a":1,"a":2}')
        self.assertIsNot(dict, type(value))
