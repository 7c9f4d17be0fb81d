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

"""What the NVMe-oF methods share: parameters, look-ups, changes."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cinder_spdk_vhost.embedded import decode, errors, outcome
from cinder_spdk_vhost.embedded.nvmf import names, subsystems, transports

if TYPE_CHECKING:
    from cinder_spdk_vhost.embedded.target import Target

INVALID = errors.RpcError(errors.INVALID_PARAMS, 'Invalid parameters')
INTERNAL = errors.RpcError(errors.INTERNAL_ERROR, 'Internal error')
NO_TARGET = errors.RpcError(errors.INTERNAL_ERROR, 'Unable to find a target.')

#: The target's name, which may be left out of every request.
TARGET: dict[str, decode.Decoder] = {'tgt_name': decode.string}
NQN: dict[str, decode.Decoder] = {'nqn': decode.string}


def params(
    required: dict[str, decode.Decoder] | None = None,
    optional: dict[str, decode.Decoder] | None = None,
    *,
    may_be_absent: bool = False,
    relaxed: bool = False,
) -> decode.Params:
    """What a method takes, the target's name always among it."""
    return decode.Params(
        required,
        {**TARGET, **(optional or {})},
        may_be_absent=may_be_absent,
        relaxed=relaxed,
        code=INVALID.code,
        message=INVALID.message,
    )


_ADDRESS = decode.Params(
    {'trtype': decode.string, 'traddr': decode.string},
    {'adrfam': decode.string, 'trsvcid': decode.string},
)
ADDRESS: dict[str, decode.Decoder] = {'listen_address': _ADDRESS.members}


def address(p: dict[str, Any]) -> transports.Address:
    """Where a request wants to listen."""
    try:
        return transports.Address.parse(p['listen_address'])
    except errors.Errno:
        raise INVALID from None


def check_target(
    p: dict[str, Any], refusal: errors.RpcError = NO_TARGET
) -> None:
    """There is one target, and it has one name."""
    if p.get('tgt_name', names.TARGET) != names.TARGET:
        raise refusal


def find(
    target: 'Target',
    p: dict[str, Any],
    missing: errors.RpcError = INVALID,
    no_target: errors.RpcError = NO_TARGET,
) -> subsystems.Subsystem:
    """The subsystem that a request is about."""
    check_target(p, no_target)
    subsystem = target.nvmf.find(p['nqn'])
    if subsystem is None:
        raise missing
    return subsystem


def when_paused(
    subsystem: subsystems.Subsystem,
    step: Callable[[], Any],
    refusal: errors.RpcError = INVALID,
) -> outcome.Deferred:
    """Do something for which SPDK pauses the subsystem.

    Such steps queue: requests that arrive together are done one after
    another, and a deletion that is among them makes them fail.

    :param refusal: what every errno goes out as
    """
    if subsystem.deleted:
        raise INTERNAL

    def finish() -> Any:
        if subsystem.deleted:
            raise INTERNAL
        try:
            return step()
        except errors.Errno:
            raise refusal from None

    return outcome.Deferred(finish)


def done(step: Callable[[], None]) -> Callable[[], bool]:
    """A step without a result answers true."""

    def run() -> bool:
        step()
        return True

    return run
