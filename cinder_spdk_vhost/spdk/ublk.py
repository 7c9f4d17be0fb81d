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

"""ublk disks: bdevs as ``/dev/ublkbN`` of the target's own host.

Only in an SPDK that was built with ublk. Its host's kernel needs the
``ublk_drv`` module, and its admin has to have called ``ublk_create_target``.
"""

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request


@dataclasses.dataclass(frozen=True)
class Disk:
    """One of them.

    :ivar number: the N of its device, which is the host's, not the target's
    :ivar device: its path on the target's host
    :ivar bdev: name of the bdev behind it; for an lvol its UUID
    """

    number: int
    device: str
    bdev: str


def _parse(result: list[dict[str, Any]]) -> list[Disk]:
    return [
        Disk(data['id'], data['ublk_device'], data['bdev_name'])
        for data in result
    ]


def get_all() -> Request[list[Disk]]:
    """All disks: the kernel allows 64 unless it is told otherwise."""
    return Request(
        'ublk_get_disks', mutates=False, optional=True, parse=_parse
    )


def start(bdev: str, number: int) -> Request[Any]:
    """Put a bdev on a device, which appears with its size.

    Busy or Exists where the number is taken, NotFound where there is no
    ublk target, NotPermitted where somebody claims the bdev, which this
    does not.
    """
    return Request('ublk_start_disk', {'bdev_name': bdev, 'ublk_id': number})


def stop(number: int) -> Request[Any]:
    """Take a device away, whoever has it open. NotFound where it is gone."""
    return Request('ublk_stop_disk', {'ublk_id': number})
