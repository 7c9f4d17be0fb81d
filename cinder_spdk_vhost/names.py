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

"""The only place where a name of something on a target is built.

A volume's lvol is ``volume-<name_id>``, a snapshot's ``snapshot-<id>``.
Two kinds are the driver's own and hidden from users: the snapshot that a
clone stands on, ``clone-<id of the new volume>-<random>``, and
``trash-<id>``, which marks a snapshot as deleted that others still need.

SPDK checks none of it: it takes ``/`` in a name, and ``../x`` as the name of
a socket. So the ids are checked here.
"""

import re
import secrets

from cinder_spdk_vhost import exceptions

# SPDK refuses 64 when an lvol is made, and takes it when one is renamed.
MAX_LVOL = 63

# sun_path holds 108 bytes, the last of them a NUL.
MAX_SOCKET_PATH = 107

# How a volume can be attached: writable, or read-only.
MODES = ('rw', 'ro')

_ID = re.compile(r'[0-9A-Za-z][0-9A-Za-z_.-]*')


def _named(kind: str, identifier: str) -> str:
    name = f'{kind}-{identifier}'
    if (
        not _ID.fullmatch(identifier)
        or '..' in identifier
        or len(name) > MAX_LVOL
    ):
        raise exceptions.InvalidName(
            f'"{identifier}" cannot name a {kind}: letters, digits, "_", '
            f'"-" and single "." are accepted, {MAX_LVOL} characters with '
            f'"{kind}-" before it'
        )
    return name


def volume(name_id: str) -> str:
    """The lvol of a volume; ``name_id`` follows it through migrations."""
    return _named('volume', name_id)


def snapshot(snapshot_id: str) -> str:
    """The lvol of a snapshot."""
    return _named('snapshot', snapshot_id)


def clone_base(volume_id: str) -> str:
    """A new name for the snapshot that the clone ``volume_id`` stands on.

    Never the same twice: what an earlier attempt left is out of date.
    """
    return _named('clone', f'{volume_id}-{secrets.token_hex(4)}')


def is_clone_base(lvol: str) -> bool:
    """Whether it is a snapshot that only the driver knows."""
    return lvol.startswith('clone-')


def is_snapshot(lvol: str) -> bool:
    """Whether it is a snapshot that a user made."""
    return lvol.startswith('snapshot-')


def tombstone(snapshot_lvol: str) -> str:
    """The mark that a snapshot's user has deleted it."""
    return 'trash-' + snapshot_lvol.removeprefix('snapshot-')


def is_tombstone(lvol: str) -> bool:
    return lvol.startswith('trash-')


def buried(stone: str) -> str:
    """The snapshot that a tombstone stands for."""
    return 'snapshot-' + stone.removeprefix('trash-')


def is_volume(lvol: str) -> bool:
    """Whether an lvol is a volume of ours, which is writable."""
    return lvol.startswith('volume-')


def controllers(volume_lvol: str) -> tuple[str, ...]:
    """Every name that a volume's vhost controllers may have."""
    return tuple(f'{volume_lvol}-{mode}' for mode in MODES)


def controller(volume_lvol: str, mode: str) -> str:
    """The vhost controller of a volume, which is its socket's name too."""
    if mode not in MODES:
        raise exceptions.InvalidName(
            f'access mode is "{mode}"; accepted are {" and ".join(MODES)}'
        )
    return f'{volume_lvol}-{mode}'


def scratch_subsystem(volume_lvol: str) -> str:
    """NQN of the subsystem that opens an idle volume for a moment."""
    return f'nqn.2026-11.org.cinder-spdk-vhost:scratch:{volume_lvol}'


def path(store: str, lvol: str) -> str:
    """How requests name an lvol."""
    return f'{store}/{lvol}'
