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

"""Logical volumes."""

import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, lvols
from cinder_spdk_vhost.embedded.methods import lvstore as stores
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_MIB = 1024 * 1024
_NAME = decode.Params({'name': decode.string})


def _find(target: 'Target', name: str) -> lvols.Lvol:
    """A volume by its bdev's name or alias; no other bdev will do."""
    bdev = target.bdevs.find(name)
    if not isinstance(bdev, lvols.Lvol):
        raise errors.Errno(errno.ENODEV).as_code()
    return bdev


def _bytes(size_in_mib: int) -> int:
    # Too much of it comes round to little again.
    return size_in_mib * _MIB & decode.U64


@method(
    'bdev_lvol_create',
    decode.Params(
        {'lvol_name': decode.string, 'size_in_mib': decode.uint64},
        {
            'uuid': decode.string,
            'lvs_name': decode.string,
            'thin_provision': decode.boolean,
            'clear_method': decode.string,
        },
    ),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_create(target: 'Target', p: dict[str, Any]) -> Any:
    """A new volume; its size is rounded up to clusters."""
    lvstore = stores.find(target, p.get('uuid'), p.get('lvs_name'))
    clear_method = p.get('clear_method', 'default').lower()
    if 'clear_method' in p and clear_method not in stores.CLEAR_METHODS:
        raise errors.RpcError(-errno.EINVAL, 'Invalid clean_method option')
    try:
        lvstore.check_name(p['lvol_name'])
    except errors.Errno as error:
        raise error.as_code() from error
    return target.volumes.create(
        lvstore,
        p['lvol_name'],
        _bytes(p['size_in_mib']),
        p.get('thin_provision', False),
        clear_method,
    )


@method(
    'bdev_lvol_snapshot',
    decode.Params(
        {'lvol_name': decode.string, 'snapshot_name': decode.string}
    ),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_snapshot(target: 'Target', p: dict[str, Any]) -> Any:
    """A snapshot takes over what its origin has."""
    lvol = _find(target, p['lvol_name'])
    return target.volumes.snapshot(lvol, p['snapshot_name'])


@method(
    'bdev_lvol_clone',
    decode.Params(
        {'snapshot_name': decode.string, 'clone_name': decode.string}
    ),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_clone(target: 'Target', p: dict[str, Any]) -> Any:
    """A clone of a snapshot."""
    lvol = _find(target, p['snapshot_name'])
    return target.volumes.clone(lvol, p['clone_name'])


@method('bdev_lvol_inflate', _NAME, code=errors.INVALID_PARAMS)
def bdev_lvol_inflate(target: 'Target', p: dict[str, Any]) -> Any:
    """Give a volume all its clusters."""
    return target.volumes.inflate(_find(target, p['name']))


@method('bdev_lvol_decouple_parent', _NAME, code=errors.INVALID_PARAMS)
def bdev_lvol_decouple_parent(target: 'Target', p: dict[str, Any]) -> Any:
    """Make a volume independent of its parent, one level only."""
    return target.volumes.decouple(_find(target, p['name']))


@method(
    'bdev_lvol_resize',
    decode.Params({'name': decode.string, 'size_in_mib': decode.uint64}),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_resize(target: 'Target', p: dict[str, Any]) -> Any:
    """Another size, rounded up to clusters."""
    lvol = _find(target, p['name'])
    return target.volumes.resize(lvol, _bytes(p['size_in_mib']))


@method(
    'bdev_lvol_rename',
    decode.Params({'old_name': decode.string, 'new_name': decode.string}),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_rename(target: 'Target', p: dict[str, Any]) -> Any:
    """Another name; hardly anything is checked."""
    lvol = _find(target, p['old_name'])
    return target.volumes.rename(lvol, p['new_name'])


@method('bdev_lvol_set_read_only', _NAME, code=errors.INVALID_PARAMS)
def bdev_lvol_set_read_only(target: 'Target', p: dict[str, Any]) -> Any:
    """Refuse writes from now on."""
    return target.volumes.set_read_only(_find(target, p['name']))


@method(
    'bdev_lvol_set_parent',
    decode.Params({'lvol_name': decode.string, 'parent_name': decode.string}),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_set_parent(target: 'Target', p: dict[str, Any]) -> Any:
    """Let a volume descend from another snapshot."""
    lvol = _find(target, p['lvol_name'])
    return target.volumes.set_parent(lvol, _find(target, p['parent_name']))


@method(
    'bdev_lvol_delete',
    _NAME,
    code=errors.INTERNAL_ERROR,
    late_code=errors.INTERNAL_ERROR,
)
def bdev_lvol_delete(target: 'Target', p: dict[str, Any]) -> Any:
    """Delete a volume, in use or not."""
    bdev = target.bdevs.find(p['name'])
    lvol = (
        bdev
        if isinstance(bdev, lvols.Lvol)
        else _without_bdev(target, p['name'])
    )
    if lvol is None:
        raise errors.Errno(errno.ENODEV).as_code()
    return target.volumes.delete(lvol)


def _without_bdev(target: 'Target', name: str) -> lvols.Lvol | None:
    """A volume whose bdev is gone already."""
    for lvstore in target.lvstores:
        lvol = lvstore.lvols.get(name)
        if lvol is None and name.startswith(f'{lvstore.name}/'):
            lvol = lvstore.names.get(name[len(lvstore.name) + 1 :])
        if lvol is not None and target.bdevs.find(lvol.name) is not lvol:
            return lvol
    return None
