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

"""vhost controllers."""

import errno
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, vhost
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target


def _params(
    required: dict[str, decode.Decoder],
    optional: dict[str, decode.Decoder] | None = None,
    *,
    relaxed: bool = False,
) -> decode.Params:
    return decode.Params(
        required,
        optional,
        relaxed=relaxed,
        code=errors.INVALID_PARAMS,
        message='Invalid argument',
    )


@method(
    'vhost_create_blk_controller',
    _params(
        {'ctrlr': decode.string, 'dev_name': decode.string},
        {
            'cpumask': decode.string,
            'transport': decode.string,
            'readonly': decode.boolean,
            'packed_ring': decode.boolean,
        },
        # A transport may have parameters of its own.
        relaxed=True,
    ),
    code=errors.INVALID_PARAMS,
)
def vhost_create_blk_controller(target: 'Target', p: dict[str, Any]) -> Any:
    """A vhost-user-blk socket for a bdev."""
    if p.get('transport', vhost.TRANSPORT) != vhost.TRANSPORT:
        raise errors.Errno(errno.EINVAL)
    target.vhost.create(
        p['ctrlr'],
        p['dev_name'],
        p.get('cpumask'),
        p.get('readonly', False),
    )
    return True


@method(
    'vhost_get_controllers',
    decode.Params(
        optional={'name': decode.string},
        may_be_absent=True,
        message='Invalid argument',
    ),
    code=errors.INTERNAL_ERROR,
)
def vhost_get_controllers(target: 'Target', p: dict[str, Any]) -> Any:
    """One controller, or all."""
    if 'name' in p:
        return [target.vhost.get(p['name']).describe()]
    return [controller.describe() for controller in target.vhost.all()]


@method(
    'vhost_delete_controller',
    _params({'ctrlr': decode.string}),
    code=errors.INVALID_PARAMS,
)
def vhost_delete_controller(target: 'Target', p: dict[str, Any]) -> Any:
    """Delete a controller; with a guest on it, when the guest has left."""
    waiting = target.vhost.delete(p['ctrlr'])
    return True if waiting is None else waiting


@method(
    'vhost_controller_set_coalescing',
    _params(
        {
            'ctrlr': decode.string,
            'delay_base_us': decode.uint32,
            'iops_threshold': decode.uint32,
        }
    ),
    code=errors.INVALID_PARAMS,
)
def vhost_controller_set_coalescing(
    target: 'Target', p: dict[str, Any]
) -> Any:
    """How interrupts are held back."""
    target.vhost.set_coalescing(
        p['ctrlr'], p['delay_base_us'], p['iops_threshold']
    )
    return True
