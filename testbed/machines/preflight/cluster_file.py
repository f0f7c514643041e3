"""The parts of a Ray cluster file that say which machines there are, and how one logs in to them.

Only the provider `local` has machines before `ray up`. What else the file says is checked by `ray up`, at once.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator
from pydantic_core import ErrorDetails, PydanticCustomError

from testbed.documents.problems import ScenarioError
from testbed.documents.source import Source, read_source
from testbed.scenario.wording import in_words

AUTH_TOKEN = "~/.ray/auth_token"
OUR_OWN = ("not_here", "not_readable", "open", "merge_key")
OTHER_PROVIDERS = (("provider", "type"), ("provider", "coordinator_address"))


def _expanded(name: str) -> str:
    path = os.path.expanduser(name)
    if not os.path.exists(path):
        made_by = "; `(umask 077; ray get-auth-token --generate)` makes it" if name == AUTH_TOKEN else ""
        raise PydanticCustomError("not_here", "there is no {path} here{made_by}", {"path": path, "made_by": made_by})
    if name == AUTH_TOKEN and os.stat(path).st_mode & 0o077:
        raise PydanticCustomError("open", "{path} is open to other users: chmod 600 {path}", {"path": path})
    return path


def _readable(name: str) -> str:
    path = _expanded(name)
    if not os.path.isfile(path) or not os.access(path, os.R_OK):
        raise PydanticCustomError("not_readable", "{path} is no file that can be read", {"path": path})
    return path


Text = Annotated[str, StringConstraints(min_length=1)]
LocalPath = Annotated[Text, AfterValidator(_expanded)]
"""A file or folder that has to be there; relative paths count from where `ray up` is called."""
Secret = Annotated[Text, AfterValidator(_readable)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _without_merge_keys(cls, written: Any) -> Any:
        if isinstance(written, dict) and "<<" in written:
            raise PydanticCustomError("merge_key", "merge keys (<<) are not understood here")
        return written


class Provider(_Part):
    """`external_head_ip` is where the head is for us, unless internal addresses are to be used."""

    type: Literal["local"]
    head_ip: Text
    worker_ips: tuple[Text, ...]
    external_head_ip: Text | None = None
    use_internal_ips: bool = False
    use_external_head_ip: bool = False
    coordinator_address: None = None

    @property
    def head_from_here(self) -> str:
        internal = self.use_internal_ips and not self.use_external_head_ip
        return self.head_ip if internal or self.external_head_ip is None else self.external_head_ip


class Auth(_Part):
    """Without a key, ssh looks for one of its own. The proxy command is for the way to the head only."""

    ssh_user: Text
    ssh_private_key: Secret | None = None
    ssh_proxy_command: Text | None = None


class Container(_Part):
    """Ray runs on the machine itself if there is no name."""

    container_name: Literal["", None] = None


class ClusterFile(_Part):
    """What of the file is needed here."""

    provider: Provider
    auth: Auth
    min_workers: int | None = None
    max_workers: int | None = None
    file_mounts: dict[str, LocalPath] = {}
    initialization_commands: tuple[str, ...] = ()
    setup_commands: tuple[str, ...] = ()
    docker: Container | None = None

    @property
    def makes_environment(self) -> bool:
        """With what a new machine has, before any command has installed more."""
        return not self.initialization_commands and any("-m venv" in command for command in self.setup_commands)


def read_cluster_file(path: Path) -> tuple[ClusterFile, Source]:
    """The file, and where in it each value is written. Raises ScenarioError."""
    source = read_source(path, begins_with="cluster_name: NAME")
    try:
        file = ClusterFile.model_validate(source.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # What another provider has no need of is not missing.
        for details in [each for each in problems if each["loc"] in OTHER_PROVIDERS] or problems:
            source.report(details["loc"], _in_words(details))
    else:
        _check_workers(file, source)
    if source.problems:
        raise ScenarioError(source.problems)
    return file, source


def _check_workers(file: ClusterFile, source: Source) -> None:
    head, workers = file.provider.head_ip, file.provider.worker_ips
    for index, worker in enumerate(workers):
        if worker == head or worker in workers[:index]:
            source.report(("provider", "worker_ips", index), f"{worker} is written twice")
    for key, count in (("min_workers", file.min_workers), ("max_workers", file.max_workers)):
        if count is not None and count < len(workers):
            source.report((key,), f"is {count}: no more of the {len(workers)} worker_ips would ever be started")


def _in_words(details: ErrorDetails) -> str:
    match details["loc"], details["type"]:
        case ("provider", "type"), "literal_error":
            return f"is {details['input']!r}: only machines that are there already (local) can be tried before `ray up`"
        case ("provider", "coordinator_address"), _:
            return "which machines a coordinator gives is not known before `ray up`"
        case ("docker", "container_name"), _:
            return "what a container will have cannot be tried before `ray up`"
        case _, kind if kind in OUR_OWN:
            return details["msg"]
    return in_words(details)
