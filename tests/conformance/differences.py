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

"""Recorded cases with which the embedded target does not agree, and why.

A case that is listed here and agrees fails the test. The numbers are those
of the recording.
"""

from collections.abc import Iterator

_METHODS = 'lists the methods, and the embedded target has fewer'
_DELAY = 'shows a delay bdev or its base; there are no delay bdevs'
_KINDS = 'lists uring and passthru bdevs; there are none'
_IO = 'counts I/O (that of the examination at least); without data is none'
_DEPTH = 'the queue depth is sampled, which is not among the methods'
_ISCSI = 'the recorded target also ran iSCSI and showed its thread'
_ESNAP = 'shows a clone of an image, or the image; there are none'
_MORE = 'lists clones of images and a volume that no recorded request made'
_EARLIER = 'lists the volumes that earlier, unrecorded work had left'
_CONNECTED = 'a host is connected; data over NVMe-oF takes a real target'
_SCSI = 'is about a vhost-scsi controller; there are none'
_WRITTEN = 'a guest has written to the volume; no data is kept'
_THREADS = 'shows iSCSI and a vhost controller that nothing recorded made'
_WAIT = 'the recorded target was waiting for framework_start_init'
_PASSTHRU = 'is about a passthru bdev or the lvol under it; there are none'
_INITIATOR = 'is about a bdev of the NVMe initiator; there are none'
_INTERRUPT = 'the recorded target ran in interrupt mode'
_NO_NBD = 'a host without NBD says so before it looks at the bdev'
_QUEUES = 'a guest has negotiated queues; the books speak no vhost-user'

_BY_RECORDING: dict[str, dict[str, tuple[int, ...]]] = {
    '01-core': {_METHODS: (1, 2, 3, 4)},
    '03-bdev': {
        _DELAY: (75, 76),
        _KINDS: (102,),
        _IO: (104, 105, 107, 114),
        _DEPTH: (125,),
        _ISCSI: (126, 127),
    },
    '04-lvol': {_ESNAP: (155, 157, 186)},
    '04b-lvol-more': {_MORE: (7,)},
    '06-nvmf-target': {_EARLIER: (2,), _CONNECTED: (144, 145, 146, 169, 171)},
    '06c-masking-dhchap-target': {_CONNECTED: (19,)},
    '08-vhost': {_SCSI: (50, 60, 64, 70)},
    '09-vhost-live-guest': {
        _IO: (4, 5),
        _WRITTEN: (6, 10, 12, 18),
        _THREADS: (7,),
    },
    '11-config-restart': {_WAIT: (79, 81)},
    '21-migr-storage': {_QUEUES: (5,), _WRITTEN: (10,)},
    '22-loopback': {
        _WRITTEN: (3,),
        _PASSTHRU: (7, 9, 10, 11, 20, 25, 36, 51),
    },
    '25-qos-sequences': {_PASSTHRU: (51, 52, 53, 54, 57, 58, 59)},
    '33-identity-notify': {_INTERRUPT: (5, 6), _QUEUES: (7,)},
    '35-more-storage': {_ESNAP: tuple(range(18, 26))},
    '37-late-placeholder-storage': {_INITIATOR: (11,)},
    '40-two-hosts-storage': {_CONNECTED: (2,)},
    '42-nbd': {_NO_NBD: (6, 22)},
}


def _flat() -> Iterator[tuple[tuple[str, int], str]]:
    for recording, reasons in _BY_RECORDING.items():
        for reason, numbers in reasons.items():
            for number in numbers:
                yield (recording, number), reason


EXPECTED_DIFFERENCES: dict[tuple[str, int], str] = dict(_flat())
