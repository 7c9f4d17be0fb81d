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

"""NVMe-oF subsystems: as much as rate limits on an idle bdev need."""

from typing import Any

from cinder_spdk_vhost.rpc import Request


def create_subsystem(nqn: str, *, max_namespaces: int) -> Request[Any]:
    """Make a subsystem that no host may connect to, without a listener."""
    return Request(
        'nvmf_create_subsystem',
        {'nqn': nqn, 'max_namespaces': max_namespaces},
    )


def add_namespace(nqn: str, bdev: str) -> Request[int]:
    """Make a bdev a namespace, which opens it and claims it."""
    return Request(
        'nvmf_subsystem_add_ns',
        {'nqn': nqn, 'namespace': {'bdev_name': bdev}},
    )


def delete_subsystem(nqn: str) -> Request[Any]:
    """Delete a subsystem and with it its claims.

    "Invalid parameters" is all that SPDK says of one that is not there.
    """
    return Request('nvmf_delete_subsystem', {'nqn': nqn})
