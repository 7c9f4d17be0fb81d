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

"""A stream of bytes, cut into JSON values."""

from collections.abc import Iterator
import re

# The largest answer that is taken in. SPDK's own send buffer ends at 32 MiB
# (SPDK_JSONRPC_SEND_BUF_SIZE_MAX).
MAX_VALUE = 64 * 1024 * 1024

_SPACE = re.compile(rb'[ \t\r\n]*+')
# Everything up to the next bracket, whole strings included: brackets in a
# string are text. It matches anywhere, with a group that tells what is next:
# an opening bracket, a closing one, the quote of a string that is not
# complete yet, or none at the end.
_STEP = re.compile(
    rb'(?:[^"\[\]{}]++|"(?:[^"\\]++|\\.)*+")*+(?:([\[{])|([\]}])|(")|\Z)',
    re.DOTALL,
)
_OPENING, _CLOSING, _QUOTE = 1, 2, 3
# The rest of a string, up to its quote or to a backslash whose partner has
# not come yet.
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)


class FramingError(ValueError):
    """The bytes can't be the beginning of a JSON object or array."""


class Splitter:
    """Cuts a stream of JSON objects and arrays into single ones.

    Only brackets and strings are looked at; whether a value is sound is for
    the JSON parser. Each byte is looked at once, however the stream is
    chopped, except that a string which is cut in two is begun again. That
    happens once a string: from then on the splitter remembers that it is
    inside one.

    :param limit: bytes that one value may have
    """

    def __init__(self, limit: int = MAX_VALUE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._position = 0  # everything before was looked at
        self._depth = 0
        self._in_string = False

    @property
    def partial(self) -> bool:
        """Whether a value has begun and not ended."""
        return self._depth > 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Take a chunk in, give the values that it completes.

        :raises FramingError: on bytes that are not JSON-RPC, and on a value
            over the limit; the values before them are given first
        """
        self._buffer += chunk
        start = 0
        while self._next_end():
            if self._position - start > self._limit:
                break
            yield bytes(self._buffer[start : self._position])
            start = self._position
        del self._buffer[:start]
        self._position -= start
        if len(self._buffer) > self._limit:
            raise FramingError(f'a value has more than {self._limit} bytes')

    def _next_end(self) -> bool:
        """Go on to where the value ends; False if that has not come yet."""
        while self._position < len(self._buffer):
            if self._in_string:
                if not self._leave_string():
                    return False
            elif not self._depth:
                self._position = _end(_SPACE, self._buffer, self._position)
                if self._position == len(self._buffer):
                    return False
                if self._buffer[self._position] not in b'[{':
                    raise FramingError('neither an object nor an array')
            if self._walk():
                return True
        return False

    def _leave_string(self) -> bool:
        position = _end(_REST_OF_STRING, self._buffer, self._position)
        self._position = position
        if self._buffer[position : position + 1] != b'"':
            return False
        self._position += 1
        self._in_string = False
        return True

    def _walk(self) -> bool:
        """From bracket to bracket, to the value's end or that of the data."""
        depth, position = self._depth, self._position
        for step in _STEP.finditer(self._buffer, position):
            position = step.end()
            what = step.lastindex
            if what == _OPENING:
                depth += 1
            elif what == _CLOSING:
                depth -= 1
                if not depth:
                    break
            else:
                self._in_string = what == _QUOTE
                break
        self._depth, self._position = depth, position
        return not depth


def _end(pattern: re.Pattern[bytes], buffer: bytearray, start: int) -> int:
    match = pattern.match(buffer, start)
    assert match is not None  # all of them match the empty string
    return match.end()
