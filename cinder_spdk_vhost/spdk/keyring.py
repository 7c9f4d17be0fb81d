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

"""The target's keyring: names of key files on the target's host.

The content of a key is never asked for and never told.
"""

import dataclasses
from typing import Any

from cinder_spdk_vhost.rpc import Request


@dataclasses.dataclass(frozen=True)
class Key:
    """One key.

    :ivar path: on the target's host; None where it is no file's, or was
        removed
    :ivar removed: its name is free again, and somebody still has it
    """

    name: str
    path: str | None
    removed: bool


def _parse(result: list[dict[str, Any]]) -> list[Key]:
    return [
        Key(data['name'], data.get('path'), data['removed']) for data in result
    ]


def get_keys() -> Request[list[Key]]:
    """All keys."""
    return Request('keyring_get_keys', mutates=False, parse=_parse)


def add_file(name: str, path: str) -> Request[Any]:
    """Name a key file; what is in it is not looked at.

    Exists where the name is taken, by whatever file; NotFound where there
    is no such file; NotPermitted where others than the target's user may
    read it (0600 is right), it is not that user's, or the path isn't
    absolute.
    """
    return Request('keyring_file_add_key', {'name': name, 'path': path})


def remove_file(name: str) -> Request[Any]:
    """Forget a name; hosts that it was given to keep what it stood for.

    NotFound where there is no such name.
    """
    return Request('keyring_file_remove_key', {'name': name})
