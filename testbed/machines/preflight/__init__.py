"""What `ray up` and a run will need of the machines in a Ray cluster file, tried before: `testbed preflight`.

Ray's launcher repeats a login that is refused for five minutes, and what is wrong with a worker it says only in a log
on the head. Here every machine is asked at once, and what is wrong is said in a line each.
"""

from testbed.machines.preflight.trial import try_machines

__all__ = ["try_machines"]
