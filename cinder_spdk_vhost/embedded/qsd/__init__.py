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

"""A data plane on qemu-storage-daemon (QSD), QEMU's block layer alone.

Every volume that has been written to is a qcow2 image; snapshots and clones
are backing chains. What the books say is what is served: the images carry
no names and no relations of their own.

What QSD 7.2 can't be made to do, and a real target does:

- The guest's disk is called ``vhost_user_blk``, whatever the bdev's name.
- Discards are not in the statistics, and they count against the limits;
  latencies are not measured and stay 0.
- A block device of the host takes a discard or a zeroing for what the
  image's clusters of 64 KiB allow: what is not aligned to them keeps its old
  data. Copies that count on it (``qemu-img convert`` onto a volume that was
  used before) are to write zeros.
- Limits on the total beside limits on reads or writes alone: QEMU takes one
  kind or the other, so the lower of both is set on each direction.
- A pool that is full of thin volumes still takes a guest's writes; only a
  full file system under the state directory ends them (the guest gets an
  I/O error).
- A volume that is deleted under its guest: the guest waits for its disk to
  come back, where a real target answers its I/O with errors.
- While a host program has a volume (``nbd_start_disk``), what copies data
  into that volume (inflating or decoupling it, deleting the snapshot that it
  alone stands on) is refused as busy.
- Block devices of the host have no name of the caller's choice: there are no
  ublk devices (``embedded/methods/disks.py``), and no ``nbd_device``.
- Work on a chain (copying in an inflate, for example) holds up guests that
  connect to volumes of the same chain.
- Packed rings: ``packed_ring`` of a controller has no effect.
- Requests under way are not counted: ``inflight_task_cnt`` is 0.
- QSD believes what a guest's QEMU says of its rings. The relay checks sizes
  and indices; a hostile QEMU (not its guest) could still crash the daemon.
- NVMe-oF: subsystems are kept in the books, and no data is served.

What is worked around, by ``embedded/vhost_user`` where it is about messages:

- QSD aborts when a guest's connection is closed while its rings have
  requests: an export is removed before its socket is closed.
- It does not wait for requests when a ring is stopped: the relay does.
- It keeps record of requests under way and does not say so: the relay does.
- It tells guests of no new size before 8.1: the relay does.
- A default export hides flushes: exports are made with ``writethrough``.
"""
