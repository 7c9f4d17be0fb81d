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

"""Which clusters of a volume are its own.

A map is a plain ``int`` whose bit i stands for cluster i: sets of any shape
in one word of bookkeeping a cluster's worth of data would never notice, with
the set operations and the count that copy-on-write needs built in.
"""

NONE = 0


def first(count: int) -> int:
    """The map of the clusters from 0 to count."""
    return (1 << count) - 1


def count(clusters: int) -> int:
    """How many clusters a map has."""
    return clusters.bit_count()


def dumps(clusters: int) -> str:
    """A map as text: the lengths of runs, first of absent clusters.

    The usual maps (none, all) take a few characters, whatever the size.
    """
    runs = []
    wanted = 0
    while clusters:
        flipped = clusters if not wanted else ~clusters
        run = (flipped & -flipped).bit_length() - 1
        runs.append(run)
        clusters >>= run
        wanted ^= 1
    return ','.join(map(str, runs))


def loads(text: str) -> int:
    """The map that :func:`dumps` wrote."""
    clusters = position = 0
    for index, run in enumerate(text.split(',') if text else ()):
        if index & 1:
            clusters |= first(int(run)) << position
        position += int(run)
    return clusters
