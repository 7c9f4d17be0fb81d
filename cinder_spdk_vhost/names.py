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
Some kinds are the driver's own and hidden from users: the snapshot that a
clone stands on, ``clone-<id of the new volume>-<random>``;
``trash-<id>``, which marks a snapshot as deleted that others still need; and
while a volume is reverted to a snapshot ``revert-<name_id>``, which is to
take its place, and ``before-<name_id>``, which had it.

SPDK checks none of it: it takes ``/`` in a name, and ``../x`` as the name of
a socket. So the ids are checked here, and so are the NQNs that hosts send.
"""

import re
import secrets
import uuid

from cinder_spdk_vhost import exceptions

# SPDK refuses 64 when an lvol is made, and takes it when one is renamed.
MAX_LVOL = 63

# sun_path holds 108 bytes, the last of them a NUL.
MAX_SOCKET_PATH = 107

# How a volume can be attached: writable, or read-only.
MODES = ('rw', 'ro')

# NVMe gives an NQN 223 bytes, a serial number 20 and a model number 40.
MAX_NQN = 223
MAX_SERIAL = 20
MODEL = 'cinder-spdk-vhost'

_ID = re.compile(r'[0-9A-Za-z][0-9A-Za-z_.-]*')

_OURS = 'nqn.2026-11.org.cinder-spdk-vhost'

# As nvmf_nqn_is_valid() of SPDK has it, and no blanks.
_UUID_NQN = 'nqn.2014-08.org.nvmexpress:uuid:'
_LABEL = r'[A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?'
_DATED_NQN = re.compile(
    rf'nqn\.\d{{4}}-(?:0[1-9]|1[0-2])\.{_LABEL}(?:\.{_LABEL})*:[!-~]+'
)


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


def incoming(volume_lvol: str) -> str:
    """The lvol that is to take a volume's place when it is reverted."""
    return 'revert-' + volume_lvol.removeprefix('volume-')


def outgoing(volume_lvol: str) -> str:
    """The lvol that had a volume's place before it was reverted."""
    return 'before-' + volume_lvol.removeprefix('volume-')


def reverted(lvol: str) -> str | None:
    """The volume that one of these two belongs to; None for others."""
    kind, _, identifier = lvol.partition('-')
    if kind in ('revert', 'before') and _is_uuid(identifier):
        return f'volume-{identifier}'
    return None


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


def placeholder(lvol: str) -> str:
    """The controller that is made before an lvol becomes a namespace.

    Made later it would be refused; it is the one that a guest on the
    target's host then uses.
    """
    return controller(lvol, placeholder_mode(lvol))


def placeholder_mode(lvol: str) -> str:
    """How it can be used: nobody writes on a snapshot."""
    return 'ro' if is_snapshot(lvol) else 'rw'


def scratch_subsystem(volume_lvol: str) -> str:
    """NQN of the subsystem that opens an idle volume for a moment."""
    return f'{_OURS}:scratch:{volume_lvol}'


def subsystem(lvol: str) -> str:
    """NQN of the subsystem that a volume, or a snapshot, is exported in."""
    return f'{_OURS}:{lvol}'


def serial(lvol: str) -> str:
    """The serial number of that subsystem: the id's beginning.

    So it is in ``/dev/disk/by-id``, as with the disks of other drivers.
    """
    return _identifier(lvol)[:MAX_SERIAL]


def namespace_uuid(lvol: str) -> str:
    """The UUID that hosts know a volume's namespace by: the volume's id.

    :raises InvalidName: for an id that is none, by which os-brick could
        not find the device
    """
    identifier = _identifier(lvol)
    if not _is_uuid(identifier):
        raise exceptions.InvalidName(
            f'{lvol} cannot be exported over NVMe-oF: "{identifier}" is no '
            f'UUID of 32 lower-case digits, which a namespace is found by'
        )
    return identifier


def _identifier(lvol: str) -> str:
    return lvol.partition('-')[2]


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def host_nqn(nqn: object) -> str:
    """The NQN that a host sent, if it has the form of one.

    :raises InvalidName: says what is accepted
    """
    if (
        not isinstance(nqn, str)
        or not 0 < len(nqn.encode(errors='replace')) <= MAX_NQN
        or '..' in nqn
        or not _is_nqn(nqn)
    ):
        raise exceptions.InvalidName(
            f'"{str(nqn)[: MAX_NQN + 1]}" is no NQN of a host; accepted are '
            f'{_UUID_NQN}UUID and nqn.YYYY-MM.REVERSE.DOMAIN:NAME, with '
            f'{MAX_NQN} characters at most and without blanks and ".."'
        )
    return nqn


def _is_nqn(text: str) -> bool:
    if text.startswith(_UUID_NQN):
        return _is_uuid(text.removeprefix(_UUID_NQN).lower())
    return bool(_DATED_NQN.fullmatch(text))


def path(store: str, lvol: str) -> str:
    """How requests name an lvol."""
    return f'{store}/{lvol}'
