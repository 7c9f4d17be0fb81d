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

"""NVMe qualified names (NQNs): of subsystems and of hosts."""

import re
import uuid as uuids

DISCOVERY = 'nqn.2014-08.org.nvmexpress.discovery'
#: The one target that SPDK makes of itself.
TARGET = 'nvmf_tgt'

_MAX_BYTES = 223
_UUID = 'nqn.2014-08.org.nvmexpress:uuid:'

# SPDK looks at the domain when a letter comes: it may be empty and may end
# with a dot. A label's length is looked at before the next one's first
# letter, so the limit of 63 is one of 64.
_LABEL = r'[A-Za-z](?:[A-Za-z0-9-]{,62}[A-Za-z0-9])?'
_DATED = re.compile(
    rf'nqn\.[0-9]{{4}}-[0-9]{{2}}\.(?:{_LABEL}(?:\.{_LABEL})*\.?)?:.+',
    re.DOTALL,
)


def valid_nqn(nqn: str) -> bool:
    """Whether a name has the form of an NQN."""
    if len(nqn.encode()) > _MAX_BYTES:
        return False
    if nqn == DISCOVERY:
        return True
    if nqn.startswith(_UUID):
        text = nqn[len(_UUID) :]
        try:
            return str(uuids.UUID(text)) == text.lower()
        except ValueError:
            return False
    return _DATED.fullmatch(nqn) is not None
