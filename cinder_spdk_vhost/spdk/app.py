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

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request


@dataclasses.dataclass(frozen=True)
class Version:
    """:ivar text: such as ``SPDK v26.05``
    :ivar number: such as (26, 5)
    """

    text: str
    number: tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Process:
    """What tells one run of a target from the next.

    :ivar uptime: seconds since its first thread started; grows with the
        clock as long as it is the same run
    """

    pid: int
    uptime: float


def _parse(result: dict[str, Any]) -> Version:
    fields = result['fields']
    return Version(result['version'], (fields['major'], fields['minor']))


def get_version() -> Request[Version]:
    """Which SPDK this is."""
    return Request('spdk_get_version', mutates=False, parse=_parse)


def get_methods() -> Request[frozenset[str]]:
    """Names of the RPCs that this build has."""
    return Request('rpc_get_methods', mutates=False, parse=frozenset)


def _parse_process(result: dict[str, Any]) -> Process:
    elapsed = max(
        thread['elapsed']
        for reactor in result['reactors']
        for thread in reactor['lw_threads']
    )
    return Process(result['pid'], elapsed / result['tick_rate'])


def get_process() -> Request[Process]:
    """Which run of the target this is."""
    return Request(
        'framework_get_reactors',
        mutates=False,
        optional=True,
        parse=_parse_process,
    )
