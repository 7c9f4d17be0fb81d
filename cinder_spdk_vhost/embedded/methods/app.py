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

"""The application itself: version, methods, reactors."""

from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors
from cinder_spdk_vhost.embedded.rpc import method

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

#: The SPDK whose behaviour this is, and what it really is.
_MAJOR, _MINOR, _PATCH = 26, 5, 1
_SUFFIX = '-embedded'
_COMMIT = 'cinder-spdk-target'


@method('spdk_get_version')
def spdk_get_version(_target: 'Target', _p: dict[str, Any]) -> Any:
    """Of the form of SPDK's, and open about what answers."""
    number = f'v{_MAJOR}.{_MINOR:02}.{_PATCH}'
    return {
        'version': f'SPDK {number}{_SUFFIX} git sha1 {_COMMIT}',
        'fields': {
            'major': _MAJOR,
            'minor': _MINOR,
            'patch': _PATCH,
            'suffix': _SUFFIX,
            'commit': _COMMIT,
        },
    }


@method(
    'rpc_get_methods',
    decode.Params(
        optional={
            'current': decode.boolean,
            'include_aliases': decode.boolean,
        },
        may_be_absent=True,
        code=errors.INVALID_PARAMS,
        message='Invalid parameters',
    ),
)
def rpc_get_methods(target: 'Target', _p: dict[str, Any]) -> Any:
    """All methods can be called at any time, and none has an alias."""
    return list(target.methods)


@method('framework_wait_init')
def framework_wait_init(_target: 'Target', _p: dict[str, Any]) -> Any:
    """Who can ask finds it initialized."""
    return True


@method('framework_get_reactors')
def framework_get_reactors(target: 'Target', _p: dict[str, Any]) -> Any:
    """The cores and their threads."""
    return target.reactors.describe()


@method('thread_get_stats')
def thread_get_stats(target: 'Target', _p: dict[str, Any]) -> Any:
    """The threads."""
    return target.reactors.statistics()
