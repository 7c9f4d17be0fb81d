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

"""Pre-shared keys for TLS, in the interchange format of NVMe."""

import base64
import re
import zlib

MAX_BYTES = 199
_CRC_BYTES = 4
#: Bytes of a key by the hash that it names; without one both are right.
_SIZES = {'00': (32, 48), '01': (32,), '02': (48,)}

_FORM = re.compile(r'NVMeTLSkey-1:(0[0-2]):([A-Za-z0-9+/]+=*):')


def is_valid(text: str) -> bool:
    """Whether a key's text would be taken."""
    match = _FORM.fullmatch(text)
    if match is None:
        return False
    try:
        data = base64.b64decode(match[2], validate=True)
    except ValueError:
        return False
    key, checksum = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    return len(key) in _SIZES[match[1]] and (
        zlib.crc32(key) == int.from_bytes(checksum, 'little')
    )
