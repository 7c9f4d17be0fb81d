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

"""Block devices: names, who has them open, who claims them."""

from collections.abc import Callable, Iterator
import errno
from typing import Any
import uuid as uuids

from cinder_spdk_vhost.embedded import errors, qos

EXCLUSIVE_WRITE = 'exclusive_write'
READ_MANY_WRITE_ONE = 'read_many_write_one'

_IO_TYPES = (
    'read',
    'write',
    'unmap',
    'flush',
    'reset',
    'nvme_admin',
    'nvme_io',
    'nvme_io_md',
    'write_zeroes',
    'zcopy',
    'get_zone_info',
    'zone_management',
    'zone_append',
    'compare',
    'compare_and_write',
    'abort',
    'seek_hole',
    'seek_data',
    'copy',
    'nvme_iov_md',
    'nvme_nssr',
    'write_uncorrectable',
)

_IOSTAT = (
    'bytes_read',
    'num_read_ops',
    'bytes_written',
    'num_write_ops',
    'bytes_unmapped',
    'num_unmap_ops',
    'bytes_copied',
    'num_copy_ops',
    'read_latency_ticks',
    'max_read_latency_ticks',
    'min_read_latency_ticks',
    'write_latency_ticks',
    'max_write_latency_ticks',
    'min_write_latency_ticks',
    'unmap_latency_ticks',
    'max_unmap_latency_ticks',
    'min_unmap_latency_ticks',
    'copy_latency_ticks',
    'max_copy_latency_ticks',
    'min_copy_latency_ticks',
)

#: The CPU's and the accelerator's memory, as a malloc bdev offers them.
_MEMORY_DOMAINS = ('DMA', 'ACCEL')


def io_types(*supported: str) -> dict[str, bool]:
    """All I/O types, in SPDK's order, with whether they are supported."""
    return {name: name in supported for name in _IO_TYPES}


class Io:
    """What was done to a bdev since it is there, or since a reset.

    Latencies are not measured, and stay 0.
    """

    __slots__ = (
        'bytes_read',
        'bytes_written',
        'num_read_ops',
        'num_write_ops',
    )

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.bytes_read = 0
        self.num_read_ops = 0
        self.bytes_written = 0
        self.num_write_ops = 0

    def describe(self) -> dict[str, Any]:
        """All counters, as ``bdev_get_iostat`` shows them."""
        counted = {name: getattr(self, name) for name in self.__slots__}
        return {**dict.fromkeys(_IOSTAT, 0), **counted, 'io_error': {}}


class Descriptor:
    """Somebody's open handle on a bdev.

    :param on_remove: called when the bdev is deleted under its user
    :ivar on_resize: called when the bdev has another size
    """

    __slots__ = ('_channels', 'bdev', 'on_remove', 'on_resize')

    def __init__(self, bdev: 'Bdev', on_remove: Callable[[], None]) -> None:
        self.bdev = bdev
        self.on_remove = on_remove
        self.on_resize: Callable[[], None] = lambda: None
        self._channels = 0

    def open_channel(self) -> None:
        """This user can do I/O from now on."""
        self._channels += 1
        self.bdev.channels += 1
        self.bdev.qos.channel_opened()

    def close_channel(self) -> None:
        """One channel less."""
        self._channels -= 1
        self.bdev.channels -= 1

    def claim(self, kind: str) -> None:
        """Keep other writers out; refused when another did so already."""
        if self.bdev.claim is not None:
            raise errors.Errno(errno.EPERM)
        self.bdev.claim = (kind, self)

    def close(self) -> None:
        """Give the bdev up, its channels and its claim with it."""
        bdev = self.bdev
        bdev.channels -= self._channels
        self._channels = 0
        if bdev.claim is not None and bdev.claim[1] is self:
            bdev.claim = None
        bdev.descriptors.remove(self)
        if not bdev.descriptors:
            bdev.qos.last_descriptor_closed()


class Bdev:
    """What all bdevs have in common."""

    product_name = ''
    supported = io_types()
    #: None where SPDK doesn't say
    numa_id: int | None = None
    memory_domains = False

    def __init__(
        self, name: str, block_size: int, num_blocks: int, uuid: str | None
    ) -> None:
        self.name = name
        self.block_size = block_size
        self.num_blocks = num_blocks
        self.uuid = uuid or str(uuids.uuid4())
        self.alias = self.uuid
        self.claim: tuple[str, Descriptor] | None = None
        self.descriptors: list[Descriptor] = []
        self.channels = 0
        self.qos = qos.Qos()
        self.io = Io()

    def driver_specific(self) -> dict[str, Any]:
        """What only this kind of bdev has to say."""
        return {}

    def open(self, on_remove: Callable[[], None]) -> Descriptor:
        """Open for writing: not what somebody claims."""
        if self.claim is not None:
            raise errors.Errno(errno.EPERM)
        descriptor = Descriptor(self, on_remove)
        self.descriptors.append(descriptor)
        return descriptor

    def change_size(self, num_blocks: int) -> None:
        """Grow at any time, shrink only while nobody has it open."""
        if num_blocks < self.num_blocks and self.descriptors:
            raise errors.Errno(errno.EBUSY)
        self.num_blocks = num_blocks
        for descriptor in self.descriptors:
            descriptor.on_resize()

    def describe(self) -> dict[str, Any]:
        """The bdev as ``bdev_get_bdevs`` shows it."""
        about: dict[str, Any] = {
            'name': self.name,
            'aliases': [self.alias],
            'product_name': self.product_name,
            'block_size': self.block_size,
            'num_blocks': self.num_blocks,
            'preferred_write_alignment': 0,
            'preferred_write_granularity': 0,
            'optimal_write_size': 0,
            'preferred_unmap_alignment': 0,
            'preferred_unmap_granularity': 0,
            'uuid': self.uuid,
        }
        if self.numa_id is not None:
            about['numa_id'] = self.numa_id
        about['assigned_rate_limits'] = dict(
            zip(qos.NAMES, self.qos.limits, strict=True)
        )
        about['claimed'] = self.claim is not None
        if self.claim is not None:
            about['claim_type'] = self.claim[0]
        about['zoned'] = False
        about['supported_io_types'] = self.supported
        if self.memory_domains:
            about['memory_domains'] = [
                {'dma_device_type': kind} for kind in _MEMORY_DOMAINS
            ]
        about['driver_specific'] = self.driver_specific()
        return about


class Registry:
    """All bdevs, found by name and alias in one step."""

    def __init__(self) -> None:
        self._bdevs: dict[str, Bdev] = {}
        self._names: dict[str, Bdev] = {}
        #: called with each new bdev, so that what is on it comes up
        self.examine: Callable[[Bdev], None] = lambda _bdev: None
        #: called with each new bdev: somebody waits for one
        self.waiters: set[Callable[[Bdev], None]] = set()

    def __iter__(self) -> Iterator[Bdev]:
        return iter(self._bdevs.values())

    def find(self, name: str) -> Bdev | None:
        """A bdev by its name or alias."""
        return self._names.get(name)

    def get(self, name: str) -> Bdev:
        """A bdev by its name or alias, or no such device."""
        bdev = self._names.get(name)
        if bdev is None:
            raise errors.Errno(errno.ENODEV)
        return bdev

    def register(self, bdev: Bdev) -> None:
        """Add a bdev; its name and alias must be free."""
        if not bdev.name:
            raise errors.Errno(errno.EINVAL)
        names = self._names
        if bdev.name in names or bdev.uuid in names or bdev.alias in names:
            raise errors.Errno(errno.EEXIST)
        self._bdevs[bdev.name] = bdev
        names[bdev.name] = names[bdev.uuid] = names[bdev.alias] = bdev
        self.examine(bdev)
        for look in tuple(self.waiters):
            look(bdev)

    def rename_alias(self, bdev: Bdev, alias: str) -> None:
        """Give a bdev another alias."""
        if alias in self._names:
            raise errors.Errno(errno.EEXIST)
        del self._names[bdev.alias]
        bdev.alias = alias
        self._names[alias] = bdev

    def unregister(self, bdev: Bdev) -> None:
        """Take a bdev away, in use or not: its users are told."""
        del self._bdevs[bdev.name]
        for name in {bdev.name, bdev.uuid, bdev.alias}:
            del self._names[name]
        for descriptor in tuple(bdev.descriptors):
            descriptor.on_remove()
