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

"""QoS specs, as Cinder keeps them, into the rate limits that SPDK has."""

from collections.abc import Mapping
import dataclasses
import re

from cinder_spdk_vhost import exceptions
from cinder_spdk_vhost.spdk import qos

MIB = 1024 * 1024

# Beyond any device; SPDK itself takes 2^64 - 1 for "no limit given".
MAX_IOPS = 10**9
MAX_BYTES = 2**50

# spec key -> (field of RateLimits, unit that SPDK counts in, maximum)
_KEYS = {
    'total_iops_sec': ('rw_ios_per_sec', qos.IOPS_STEP, MAX_IOPS),
    'total_bytes_sec': ('rw_mbytes_per_sec', MIB, MAX_BYTES),
    'read_bytes_sec': ('r_mbytes_per_sec', MIB, MAX_BYTES),
    'write_bytes_sec': ('w_mbytes_per_sec', MIB, MAX_BYTES),
}
KEYS = tuple(_KEYS)


@dataclasses.dataclass(frozen=True)
class Rounding:
    """A limit that SPDK can only keep in its own steps.

    :ivar key: the spec
    :ivar asked: IOPS or bytes/s as the spec says
    :ivar effective: what is in force instead, in the same unit
    """

    key: str
    asked: int
    effective: int

    def __str__(self) -> str:
        return f'{self.key} {self.asked} becomes {self.effective}'


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a set of specs asks for.

    :ivar rates: what to set on the bdev
    :ivar rounded: where that is not what the specs say
    """

    rates: qos.RateLimits
    rounded: tuple[Rounding, ...] = ()


NONE = Limits(qos.RateLimits())


def _number(key: str, value: str, maximum: int) -> int:
    # int() would also take "1_000", " 5" and other scripts' digits.
    digits = re.fullmatch(r'[0-9]{1,20}', str(value))
    if not digits or int(value) > maximum:
        raise exceptions.InvalidSpec(
            f'QoS spec {key} is "{value}"; a whole number from 0 '
            f'(unlimited) to {maximum} is accepted'
        )
    return int(value)


def _check_keys(specs: Mapping[str, str]) -> None:
    unknown = sorted(set(specs) - set(_KEYS))
    if unknown:
        raise exceptions.InvalidSpec(
            f'QoS spec {", ".join(unknown)} is not supported; accepted are '
            f'{", ".join(_KEYS)}'
        )
    if 'total_bytes_sec' in specs:
        both = [k for k in ('read_bytes_sec', 'write_bytes_sec') if k in specs]
        if both:
            raise exceptions.InvalidSpec(
                f'QoS spec total_bytes_sec excludes {" and ".join(both)}; '
                f'give the total, or reads and writes apart'
            )


def parse(specs: Mapping[str, str]) -> Limits:
    """Read a dict of QoS specs.

    IOPS are rounded up to a multiple of 1,000 and bandwidths up to whole
    MiB/s, as SPDK does.

    :raises InvalidSpec: for a key or value that could not be kept
    """
    _check_keys(specs)
    rates = {}
    rounded = []
    for key, value in specs.items():
        field, unit, maximum = _KEYS[key]
        asked = _number(key, value, maximum)
        steps = -(-asked // unit)
        rates[field] = steps * unit if unit == qos.IOPS_STEP else steps
        if steps * unit != asked:
            rounded.append(Rounding(key, asked, steps * unit))
    return Limits(qos.RateLimits(**rates), tuple(rounded))
