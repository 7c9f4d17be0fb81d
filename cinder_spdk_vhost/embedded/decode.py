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

"""Parameters: what a method takes, declared once and decoded by it.

An SPDK method refuses every parameter that it doesn't know, a missing one,
one given twice and one of another type, all with one and the same error.
"""

from collections.abc import Callable
from typing import Any
import uuid

from cinder_spdk_vhost.embedded import errors

U8 = (1 << 8) - 1
U16 = (1 << 16) - 1
U32 = (1 << 32) - 1
U64 = (1 << 64) - 1

Decoder = Callable[[Any], Any]


#: What a method gets that was called without parameters and may be.
ABSENT: dict[str, Any] = {}


class DecodeFailed(Exception):
    """A value is not what its decoder takes."""


class Repeated(dict[str, Any]):
    """A JSON object that named a member more than once."""


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Keep in mind that a member was repeated: SPDK refuses it."""
    members = dict(pairs)
    return members if len(members) == len(pairs) else Repeated(members)


def string(value: Any) -> str:
    """A string without NUL bytes."""
    if value.__class__ is not str or '\0' in value:
        raise DecodeFailed
    return value


def boolean(value: Any) -> bool:
    """true or false, nothing else."""
    if value.__class__ is not bool:
        raise DecodeFailed
    return value


def _integer(low: int, high: int) -> Decoder:
    def decode(value: Any) -> int:
        if value.__class__ is float and value.is_integer():
            value = int(value)
        if value.__class__ is not int or not low <= value <= high:
            raise DecodeFailed
        return value

    return decode


uint8 = _integer(0, U8)
uint16 = _integer(0, U16)
uint32 = _integer(0, U32)
uint64 = _integer(0, U64)
int32 = _integer(-(1 << 31), (1 << 31) - 1)


def uuid_text(value: Any) -> str:
    """A UUID in its usual form, in lower case."""
    text = string(value)
    try:
        parsed = str(uuid.UUID(text))
    except ValueError as error:
        raise DecodeFailed from error
    if parsed != text.lower():
        raise DecodeFailed
    return parsed


def one_of(*texts: str) -> Decoder:
    """One of the texts."""

    def decode(value: Any) -> str:
        if string(value) not in texts:
            raise DecodeFailed
        return value

    return decode


def strings(limit: int) -> Decoder:
    """A list of at most limit strings."""

    def decode(value: Any) -> list[str]:
        if value.__class__ is not list or len(value) > limit:
            raise DecodeFailed
        return [string(item) for item in value]

    return decode


class Params:
    """What one method takes.

    :param required: the decoders of the parameters that must be there
    :param optional: the decoders of those that may be left out
    :param may_be_absent: whether a request may have no ``params`` at all
    :param relaxed: ignore unknown parameters (only some vhost methods do)
    """

    def __init__(
        self,
        required: dict[str, Decoder] | None = None,
        optional: dict[str, Decoder] | None = None,
        *,
        may_be_absent: bool = False,
        relaxed: bool = False,
        code: int = errors.INTERNAL_ERROR,
        message: str = 'spdk_json_decode_object failed',
    ) -> None:
        self._required = tuple(required or ())
        self._decoders = {**(required or {}), **(optional or {})}
        self._may_be_absent = may_be_absent
        self._relaxed = relaxed
        self._code = code
        self._message = message

    def decode(self, params: Any) -> dict[str, Any]:
        """The decoded parameters, or the method's own decoding error."""
        try:
            return self.members(params)
        except DecodeFailed:
            raise errors.RpcError(self._code, self._message) from None

    def members(self, params: Any) -> dict[str, Any]:
        """Decode an object; also a decoder for an object within one."""
        if params is None:
            if self._may_be_absent:
                return ABSENT
            raise DecodeFailed
        if params.__class__ is not dict:
            # An array, or an object that repeats a member.
            raise DecodeFailed
        decoders = self._decoders
        decoded = {}
        for name, value in params.items():
            decoder = decoders.get(name)
            if decoder is not None:
                decoded[name] = decoder(value)
            elif not self._relaxed:
                raise DecodeFailed
        for name in self._required:
            if name not in decoded:
                raise DecodeFailed
        return decoded
