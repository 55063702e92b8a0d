"""The store in etcd, for clusters with several schedulers.

`shell` is the Store; `connection` asks whichever `member` answers, and `watching` resumes
watches. What a failure means (`faults`), what is sent (`messages`) and where etcd is
(`options`) are values. `health` looks after the members for people, `upkeep` decides when
history is compacted and files are defragmented, and `maintenance` does it.
"""

from scheduler.store.etcd.options import EtcdOptions, options_of
from scheduler.store.etcd.shell import EtcdStore

__all__ = ["EtcdOptions", "EtcdStore", "options_of"]
