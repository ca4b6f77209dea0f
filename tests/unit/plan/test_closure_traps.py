"""The cache key's traps: what must leave it alone, and what must change it."""

from __future__ import annotations

import functools
import importlib
import itertools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from mainspring.errors import DeclarationError, RefusedError
from mainspring.plan.closure import closure_of, explain, key_parts, step_key
from mainspring.plan.encoding import encode

COUNTER = itertools.count()


class Project:
    """A folder of modules whose text changes under one name."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        monkeypatch.syspath_prepend(str(folder))

    def load(self, **modules: str) -> Any:
        for name, text in modules.items():
            sys.modules.pop(name, None)
            path = self.folder / f"{name}.py"
            path.write_text(text)
        importlib.invalidate_caches()
        loaded = {}
        for name, text in modules.items():
            module = importlib.util.module_from_spec(
                importlib.util.spec_from_file_location(name, self.folder / f"{name}.py")  # type: ignore[arg-type]
            )
            sys.modules[name] = module
            loaded[name] = text
        for name, text in loaded.items():
            # Compiled from the text at hand: two versions within a second would share a cached .pyc.
            exec(compile(text, str(self.folder / f"{name}.py"), "exec", dont_inherit=True), vars(sys.modules[name]))
        return sys.modules[next(iter(modules))]

    def digest(self, text: str, name: str = "f", **others: str) -> str:
        return closure_of(
            getattr(self.load(**others, stepmod=text), name) if not others else self._with(text, name, others)
        ).digest

    def _with(self, text: str, name: str, others: dict[str, str]) -> Any:
        self.load(**others)
        return getattr(self.load(stepmod=text), name)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, monkeypatch)


BASE = '''
LIMIT = 3
def helper(x):
    return x + LIMIT
def middle(x):
    return helper(x) * 2
def f(x, y=1):
    """Doc."""
    total = 0
    for item in range(x):
        total += middle(item) if item > y else 0
    try:
        return total
    except ValueError as error:
        return str(error)
'''


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace('"""Doc."""', '"""Another text."""'),
        BASE.replace('    """Doc."""\n', ""),
        BASE.replace("total = 0", "total = 0  # a comment"),
        BASE.replace("total = 0", "\n\n    total = (\n        0\n    )"),
        BASE.replace("total", "summed"),
        BASE.replace("as error", "as fault").replace("str(error)", "str(fault)"),
        BASE.replace("item", "element"),
        "import os\n" + BASE,
        BASE + "\nUNUSED = 4\ndef other():\n    return UNUSED\n",
    ],
)
def test_same_key(project: Project, text: str) -> None:
    assert project.digest(text) == project.digest(BASE)


@pytest.mark.parametrize(
    "text",
    [
        BASE.replace("x + LIMIT", "x - LIMIT"),
        BASE.replace("LIMIT = 3", "LIMIT = 4"),
        BASE.replace("LIMIT = 3", "LIMIT = 3.0"),
        BASE.replace("LIMIT = 3", "LIMIT = True"),
        BASE.replace("y=1", "y=2"),
        BASE.replace("* 2", "* 3"),
        BASE.replace("item > y", "item >= y"),
        BASE.replace("except ValueError", "except KeyError"),
        BASE.replace("def f(x, y=1)", "def f(x, *, y=1)"),
        BASE.replace("return total\n", "return total + 0\n"),
    ],
)
def test_new_key(project: Project, text: str) -> None:
    assert project.digest(text) != project.digest(BASE)


def test_the_helper_that_changed_is_named(project: Project) -> None:
    old = closure_of(project.load(stepmod=BASE).f)
    new = closure_of(project.load(stepmod=BASE.replace("x + LIMIT", "x - LIMIT")).f)
    assert explain(old.labels, new.labels) == ["changed stepmod:helper"]


CELLS = """
def make(scale, shift):
    def f(x):
        return x * scale + shift
    return f
f = make(2, 3)
"""


def test_cells_count_by_content_not_by_name(project: Project) -> None:
    base = project.digest(CELLS)
    assert project.digest(CELLS.replace("scale", "zoom")) == base
    assert project.digest(CELLS.replace("shift", "aaa")) == base
    assert project.digest(CELLS.replace("make(2, 3)", "make(2, 4)")) != base
    assert project.digest(CELLS.replace("make(2, 3)", "make(3, 2)")) != base


NESTED = """
def f(rows):
    first, second = 1, 2
    def inner(row):
        return row * second + first
    return [inner(row) for row in rows]
"""


def test_renamed_cells_of_inner_functions(project: Project) -> None:
    base = project.digest(NESTED)
    assert project.digest(NESTED.replace("first", "zzz")) == base
    assert project.digest(NESTED.replace("second", "aaa")) == base
    assert project.digest(NESTED.replace("row * second + first", "row * first + second")) != base


DECORATED = """
import functools
def deco(function):
    @functools.wraps(function)
    def wrapper(x):
        return function(x) + 1
    return wrapper
@deco
def f(x):
    return x
"""


def test_the_body_of_a_decorator_counts(project: Project) -> None:
    base = project.digest(DECORATED)
    assert project.digest(DECORATED.replace("+ 1", "+ 2")) != base
    assert project.digest(DECORATED.replace("    return x\n", "    return -x\n")) != base


CLASSES = """
class Base:
    rate = 2
    def area(self):
        return self.rate
class Shape(Base):
    pass
def f(x: Shape) -> float:
    return x.area()
"""


def test_methods_of_annotated_classes_and_of_their_bases_count(project: Project) -> None:
    base = project.digest(CLASSES)
    assert project.digest(CLASSES.replace("return self.rate", "return self.rate + 1")) != base
    assert project.digest(CLASSES.replace("rate = 2", "rate = 3")) != base
    assert project.digest(CLASSES.replace("class Base:", "class Base:\n    '''Words.'''")) == base


def test_arguments_of_a_partial_count(project: Project) -> None:
    text = "import functools\ndef g(x, y):\n    return x\nf = functools.partial(g, y=1)\n"
    assert project.digest(text.replace("y=1", "y=2")) != project.digest(text)


def test_imports_in_a_body_are_followed(project: Project) -> None:
    text = "def f(x):\n    from sidemod import rate\n    return rate(x)\n"
    one = project.digest(text, sidemod="def rate(x):\n    return x\n")
    two = project.digest(text, sidemod="def rate(x):\n    return x + 1\n")
    same = project.digest(text, sidemod="def rate(x):\n    return x\nUNUSED = 1\n")
    assert one != two
    assert one == same


def test_attributes_of_project_modules_are_followed_alone(project: Project) -> None:
    text = "import sidemod\ndef f(x):\n    return sidemod.rate(x)\n"
    one = project.digest(text, sidemod="def rate(x):\n    return x\nother = 1\n")
    assert project.digest(text, sidemod="def rate(x):\n    return x\nother = 2\n") == one
    assert project.digest(text, sidemod="def rate(x):\n    return -x\nother = 1\n") != one
    escaping = "import sidemod\ndef f(x):\n    return vars(sidemod)\n"
    whole = project.digest(escaping, sidemod="other = 1\n")
    assert project.digest(escaping, sidemod="other = 2\n") != whole


def test_mutual_recursion_has_one_digest_a_function_from_either_entry(project: Project) -> None:
    text = "def even(n):\n    return n == 0 or odd(n - 1)\ndef odd(n):\n    return n != 0 and even(n - 1)\n"
    module = project.load(stepmod=text)
    assert closure_of(module.even).labels == closure_of(module.odd).labels
    assert closure_of(module.even).digest != closure_of(module.odd).digest


def test_other_code_enters_by_its_version(project: Project) -> None:
    text = "def f(x):\n    import msgspec\n    return msgspec.json.encode(x)\n"
    found = closure_of(project.load(stepmod=text).f)
    assert any(name.startswith("msgspec==") for name in found.distributions)
    assert list(found.labels) == ["stepmod:f"]


def test_a_lock_is_refused(project: Project) -> None:
    with pytest.raises(DeclarationError) as caught:
        project.digest("import threading\nLOCK = threading.Lock()\ndef f(x):\n    with LOCK:\n        return x\n")
    assert caught.value.code == "MS-1110"


PRINT = """
import sys
sys.path.insert(0, {folder!r})
{trace}
import stepmod
from mainspring.plan.closure import closure_of
print(closure_of(stepmod.f).digest)
"""


def in_process(folder: Path, seed: str, trace: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-c", PRINT.format(folder=str(folder), trace=trace)],
        env={"PYTHONHASHSEED": seed, "PATH": "", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


SETS = "KNOWN = frozenset({'a', 'b', 'c', 'dd', 'ee'})\ndef f(x):\n    return x in {'u', 'v', 'w', 'x'} or x in KNOWN\n"


def test_hash_seed_and_tracer_do_not_matter(project: Project, tmp_path: Path) -> None:
    here = project.digest(SETS)
    tracer = "sys.settrace(lambda *a: None)"
    assert {in_process(tmp_path, "1"), in_process(tmp_path, "77"), in_process(tmp_path, "5", tracer)} == {here}


def test_main_is_called_by_its_real_name(project: Project, tmp_path: Path) -> None:
    text = (
        SETS
        + "if __name__ == '__main__':\n    from mainspring.plan.closure import closure_of\n"
        + "    print(closure_of(f).digest)\n"
    )
    imported = project.digest(SETS)
    (tmp_path / "stepmod.py").write_text(text)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "stepmod.py")], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == imported


class Secret(str):
    __mainspring_secret__ = True


def test_a_secret_is_refused_as_a_parameter() -> None:
    with pytest.raises(RefusedError) as caught:
        encode({"password": Secret("x")})
    assert caught.value.code == "MS-5001"


def key(project: Project, **changes: Any) -> str:
    closure = closure_of(project.load(stepmod=BASE).f)
    values: dict[str, Any] = {"params": {"x": 1}, "inputs": [("rows", "d1")], "seed": 1, "env": {"A": "1"}} | changes
    return step_key(key_parts([closure], values["params"], values["inputs"], seed=values["seed"], env=values["env"]))


def test_every_field_of_the_key_counts(project: Project) -> None:
    base = key(project)
    assert key(project) == base
    changed = [
        key(project, params={"x": 2}),
        key(project, params={"x": 1.0}),
        key(project, inputs=[("rows", "d2")]),
        key(project, inputs=[("cells", "d1")]),
        key(project, seed=2),
        key(project, seed=None),
        key(project, env={"A": "2"}),
        key(project, env={}),
    ]
    assert base not in changed
    assert len(set(changed)) == len(changed)


def test_nan_is_equal_to_itself() -> None:
    assert encode(float("nan")) == encode(float("-nan")) == encode(0.0 * float("inf"))
    assert encode(-0.0) != encode(0.0)


@pytest.mark.parametrize("odd", [threading.Lock(), (x for x in ()), open], ids=["lock", "generator", "builtin"])
def test_values_without_a_form_are_refused(odd: object) -> None:
    with pytest.raises(DeclarationError):
        encode(odd)


def test_a_partial_of_a_builtin_is_fine(project: Project) -> None:
    assert closure_of(functools.partial(int, base=2)).digest != closure_of(functools.partial(int, base=3)).digest


def test_an_estimator_of_ones_own_has_a_key_that_follows_its_code(project: Project) -> None:
    """scikit-learn puts descriptors of its own into every class that derives from it."""
    text = """
from sklearn.base import BaseEstimator, ClassifierMixin

class Mean(ClassifierMixin, BaseEstimator):
    def fit(self, x, y, sample_weight=None):
        return self

    def predict(self, x):
        return [0.5 for _ in x]

def f(x, y):
    return Mean().fit(x, y)
"""
    plain = project.digest(text)
    assert plain == project.digest(text)
    assert plain != project.digest(text.replace("0.5", "0.6"))
    assert plain != project.digest(text.replace("sample_weight", "weight"))
