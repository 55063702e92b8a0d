"""What of a machine a task can be given or may need to find: devices, and paths of its file tree.

Everything is read through a `Tree`, whose root may be another machine's or a test's. A newcomer's
mistake: resolving links with the operating system, which would leave that root.
"""

from agent.hardware.devices import PATTERNS, look
from agent.hardware.places import PATH_PATTERNS, places
from agent.hardware.tree import Tree, host_root

__all__ = ["PATH_PATTERNS", "PATTERNS", "Tree", "host_root", "look", "places"]
