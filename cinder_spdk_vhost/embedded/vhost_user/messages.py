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

"""vhost-user messages: framing, and what the relay reads in them.

Formats and numbers are those of the vhost-user specification
(docs/interop/vhost-user.rst in QEMU): little endian on this side of the
world, a header of three 32-bit words, the payload, and file descriptors
beside the first byte.
"""

import dataclasses
import os
import struct

#: What comes from the guest, or goes back as an answer to it.
SET_MEM_TABLE = 5
SET_VRING_NUM = 8
SET_VRING_ADDR = 9
SET_VRING_BASE = 10
GET_VRING_BASE = 11
SET_VRING_KICK = 12
GET_PROTOCOL_FEATURES = 15
GET_QUEUE_NUM = 17
SET_VRING_ENABLE = 18
SET_BACKEND_REQ_FD = 21
GET_CONFIG = 24
SET_INFLIGHT_FD = 32

#: What the server may say unasked, on a channel of its own.
BACKEND_CONFIG_CHANGE = 2

#: Bits of the protocol's features.
INFLIGHT_SHMFD = 1 << 12

_VERSION = 1
_VERSION_MASK = 3
_REPLY = 4
_RING_INDEX_MASK = 0xFF

#: Bytes. The longest message known is of 268; QEMU's own limit is as low.
MAX_PAYLOAD = 4096
#: As many as a memory table has; nobody sends more.
MAX_FDS = 8

_HEADER = struct.Struct('<3I')
HEADER_SIZE = _HEADER.size
_U32_PAIR = struct.Struct('<2I')
_U64 = struct.Struct('<Q')


class MalformedError(Exception):
    """Not vhost-user, or not such as could be passed on."""


@dataclasses.dataclass
class Message:
    """One message. Its descriptors are its own until it is closed."""

    request: int
    flags: int = _VERSION
    payload: bytes = b''
    fds: list[int] = dataclasses.field(default_factory=list)

    @property
    def is_reply(self) -> bool:
        """Whether it answers one of the same number."""
        return bool(self.flags & _REPLY)

    def encode(self) -> bytes:
        """All but the descriptors."""
        size = len(self.payload)
        return _HEADER.pack(self.request, self.flags, size) + self.payload

    def close(self) -> None:
        """Close its descriptors."""
        while self.fds:
            os.close(self.fds.pop())

    def only_fd(self) -> int | None:
        """The one descriptor that it has, if it is one."""
        return self.fds[0] if len(self.fds) == 1 else None


def parse_header(header: bytes) -> tuple[Message, int]:
    """A message without its payload, and the payload's size in bytes."""
    request, flags, size = _HEADER.unpack(header)
    if flags & _VERSION_MASK != _VERSION:
        raise MalformedError(f'version {flags & _VERSION_MASK} of messages')
    if size > MAX_PAYLOAD:
        raise MalformedError(f'a message of {size} bytes')
    return Message(request, flags), size


def u64(message: Message) -> int:
    """The payload of many: one number."""
    return _unpack(_U64, message)[0]


def with_u64(message: Message, value: int) -> None:
    """Put another number in its place."""
    message.payload = _U64.pack(value)


def ring_and_number(message: Message) -> tuple[int, int]:
    """A ring's index, and what is said of the ring."""
    index, number = _unpack(_U32_PAIR, message)
    return index, number


def ring_of_fd(message: Message) -> int:
    """The ring that a message's descriptor is for."""
    return u64(message) & _RING_INDEX_MASK


def region_count(message: Message) -> int:
    """How many regions a memory table says that it has."""
    return _unpack(_U32_PAIR, message)[0]


def _unpack(layout: struct.Struct, message: Message) -> tuple[int, ...]:
    if len(message.payload) < layout.size:
        raise MalformedError(
            f'request {message.request} with {len(message.payload)} bytes'
        )
    return layout.unpack_from(message.payload)


# offset, size and flags, before a piece of the configuration space
_CONFIG = struct.Struct('<3I')
#: The guest sees sectors of 512 bytes, whatever the blocks are.
_SECTOR = 512


def with_capacity(message: Message, size: int) -> bool:
    """Put a disk's size into a piece of its configuration space.

    The capacity is the first field of ``struct virtio_blk_config``.

    :param size: in bytes
    :returns: whether the piece had the capacity in it
    """
    if len(message.payload) < _CONFIG.size + _U64.size:
        return False  # a refusal has no payload
    offset, length, _ = _CONFIG.unpack_from(message.payload)
    if offset != 0 or length < _U64.size:
        return False
    payload = bytearray(message.payload)
    _U64.pack_into(payload, _CONFIG.size, size // _SECTOR)
    message.payload = bytes(payload)
    return True


@dataclasses.dataclass(frozen=True)
class Inflight:
    """Where a guest keeps which requests are under way, a part a ring.

    ``struct VuVirtqInflight`` of libvhost-user: 16 bytes, then 16 for each
    descriptor, whose first byte says whether it is under way; 64-byte steps.
    """

    size: int
    offset: int
    rings: int
    ring_size: int

    _LAYOUT = struct.Struct('<2Q2H')
    _ENTRY = 16
    _ALIGNMENT = 64

    @classmethod
    def parse(cls, message: Message) -> 'Inflight':
        """What SET_INFLIGHT_FD describes."""
        return cls(*_unpack(cls._LAYOUT, message))

    @property
    def _step(self) -> int:
        size = self._ENTRY * self.ring_size + 2
        return -(-size // self._ALIGNMENT) * self._ALIGNMENT

    def fits(self, file_size: int) -> bool:
        """Whether all rings are in what is mapped, and that in the file."""
        return (
            self._step * self.rings <= self.size
            and self.offset + self.size <= file_size
        )

    def under_way(self, fd: int, ring: int) -> bool:
        """Whether requests of a ring are under way."""
        if ring >= self.rings:
            return False
        begin = self.offset + ring * self._step + self._ENTRY
        marks = os.pread(fd, self._ENTRY * self.ring_size, begin)
        return any(marks[:: self._ENTRY])
