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

"""Stores of logical volumes."""

import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, lvols
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

CLEAR_METHODS = ('none', 'unmap', 'write_zeroes')


def find(
    target: 'Target', uuid: str | None, name: str | None
) -> lvols.Lvstore:
    """A store by its UUID or its name; one of the two, not both."""
    if (uuid is None) == (name is None):
        raise errors.Errno(errno.EINVAL).as_code()
    lvstore = (
        target.lvstores.by_uuid(uuid)
        if uuid is not None
        else target.lvstores.by_name(name or '')
    )
    if lvstore is None:
        raise errors.Errno(errno.ENODEV).as_code()
    return lvstore


_STORE = decode.Params(
    optional={'uuid': decode.string, 'lvs_name': decode.string}
)


@method(
    'bdev_lvol_create_lvstore',
    decode.Params(
        {'bdev_name': decode.string, 'lvs_name': decode.string},
        {
            'cluster_sz': decode.uint32,
            'clear_method': decode.string,
            'num_md_pages_per_cluster_ratio': decode.uint32,
            'md_page_size': decode.uint32,
        },
    ),
)
def bdev_lvol_create_lvstore(target: 'Target', p: dict[str, Any]) -> Any:
    """A new store."""
    if p.get('clear_method', 'unmap').lower() not in CLEAR_METHODS:
        raise errors.RpcError(-errno.EINVAL, 'Invalid clear_method parameter')
    return target.keeper.create(
        target.bdevs.get(p['bdev_name']),
        p['lvs_name'],
        p.get('cluster_sz', 0),
        p.get('num_md_pages_per_cluster_ratio', 0),
    )


@method('bdev_lvol_delete_lvstore', _STORE)
def bdev_lvol_delete_lvstore(target: 'Target', p: dict[str, Any]) -> Any:
    """Delete a store with all that is in it, without a word."""
    lvstore = find(target, p.get('uuid'), p.get('lvs_name'))
    return target.keeper.delete(lvstore)


@method(
    'bdev_lvol_rename_lvstore',
    decode.Params({'old_name': decode.string, 'new_name': decode.string}),
    code=errors.INVALID_PARAMS,
)
def bdev_lvol_rename_lvstore(target: 'Target', p: dict[str, Any]) -> Any:
    """Another name for a store."""
    lvstore = target.lvstores.by_name(p['old_name'])
    if lvstore is None:
        raise errors.RpcError(
            -errno.ENOENT, f'Lvol store {p["old_name"]} not found'
        )
    return target.keeper.rename(lvstore, p['new_name'])


@method('bdev_lvol_grow_lvstore', _STORE)
def bdev_lvol_grow_lvstore(target: 'Target', p: dict[str, Any]) -> Any:
    """Take in what the base bdev has grown by."""
    lvstore = find(target, p.get('uuid'), p.get('lvs_name'))
    return target.keeper.grow(lvstore)


@method(
    'bdev_lvol_get_lvstores',
    decode.Params(
        optional={'uuid': decode.string, 'lvs_name': decode.string},
        may_be_absent=True,
    ),
)
def bdev_lvol_get_lvstores(target: 'Target', p: dict[str, Any]) -> Any:
    """One store, or all."""
    target.plane.refresh()
    if p is decode.ABSENT:
        return [lvstore.describe() for lvstore in target.lvstores]
    return [find(target, p.get('uuid'), p.get('lvs_name')).describe()]


@method(
    'bdev_lvol_get_lvols',
    decode.Params(
        optional={'lvs_uuid': decode.string, 'lvs_name': decode.string},
        may_be_absent=True,
    ),
)
def bdev_lvol_get_lvols(target: 'Target', p: dict[str, Any]) -> Any:
    """The volumes of one store, or of all."""
    target.plane.refresh()
    stores = (
        list(target.lvstores)
        if p is decode.ABSENT
        else [find(target, p.get('lvs_uuid'), p.get('lvs_name'))]
    )
    return [
        lvol.describe_lvol()
        for lvstore in stores
        for lvol in lvstore.lvols.values()
    ]
