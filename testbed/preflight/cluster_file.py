"""The parts of a Ray cluster file that say which machines there are, and how one logs in to them.

Only the provider `local` has machines before `ray up`. What else the file says is checked by `ray up`, at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from testbed.scenario.problems import ScenarioError
from testbed.scenario.source import Source, read_source

AUTH_TOKEN = Path(".ray/auth_token")


def _is_here(path: Path) -> Path:
    path = path.expanduser()
    if not path.exists():
        made_by = "; `ray get-auth-token --generate` makes it" if path == Path.home() / AUTH_TOKEN else ""
        raise PydanticCustomError("not_here", "there is no {path} here{made_by}", {"path": path, "made_by": made_by})
    return path


LocalPath = Annotated[Path, AfterValidator(_is_here)]
"""A file or folder that has to be there; relative paths count from where `ray up` is called."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Provider(_Part):
    """`external_head_ip` is where the head is for us, `head_ip` for the workers."""

    type: Literal["local"]
    head_ip: str
    worker_ips: tuple[str, ...]
    external_head_ip: str | None = None


class Auth(_Part):
    """Without a key, ssh looks for one as it is configured. The proxy command is for the way to the head only."""

    ssh_user: str = "ubuntu"
    ssh_private_key: LocalPath | None = None
    ssh_proxy_command: str | None = None


class ClusterFile(_Part):
    """What of the file is needed here."""

    provider: Provider
    auth: Auth = Auth()
    file_mounts: dict[str, LocalPath] = {}
    setup_commands: tuple[str, ...] = ()
    docker: None = None

    @property
    def makes_environment(self) -> bool:
        return any("-m venv" in command for command in self.setup_commands)


def read_cluster_file(path: Path) -> tuple[ClusterFile, Source]:
    """The file, and where in it each value is written. Raises ScenarioError."""
    source = read_source(path, begins_with="cluster_name: NAME")
    try:
        return ClusterFile.model_validate(source.data), source
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # What another provider has no need of is not missing.
        for details in [each for each in problems if each["type"] == "literal_error"] or problems:
            source.report(details["loc"], _in_words(details))
    raise ScenarioError(source.problems)


def _in_words(details: ErrorDetails) -> str:
    match details["type"]:
        case "literal_error":
            return f"is {details['input']!r}: only machines that are there already (local) can be tried before `ray up`"
        case "missing":
            return "is missing"
        case "none_required":
            return "what a container will have cannot be tried before `ray up`"
    return details["msg"][:1].lower() + details["msg"][1:]
