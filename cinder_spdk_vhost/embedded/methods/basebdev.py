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

"""aio, malloc and null bdevs."""

import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import (
    basebdevs,
    bdevs,
    decode,
    errors,
    outcome,
)
from cinder_spdk_vhost.embedded.rpc import Handler, method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

_NAME = decode.Params({'name': decode.string})

#: What only matters to data: protection information, alignment.
_LAYOUT: dict[str, decode.Decoder] = {
    'md_size': decode.uint32,
    'dif_type': decode.int32,
    'dif_is_head_of_md': decode.boolean,
    'dif_pi_format': decode.uint32,
    'physical_block_size': decode.uint32,
}


def _delete(kind: type[bdevs.Bdev]) -> Handler:
    def delete(target: 'Target', p: dict[str, Any]) -> Any:
        bdev = target.bdevs.get(p['name'])
        if not isinstance(bdev, kind):
            raise errors.Errno(errno.ENODEV)
        target.bdevs.unregister(bdev)
        return outcome.Deferred(lambda: True)

    return delete


for _kind, _name in (
    (basebdevs.Aio, 'bdev_aio_delete'),
    (basebdevs.Malloc, 'bdev_malloc_delete'),
    (basebdevs.Null, 'bdev_null_delete'),
):
    method(_name, _NAME)(_delete(_kind))


@method(
    'bdev_aio_create',
    decode.Params(
        {'name': decode.string, 'filename': decode.string},
        {
            'block_size': decode.uint32,
            'readonly': decode.boolean,
            'fallocate': decode.boolean,
            'nowait': decode.boolean,
            'uuid': decode.uuid_text,
        },
    ),
)
def bdev_aio_create(target: 'Target', p: dict[str, Any]) -> Any:
    """A bdev on a file; answers when what lives on it is up."""
    bdev = basebdevs.Aio(
        p['name'],
        p['filename'],
        p.get('block_size', 0),
        readonly=p.get('readonly', False),
        fallocate=p.get('fallocate', False),
        uuid=p.get('uuid'),
    )
    target.bdevs.register(bdev)
    if target.keeper.is_second(bdev):
        # SPDK's examination of such a bdev does not come to an end.
        return outcome.Waiting()
    return outcome.Deferred(lambda: bdev.name)


@method('bdev_aio_rescan', _NAME)
def bdev_aio_rescan(target: 'Target', p: dict[str, Any]) -> Any:
    """Look at the file's size again."""
    bdev = target.bdevs.get(p['name'])
    if not isinstance(bdev, basebdevs.Aio):
        raise errors.Errno(errno.ENODEV)
    bdev.rescan()
    return True


@method(
    'bdev_malloc_create',
    decode.Params(
        {'num_blocks': decode.uint64, 'block_size': decode.uint32},
        {
            'name': decode.string,
            'uuid': decode.uuid_text,
            'optimal_io_boundary': decode.uint32,
            'numa_id': decode.int32,
            **_LAYOUT,
        },
    ),
)
def bdev_malloc_create(target: 'Target', p: dict[str, Any]) -> Any:
    """A bdev in memory, with a name if it is given none."""
    name = p.get('name')
    bdev = basebdevs.Malloc(
        f'Malloc{target.malloc_count}' if name is None else name,
        p['block_size'],
        p['num_blocks'],
        p.get('uuid'),
    )
    target.bdevs.register(bdev)
    if name is None:
        target.malloc_count += 1
    return bdev.name


@method(
    'bdev_null_create',
    decode.Params(
        {
            'name': decode.string,
            'num_blocks': decode.uint64,
            'block_size': decode.uint32,
        },
        {'uuid': decode.uuid_text, **_LAYOUT},
    ),
)
def bdev_null_create(target: 'Target', p: dict[str, Any]) -> Any:
    """A bdev without a memory; gone after a restart, which can be seen."""
    bdev = basebdevs.Null(
        p['name'], p['block_size'], p['num_blocks'], p.get('uuid')
    )
    target.bdevs.register(bdev)
    return bdev.name
