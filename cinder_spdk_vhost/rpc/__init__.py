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

"""JSON-RPC 2.0 to an SPDK application.

Knows no SPDK method: :mod:`cinder_spdk_vhost.spdk` has those.
"""

from cinder_spdk_vhost.rpc.client import Client, open_client
from cinder_spdk_vhost.rpc.endpoint import Endpoint, InvalidEndpoint
from cinder_spdk_vhost.rpc.errors import (
    Busy,
    CallTimeout,
    ConnectionFailed,
    ConnectionLost,
    Exists,
    InvalidParams,
    MethodNotFound,
    NoSpace,
    NotFound,
    NotPermitted,
    OutcomeUnknown,
    ProtocolError,
    RPCError,
    TargetError,
    TransportError,
    TryAgain,
    Unauthorized,
)
from cinder_spdk_vhost.rpc.request import Request

__all__ = [
    'Busy',
    'CallTimeout',
    'Client',
    'ConnectionFailed',
    'ConnectionLost',
    'Endpoint',
    'Exists',
    'InvalidEndpoint',
    'InvalidParams',
    'MethodNotFound',
    'NoSpace',
    'NotFound',
    'NotPermitted',
    'OutcomeUnknown',
    'ProtocolError',
    'RPCError',
    'Request',
    'TargetError',
    'TransportError',
    'TryAgain',
    'Unauthorized',
    'open_client',
]
