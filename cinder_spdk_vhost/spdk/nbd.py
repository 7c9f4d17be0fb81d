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

"""NBD disks: bdevs as ``/dev/nbdN`` of the target's own host.

Part of every SPDK on Linux; the host's kernel needs its ``nbd`` module.
"""

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request


@dataclasses.dataclass(frozen=True)
class Disk:
    """One of them.

    :ivar device: its path on the target's host
    :ivar bdev: name of the bdev behind it; for an lvol its UUID
    """

    device: str
    bdev: str


def _parse(result: list[dict[str, Any]]) -> list[Disk]:
    return [Disk(data['nbd_device'], data['bdev_name']) for data in result]


def get_all() -> Request[list[Disk]]:
    """All disks: the kernel has 16 devices unless it is told otherwise."""
    return Request('nbd_get_disks', mutates=False, optional=True, parse=_parse)


def start(bdev: str) -> Request[str]:
    """Put a bdev on a free device; answers with its path.

    NotFound where there is no free one, and NotPermitted where somebody
    claims the bdev, which this does not. The kernel may show the device
    with its size only a moment later. A bdev can be on several devices.
    """
    return Request('nbd_start_disk', {'bdev_name': bdev})


def stop(device: str) -> Request[Any]:
    """Have the kernel let go of a device, whoever has it open.

    The answer comes when the kernel was told; the disk goes a moment later.
    NotFound where the device has no bdev on it.
    """
    return Request('nbd_stop_disk', {'nbd_device': device})
