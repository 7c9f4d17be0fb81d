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

"""Keys of the keyring."""

from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target


@method(
    'keyring_file_add_key',
    decode.Params(
        {'name': decode.string, 'path': decode.string},
        relaxed=True,
        code=errors.INVALID_PARAMS,
        message='Invalid argument',
    ),
)
def keyring_file_add_key(target: 'Target', p: dict[str, Any]) -> Any:
    """Name a file that has a key."""
    target.keyring.add(p['name'], p['path'])
    return True


@method(
    'keyring_file_remove_key',
    decode.Params(
        {'name': decode.string},
        code=errors.INVALID_PARAMS,
        message='Invalid argument',
    ),
)
def keyring_file_remove_key(target: 'Target', p: dict[str, Any]) -> Any:
    """Forget a name."""
    target.keyring.remove(p['name'])
    return True


@method('keyring_get_keys', decode.Params(may_be_absent=True, relaxed=True))
def keyring_get_keys(target: 'Target', _p: dict[str, Any]) -> Any:
    """All keys, and removed ones that are still in use."""
    return target.keyring.describe()
