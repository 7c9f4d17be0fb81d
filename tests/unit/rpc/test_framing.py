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

import json

import ddt
from hypothesis import given, settings
from hypothesis import strategies as st
from oslotest import base

from cinder_spdk_vhost.rpc import framing

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False)
)
TEXT = st.text(max_size=8) | st.text('{}[]"\\,: é€😀', max_size=8)
VALUES = st.recursive(
    SCALARS | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
    ),
    max_leaves=12,
)
MESSAGES = st.lists(VALUES, max_size=4) | st.dictionaries(
    TEXT, VALUES, max_size=4
)
ROOM = st.text(' \t\r\n', max_size=3)


def split(data, *sizes):
    """All values of the data, fed in pieces of the sizes and the rest."""
    splitter, values = framing.Splitter(), []
    for size in (*sizes, len(data)):
        values.extend(splitter.feed(data[:size]))
        data = data[size:]
    return [json.loads(value) for value in values], splitter.partial


@ddt.ddt
class SplitterTest(base.BaseTestCase):
    @settings(deadline=None)
    @given(
        st.lists(st.tuples(ROOM, MESSAGES), max_size=4),
        st.lists(st.integers(0, 9)),
        st.booleans(),
    )
    def test_any_values_in_any_pieces(self, messages, sizes, escaped):
        text = ''.join(
            room + json.dumps(message, ensure_ascii=escaped)
            for room, message in messages
        )
        values, partial = split(text.encode(), *sizes)
        self.assertEqual([message for _, message in messages], values)
        self.assertFalse(partial)

    @settings(deadline=None)
    @given(MESSAGES)
    def test_byte_by_byte(self, message):
        data = json.dumps(message, ensure_ascii=False).encode()
        self.assertEqual(([message], False), split(data, *[1] * len(data)))

    @settings(deadline=None)
    @given(MESSAGES)
    def test_a_beginning_is_not_a_value(self, message):
        data = json.dumps(message).encode()
        for size in range(1, len(data)):
            self.assertEqual(([], True), split(data[:size]))

    @settings(deadline=None)
    @given(st.binary(max_size=64), st.lists(st.integers(1, 9)))
    def test_noise(self, noise, sizes):
        # Whatever comes, it ends, and the pieces don't matter.
        def outcome(*sizes):
            splitter, values, data = framing.Splitter(), [], noise
            try:
                for size in (*sizes, len(noise)):
                    for value in splitter.feed(data[:size]):
                        values.append(value)
                    data = data[size:]
            except framing.FramingError:
                values.append(None)
            return values

        self.assertEqual(outcome(), outcome(*sizes))

    @ddt.data(
        b'x',
        b'"text"',
        b'1',
        b'true',
        b']',
        b'}',
        b'{} ,{}',
        b'\0',
        b'HTTP/1.1 400 Bad Request\r\n',
        b'\xef\xbb\xbf{}',
    )
    def test_garbage(self, data):
        self.assertRaises(framing.FramingError, split, data)
        self.assertRaises(framing.FramingError, split, data, *[1] * len(data))

    def test_values_before_garbage_are_given(self):
        values = []
        with self.assertRaises(framing.FramingError):
            for value in framing.Splitter().feed(b'{"a": 1}[] garbage'):
                values.append(value)
        self.assertEqual([b'{"a": 1}', b'[]'], values)

    @ddt.data(b'[' + b' ' * 20, b'["' + b'x' * 20, b'[' + b'1,' * 9 + b'1]')
    def test_too_large(self, data):
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            splitter = framing.Splitter(limit=16)
            with self.assertRaises(framing.FramingError):
                for piece in pieces:
                    list(splitter.feed(piece))

    def test_many_small_values_are_not_too_large(self):
        splitter = framing.Splitter(limit=16)
        self.assertEqual(99, len(list(splitter.feed(b'{"a": [1]}' * 99))))
