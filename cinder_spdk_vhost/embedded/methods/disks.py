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

"""Bdevs as block devices of the target's own host: NBD, and no ublk.

The ublk methods answer as those of a target whose host lacks the kernel's
ublk_drv module: a ublk device has the name that its user chose by its
number, and no stand-in can have that.
"""

import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, disks, errors
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target


@method(
    'nbd_start_disk',
    decode.Params({'bdev_name': decode.string}, {'nbd_device': decode.string}),
    late_code=None,
)
def nbd_start_disk(target: 'Target', p: dict[str, Any]) -> Any:
    """Make a bdev a block device; answers with its path."""
    return target.disks.start(p['bdev_name'], p.get('nbd_device'))


@method(
    'nbd_stop_disk',
    decode.Params({'nbd_device': decode.string}),
    late_code=None,
)
def nbd_stop_disk(target: 'Target', p: dict[str, Any]) -> Any:
    """Take a block device away, whoever has it open."""
    return target.disks.stop(p['nbd_device'])


@method(
    'nbd_get_disks',
    decode.Params(optional={'nbd_device': decode.string}, may_be_absent=True),
)
def nbd_get_disks(target: 'Target', p: dict[str, Any]) -> Any:
    """One block device, or all."""
    if 'nbd_device' in p:
        return [_describe(target.disks.find(p['nbd_device']))]
    return [_describe(disk) for disk in target.disks.all()]


def _describe(disk: disks.Disk) -> dict[str, Any]:
    return {'nbd_device': disk.path, 'bdev_name': disk.bdev.name}


@method(
    'ublk_create_target',
    decode.Params(
        optional={
            'cpumask': decode.string,
            'disable_user_copy': decode.boolean,
        },
        may_be_absent=True,
        message='Invalid argument',
    ),
    code=errors.INTERNAL_ERROR,
)
def ublk_create_target(_target: 'Target', _p: dict[str, Any]) -> Any:
    """There is no /dev/ublk-control."""
    raise errors.Errno(errno.ENOENT)


@method(
    'ublk_destroy_target',
    decode.Params(may_be_absent=True, relaxed=True),
    code=errors.INTERNAL_ERROR,
)
def ublk_destroy_target(_target: 'Target', _p: dict[str, Any]) -> Any:
    """It has not been created."""
    raise errors.Errno(errno.ENOENT)


@method(
    'ublk_start_disk',
    decode.Params(
        {'bdev_name': decode.string, 'ublk_id': decode.uint32},
        {'num_queues': decode.uint32, 'queue_depth': decode.uint32},
    ),
)
def ublk_start_disk(_target: 'Target', _p: dict[str, Any]) -> Any:
    """There is no ublk target."""
    raise errors.Errno(errno.ENODEV)


@method('ublk_stop_disk', decode.Params({'ublk_id': decode.uint32}))
def ublk_stop_disk(_target: 'Target', _p: dict[str, Any]) -> Any:
    """No disk can have been started."""
    raise errors.Errno(errno.ENODEV)


@method(
    'ublk_get_disks',
    decode.Params(optional={'ublk_id': decode.uint32}, may_be_absent=True),
)
def ublk_get_disks(_target: 'Target', p: dict[str, Any]) -> Any:
    """None; SPDK takes id 0 for all of them."""
    if p.get('ublk_id'):
        raise errors.Errno(errno.ENODEV)
    return []
