"""A locustfile of no use is found without running it; one that may have users is never refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.scenario import ScenarioError, load_scenario

SMALL = Path(__file__).parents[1] / "emulation" / "scenarios" / "small.yaml"


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.yaml"
    path.write_text(SMALL.read_text().replace("rate: 20/s}]", "users: 2}], locustfile: mine.py"))
    return path


NO_USER = "defines no Locust user: it needs a class with HttpUser or FastHttpUser as its base"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from locust import task\n\ndef broken(:\n", "is no Python: line 3: invalid syntax"),
        ("x = 1\nreturn x\n", "is no Python: line 2: 'return' outside function"),
        ("x = '\0'\n", "is no Python: "),
        ("(" * 5000, "is no Python: "),
        ("", NO_USER),
        ("import os\nfrom dataclasses import dataclass\nprint(os.getcwd())\n", NO_USER),
        ("from locust import TaskSet, task\nclass Mine(TaskSet):\n    @task\n    def f(self): ...\n", NO_USER),
        ("import locust\nclass A(locust.TaskSet): ...\nclass B(A): ...\nclass C(Exception): ...\n", NO_USER),
        ("from locust import HttpUser\nclass Mine(HttpUser):\n    abstract = True\n", NO_USER),
        ("class Mine:\n    def f(self): self.client.get('/')\n", NO_USER),
        ("from locust import *\nfrom enum import Enum\nclass Colour(Enum):\n    RED = 1\n", NO_USER),
    ],
)
def test_a_file_that_cannot_have_users_is_refused(scenario: Path, text: str, message: str) -> None:
    scenario.with_name("mine.py").write_text(text)
    with pytest.raises(ScenarioError) as caught:
        load_scenario(scenario)
    (problem,) = caught.value.problems
    assert (problem.line, problem.path) == (9, "spec.load.locustfile")
    assert problem.message.startswith(f"mine.py {message}")


@pytest.mark.parametrize(
    "text",
    [
        "from locust import HttpUser\nclass Mine(HttpUser): ...\n",
        "import locust as l\nclass Mine(l.FastHttpUser): ...\n",
        "from locust import HttpUser\nclass Base(HttpUser):\n    abstract = True\nclass Mine(Base): ...\n",
        "from locust import HttpUser\nif True:\n    class Mine(HttpUser): ...\n",
        "from users_of_mine import Mine\n",
        "from users_of_mine import *\n",
        "from . import users\n",
        "import users_of_mine\nMine = users_of_mine.Mine\n",
        "import users_of_mine\nclass Mine(users_of_mine.Base): ...\n",
        "from locust import HttpUser\nMine = type('Mine', (HttpUser,), {})\n",
        "import importlib\nglobals().update(vars(importlib.import_module('users_of_mine')))\n",
        "def make(base):\n    class Made(base): ...\n    return Made\n",
        "class Mine(metaclass=__import__('locust').user.users.UserMeta): ...\n",
        "def test_home(session): session.get('/')\n",
    ],
)
def test_a_file_that_may_have_users_is_accepted_and_not_run(scenario: Path, text: str) -> None:
    scenario.with_name("mine.py").write_text(text + "raise SystemExit('this was run')\n")
    assert load_scenario(scenario).load.locustfile is not None
