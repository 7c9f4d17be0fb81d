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

"""The application itself: its version and what it can do."""

from cinder_spdk_vhost.rpc import Request


def get_version() -> Request[str]:
    """The version as text, such as ``SPDK v26.05``."""
    return Request(
        'spdk_get_version',
        mutates=False,
        parse=lambda result: result['version'],
    )


def get_methods() -> Request[frozenset[str]]:
    """Names of the RPCs that this build has."""
    return Request('rpc_get_methods', mutates=False, parse=frozenset)
