# SPDX-License-Identifier: Apache-2.0
"""Design-space exploration: many accelerators, scored on the same workloads.

A space file (`load_space`) names configurations, schedules and workloads; every score of every
point is a task (`afternorm.explore.tasks`), evaluated by local processes (`run_local`) or by a
Dask cluster (`run_cluster`), and kept in a folder under the hash of its content (`Results`), so
that nothing is done twice.
"""

from afternorm.explore.cluster import run_cluster
from afternorm.explore.explore import Exploration, Point, explore
from afternorm.explore.local import run_local
from afternorm.explore.results import Results
from afternorm.explore.space import Space, load_space

__all__ = [
    "Exploration",
    "Point",
    "Results",
    "Space",
    "explore",
    "load_space",
    "run_cluster",
    "run_local",
]
