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

"""Thin or thick, and how an lvol is cleared: so that nobody reads what
another tenant left.

SPDK hands out clusters without zeroing them. That is safe only while every
free cluster of a store reads as zeros, and two things could free one that
does not:

* deleting (or shrinking) an lvol. Its clear method, kept with it from the
  day it was made, decides: unmap where the base then reads zeros, writing
  zeros everywhere else.
* a guest's discard on a thin lvol without a parent: the cluster goes back
  as it is. So a base that doesn't read zeros after unmap gets no such lvol.
"""

from collections.abc import Mapping
import dataclasses

from cinder_spdk_vhost import exceptions

SPEC = 'provisioning:type'


@dataclasses.dataclass(frozen=True)
class Policy:
    """What the back end's options say.

    :ivar default: auto, thin or thick (``spdk_provisioning``)
    :ivar clear_method: auto, unmap or write_zeroes
    """

    default: str = 'auto'
    clear_method: str = 'auto'


@dataclasses.dataclass(frozen=True)
class Provisioning:
    """How one lvol is made."""

    thin: bool
    clear_method: str


def choose(
    policy: Policy,
    pool: str,
    reads_zeros: bool,
    extra_specs: Mapping[str, str],
) -> Provisioning:
    """How a volume is made in a pool.

    :param reads_zeros: whether the pool's base reads zeros after unmap
    :raises InvalidSpec: for thin where that would leak data
    """
    return Provisioning(
        thin=_thin(policy, pool, reads_zeros, extra_specs),
        clear_method=clear_method(policy, reads_zeros),
    )


def clear_method(policy: Policy, reads_zeros: bool) -> str:
    if policy.clear_method != 'auto':
        return policy.clear_method
    return 'unmap' if reads_zeros else 'write_zeroes'


def _thin(
    policy: Policy,
    pool: str,
    reads_zeros: bool,
    extra_specs: Mapping[str, str],
) -> bool:
    asked = extra_specs.get(SPEC)
    source = f'extra spec {SPEC}'
    if asked is None:
        asked, source = policy.default, 'option spdk_provisioning'
        if asked == 'auto':
            return reads_zeros
    if asked not in ('thin', 'thick'):
        raise exceptions.InvalidSpec(
            f'{source} is "{asked}"; accepted are thin and thick'
        )
    if asked == 'thin' and not reads_zeros:
        raise exceptions.InvalidSpec(
            f'{source} is thin, but the base of pool "{pool}" is not known '
            f'to read zeros after unmap, so what a guest discards could be '
            f'read by the next volume; use thick, or name the pool in '
            f'spdk_zeroing_pools if its device does'
        )
    return asked == 'thin'
