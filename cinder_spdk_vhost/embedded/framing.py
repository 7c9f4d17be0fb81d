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

"""Cutting a stream of bytes into JSON values.

SPDK reads values one after another, with or without white space between
them, from a buffer of 256 KiB. What can no longer become JSON ends the
connection; what may still become JSON waits for more.
"""

from json import JSONDecoder
import re
from typing import Any

from cinder_spdk_vhost.embedded import decode

BUFFER_SIZE = 256 * 1024
MAX_VALUES = 8192
MAX_DEPTH = 64

# The groups of the pattern below.
_STRING, _PUNCTUATION = 1, 4

# What may come first in an array and in an object.
_INSIDE = {'[': 'value]', '{': 'name}'}

_OF_A_NUMBER = frozenset('0123456789.eE+-')

# No request below this length can hold more values than are allowed.
_SURELY_FEW = MAX_VALUES

_WHITE = re.compile(r'[ \t\n\r]*')
# In this order: white space, a whole string, a number, a word, punctuation.
_TOKEN = re.compile(
    r'[ \t\n\r]+'
    r'|("[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
    r'[^"\\\x00-\x1f]*)*")'
    r'|(-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)'
    r'|(true|false|null)'
    r'|([\[\]{},:])'
)
# The beginning of a token that the end of the buffer cut short.
_CUT = re.compile(
    r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})'
    r'[^"\\\x00-\x1f]*)*'
    r'(?:\\(?:u[0-9a-fA-F]{0,3})?)?\Z'
    r'|-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?(?:(?<=[0-9])[eE][+-]?[0-9]*)?)?\Z'
    r'|(?:t|tr|tru|f|fa|fal|fals|n|nu|nul)\Z'
)


def _refuse_constant(_text: str) -> None:
    raise ValueError('NaN and Infinity are not JSON')


_DECODER = JSONDecoder(
    object_pairs_hook=decode.json_object, parse_constant=_refuse_constant
)


def split(data: bytes | bytearray) -> tuple[list[Any], int, bool]:
    """Take all complete values off the front of a buffer.

    :return: the values, how many bytes they took, and whether what follows
        them is beyond repair
    """
    try:
        text, cut = data.decode('utf-8'), 0
    except UnicodeDecodeError as error:
        # A character cut in two at the end may still be completed.
        text = data[: error.start].decode('utf-8')
        cut = len(data) - error.start
        if error.end < len(data) or cut > 3:
            return *_values(text)[:2], True
    values, taken, broken = _values(text)
    if cut and not broken and taken == len(text.encode()):
        # The cut character stands where a value would begin.
        broken = True
    return values, taken, broken


def _values(text: str) -> tuple[list[Any], int, bool]:
    values: list[Any] = []
    position, broken = 0, False
    length = len(text)
    while True:
        start = _WHITE.match(text, position).end()  # type: ignore[union-attr]
        if start == length:
            break
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            broken = not _may_continue(text, start)
            break
        number = value.__class__ in (int, float)
        if number and end == length:
            break  # more digits may follow
        if (number and text[end] in _OF_A_NUMBER) or not _acceptable(
            text, start, end
        ):
            broken = True
            break
        values.append(value)
        position = end
    taken = position if text.isascii() else len(text[:position].encode())
    return values, taken, broken


def _acceptable(text: str, start: int, end: int) -> bool:
    """What SPDK's parser refuses and Python's takes."""
    if end - start > _SURELY_FEW or text.find('[[', start, end) >= 0:
        count, deepest = _measure(text, start, end)
        if count > MAX_VALUES or deepest > MAX_DEPTH:
            return False
    return text.find('\\ud', start, end) < 0 or _surrogates_paired(
        text[start:end]
    )


def _surrogates_paired(text: str) -> bool:
    codes = [
        int(code, 16)
        for code in re.findall(r'(?<!\\)(?:\\\\)*\\u([0-9a-fA-F]{4})', text)
    ]
    high = False
    for code in codes:
        low = 0xDC00 <= code < 0xE000
        if low != high:
            return False
        high = 0xD800 <= code < 0xDC00
    return not high


def _measure(text: str, start: int, end: int) -> tuple[int, int]:
    """How many values a text has, as SPDK counts them, and how deep."""
    count = depth = deepest = 0
    for match in _TOKEN.finditer(text, start, end):
        mark = match.group(4)
        if mark is None:
            # Names count as values; white space doesn't.
            count += match.lastindex is not None
        elif mark in '[{':
            count += 1
            depth += 1
            deepest = max(deepest, depth)
        elif mark in ']}':
            count += 1
            depth -= 1
    return count, deepest


def _may_continue(text: str, start: int) -> bool:
    """Whether a text that is no JSON value is the beginning of one."""
    stack: list[str] = []
    # What may come next: a value, a name, or punctuation.
    expect = 'value'
    position, length = start, len(text)
    while position < length:
        if _CUT.match(text, position):
            if text[position] == '"':
                return expect in ('value', 'name', 'value]', 'name}')
            return expect in ('value', 'value]')
        match = _TOKEN.match(text, position)
        if match is None:
            return False
        position = match.end()
        kind = match.lastindex
        if kind is None:
            continue
        step = _step(match.group(), kind, expect, stack)
        if step is None or len(stack) > MAX_DEPTH:
            return False
        expect = step
    return True


def _step(mark: str, kind: int, expect: str, stack: list[str]) -> str | None:
    """What may follow a token, or None if the token can't stand here."""
    wants_value = expect in ('value', 'value]')
    if kind == _STRING and expect in ('name', 'name}'):
        return ':'
    if kind != _PUNCTUATION:
        return _after(stack) if wants_value else None
    if mark in '[{':
        stack.append(mark)
        return _INSIDE[mark] if wants_value else None
    if mark == expect:  # a comma or a colon
        return 'name' if mark == ',' and stack[-1] == '{' else 'value'
    begin = {']': '[', '}': '{'}.get(mark)
    if begin and stack[-1:] == [begin] and expect in (',', _INSIDE[begin]):
        stack.pop()
        return _after(stack)
    return None


def _after(stack: list[str]) -> str:
    return ',' if stack else 'end'
