"""Models of operations: planned changes of the partition map while the load goes on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from testbed.scenario.models.cells import Partitions, as_partitions
from testbed.scenario.models.fields import Duration, Model, Name, Names, Percentage, PositiveDuration, as_list
from testbed.scenario.schema_rules import all_of, exactly_one_of, needs, with_key


class MoveModel(Model):
    """Partitions that go to another cell."""

    partitions: Annotated[
        list[Partitions],
        BeforeValidator(as_partitions, json_schema_input_type=str | int | list[str | int]),
        Field(min_length=1),
    ]
    """Which: `0-9`, or a list of partitions and ranges."""
    to: str
    """The cell that owns them from then on."""


class FailoverModel(Model):
    """A cell that is given up: its backup takes over all that it owns."""

    cell: str
    """The cell."""


class EvacuateModel(Model):
    """A city that is left: what its cells own goes to their backups elsewhere, or in turn to all cells elsewhere."""

    city: str
    """The city."""


class PopOutModel(Model):
    """A part of a cell that goes to an elastic one."""

    cell: str
    """The cell that is relieved."""
    to: str
    """The elastic cell."""
    share: Percentage
    """How much of what it owns: the last of its partitions."""


class SwitchModel(Model):
    """Deployment groups: one of them gets all calls of its cells."""

    group: str
    """The group that takes over."""
    cells: Names | None = None
    """In which cells. Default: all that have such a group."""


class RollBackModel(Model):
    """When an operation is given up, and all of it that is done is taken back."""

    errors_above: Percentage
    """If a larger share of all requests was not ok."""
    over: PositiveDuration = 3.0
    """Of the requests of this time. Watched from the first step on until as long after the last one."""


class OperationModel(Model):
    """A planned change of who owns what; exactly one of move, failover, evacuate, popOut and switch."""

    model_config = ConfigDict(
        json_schema_extra=all_of(
            exactly_one_of("move", "failover", "evacuate", "popOut", "switch"),
            with_key("pause", needs("steps")),
            with_key("catchUpWithin", needs("forbidWrite")),
        )
    )

    name: Name
    """Unique name among faults and operations, for expectations and results."""
    at: Duration
    """When it starts, counted from the start of the load."""
    for_: Annotated[PositiveDuration | None, Field(alias="for")] = None
    """After how long all of it is taken back at once. Default: it stays."""
    steps: Annotated[
        list[Percentage],
        BeforeValidator(as_list, json_schema_input_type=str | list[str]),
        Field(default_factory=lambda: [1.0], min_length=1, max_length=100),
    ]
    """How much of it is done with each step, rising to 100%: `[1%, 10%, 50%, 100%]`. Default: all at once."""
    pause: Duration = 0.0
    """How long to wait between two steps."""
    order: Literal["together", "gatewaysFirst", "sidecarsFirst"] | None = None
    """Which layer of proxies is told first; the other one is told when all of it has acknowledged. Default: together;
    gatewaysFirst with `forbidWrite`."""
    promote: str | None = None
    """A sharded store. Before each step, its replicas in the cells that get partitions take over to lead the groups of
    these; traffic is moved when they do. Default: leaders stay where they are."""
    forbid_write: str | None = None
    """A sharded store of mode async. In each step, writes of what moves are forbidden; when the first layer has the new
    map, replication is waited for, and when the other one has it, they are allowed again."""
    catch_up_within: PositiveDuration | None = None
    """With `forbidWrite`: how long replication is waited for in each step, while writes are refused. In vain, the step
    is taken back at once, writes are allowed again, and the operation is given up. Default: 10s."""
    roll_back_if: RollBackModel | None = None
    """When it is given up. Default: never."""
    move: MoveModel | None = None
    """Partitions go to another cell."""
    failover: FailoverModel | None = None
    """A cell is given up to its backup."""
    evacuate: EvacuateModel | None = None
    """A city is left."""
    pop_out: PopOutModel | None = None
    """A part of a cell goes to an elastic one."""
    switch: SwitchModel | None = None
    """A deployment group gets all calls."""
